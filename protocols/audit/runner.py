"""Runs properties on a subject and collects verdicts; hypothesis draws and shrinks the examples."""

import shlex
import time
import traceback
from collections.abc import Callable, Iterable

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from protocols.audit.blackbox import Malformed
from protocols.audit.draws import tell
from protocols.audit.limit import Hung
from protocols.audit.prop import THREATS, Finding, NotChecked, Property
from protocols.audit.registry import PROPERTIES, find
from protocols.audit.report import Checked, Report, Status
from protocols.audit.subject import Subject
from protocols.audit_hooks import Hooks
from protocols.errors import Misuse

DEFAULT_EXAMPLES = 25
OWN = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    verbosity=Verbosity.quiet,
    report_multiple_bugs=False,
    print_blob=False,
)


def audit(
    subject: Subject,
    *,
    examples: int = DEFAULT_EXAMPLES,
    seed: int = 0,
    only: Iterable[str] = (),
    search: bool = False,
    on_property: Callable[[Property, Checked | None], None] | None = None,
) -> Report:
    """Check every property of the subject's level and return the report.

    examples: per property, at least 1. seed: of the examples (not of the protocol's own randomness). only: names of
    properties. search: let an adversary plan too, which takes minutes. on_property: called before
    (with None) and after each. Raises Misuse for a name in `only` that is unknown or not of the subject's level, and
    for an adapter that does not keep its contract.
    """
    if examples < 1:
        raise Misuse(f"examples: expected at least 1 per property, got {examples}")
    verdicts = []
    chosen = _chosen(subject, list(only), search)
    for prop in chosen:
        if on_property:
            on_property(prop, None)
        verdict = check(subject, prop, examples, seed)
        verdicts.append(verdict)
        if on_property:
            on_property(prop, verdict)
    left_out = [p.name for p in _of_level(subject) if p.search and p not in chosen]
    return Report(subject.name, subject.level, subject.threat, seed, tuple(verdicts), tuple(left_out))


def _of_level(subject: Subject) -> list[Property]:
    return [prop for prop in PROPERTIES if subject.level == "white" or prop.level == "black"]


def _chosen(subject: Subject, only: list[str], search: bool) -> list[Property]:
    of_level = _of_level(subject)
    chosen = [find(name) for name in only] or [prop for prop in of_level if search or not prop.search]
    for prop in chosen:
        if prop not in of_level:
            raise Misuse(
                f"the property {prop.name} needs a white box, and {subject.name} is a black box; properties of a "
                f"black box: {', '.join(p.name for p in of_level)}"
            )
    return chosen


def check(
    subject: Subject, prop: Property, examples: int, number: int, chosen: settings | None = None
) -> Checked:
    """Return the verdict on one property. chosen: settings of hypothesis that hold where the audit has no own."""
    began = time.perf_counter()
    runs = [0]

    def done(status: Status, reason: str, story: str | None = None) -> Checked:
        took, how = time.perf_counter() - began, subject.examined.get(prop.name, prop.statistics)
        return Checked(prop.name, prop.claim, prop.literature, status, reason, runs[0], took, story, how)

    if THREATS.index(prop.threat) > THREATS.index(subject.threat):
        return done(
            Status.NOT_CLAIMED,
            f"promised in the {prop.threat} model; this protocol declares {subject.threat}",
        )
    why = getattr(subject, "hooks", Hooks()).inapplicable.get(prop.name)
    if why is not None:
        return done(Status.NOT_CLAIMED, f"it does not apply: {why}")
    subject.playing = None
    try:
        _run(subject, prop, min(examples, prop.most or examples), number, runs, chosen)
    except (Exception, SystemExit, Hung) as error:  # whatever it is, the audited protocol brought it about
        first, repeats = _first(error)
        if isinstance(first, Malformed):
            raise first from None
        if isinstance(first, NotChecked):
            return done(Status.NOT_CHECKED, str(first))
        story = str(first) if isinstance(first, Finding) else _crash(subject, first)
        if not repeats:
            story += "\nIt did not repeat with the same inputs: the protocol's own randomness takes part."
        replay = _replay(subject, prop, examples, number)
        return done(Status.FAILED, story.splitlines()[0], f"{story}\nReplay: {replay}")
    if prop.name in subject.unknown:
        return done(Status.NOT_CHECKED, subject.unknown[prop.name])
    return done(Status.PASSED, "")


def _first(error: BaseException) -> tuple[BaseException, bool]:
    """The finding inside what hypothesis raises, and whether it came again with the same example."""
    repeats = True
    while isinstance(error, FlakyFailure):
        repeats = False
        inner = error.exceptions
        error = next((one for one in inner if isinstance(one, Finding)), inner[0])
    return error, repeats


def _crash(subject: Subject, error: BaseException) -> str:
    """The story of an error that is no verdict: what was raised where, and on which inputs."""
    if isinstance(error, Hung):
        said = f"The protocol hung: {error}"
    else:
        said = f"The protocol raised {type(error).__name__}, which is no error of its contract: "
        said += " ".join(str(error).split())  # on one line: a message is no part of the story's form
        frames = traceback.extract_tb(error.__traceback__)
        said += f"\n  at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return str(tell(said, *subject.playing)) if subject.playing else said


def _replay(subject: Subject, prop: Property, examples: int, number: int) -> str:
    if subject.reference:
        asked = shlex.quote(subject.reference)
        return f"secagg audit {asked} --only {prop.name} --examples {examples} --seed {number}"
    return f"audit(subject, only=[{prop.name!r}], examples={examples}, seed={number}) of protocols.audit"


def _run(
    subject: Subject,
    prop: Property,
    examples: int,
    number: int,
    runs: list[int],
    chosen: settings | None,
) -> None:
    if prop.statistical or prop.search:
        runs[0] = 1
        prop.check(subject, None)
        return
    rules = OWN
    if chosen is not None:
        rules = settings(
            OWN,
            phases=[phase for phase in chosen.phases if phase is not Phase.explain],
            verbosity=chosen.verbosity,
        )

    @seed(number)
    @settings(rules, max_examples=examples)
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        runs[0] += 1
        prop.check(subject, data)

    run()
