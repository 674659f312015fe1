"""Runs properties on a subject and collects verdicts; hypothesis draws and shrinks the examples."""

import time
from collections.abc import Callable, Iterable

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from protocols.audit.prop import THREATS, Finding, NotChecked, Property
from protocols.audit.registry import PROPERTIES
from protocols.audit.report import Checked, Report, Status
from protocols.audit.subject import Subject
from protocols.audit_hooks import Hooks

DEFAULT_EXAMPLES = 25


def audit(
    subject: Subject,
    *,
    examples: int = DEFAULT_EXAMPLES,
    seed: int = 0,
    only: Iterable[str] = (),
    on_property: Callable[[Property, Checked | None], None] | None = None,
) -> Report:
    """Check every property of the subject's level and return the report.

    examples: per property. seed: of the examples (not of the protocol's own randomness). only: names of properties.
    on_property: called before (with None) and after each. Raises Misuse for an unknown name in `only`.
    """
    from protocols.audit.registry import find

    chosen = [find(name) for name in only] or list(PROPERTIES)
    verdicts = []
    for prop in chosen:
        if prop.level == "white" and subject.level == "black":
            continue  # not a property of this level
        if on_property:
            on_property(prop, None)
        verdict = check(subject, prop, examples, seed)
        verdicts.append(verdict)
        if on_property:
            on_property(prop, verdict)
    return Report(subject.name, subject.level, subject.threat, seed, tuple(verdicts))


def check(subject: Subject, prop: Property, examples: int, number: int) -> Checked:
    """Return the verdict on one property."""
    began = time.perf_counter()
    runs = [0]

    def done(status: Status, reason: str, story: str | None = None) -> Checked:
        took = time.perf_counter() - began
        return Checked(
            prop.name, prop.claim, prop.literature, status, reason, runs[0], took, story, prop.statistics
        )

    if THREATS.index(prop.threat) > THREATS.index(subject.threat):
        return done(
            Status.NOT_CLAIMED,
            f"promised in the {prop.threat} model; this protocol declares {subject.threat}",
        )
    why = getattr(subject, "hooks", Hooks()).inapplicable.get(prop.name)
    if why is not None:
        return done(Status.NOT_CLAIMED, f"it does not apply: {why}")
    try:
        _run(subject, prop, min(examples, prop.most or examples), number, runs)
    except NotChecked as reason:
        return done(Status.NOT_CHECKED, str(reason))
    except Finding as finding:
        replay = f"secagg audit {subject.name} --only {prop.name} --examples {examples} --seed {number}"
        story = f"{finding}\nReplay: {replay}"
        return done(Status.FAILED, str(finding).splitlines()[0], story)
    except Exception as error:  # a crash of the audited protocol is a finding, whatever its type
        kind = type(error).__name__
        story = f"The protocol raised {kind}, which is no error of its contract: {error}"
        return done(
            Status.FAILED,
            story,
            f"{story}\nReplay: secagg audit {subject.name} --only {prop.name} --seed {number}",
        )
    return done(Status.PASSED, "")


def _run(subject: Subject, prop: Property, examples: int, number: int, runs: list[int]) -> None:
    if prop.statistical:
        runs[0] = 1
        prop.check(subject, None)
        return

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        runs[0] += 1
        prop.check(subject, data)

    run()
