"""Runs properties on a subject and collects verdicts; hypothesis draws and shrinks the examples."""

import contextlib
import math
import shlex
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure, HypothesisException

from protocols.audit.draws import tell
from protocols.audit.limit import Hung, OutOfTime, limited
from protocols.audit.pieces import Malformed
from protocols.audit.prop import Finding, NotChecked, NotVisible, Property
from protocols.audit.registry import PROPERTIES, find
from protocols.audit.repeatable import supplied
from protocols.audit.report import Checked, Report, Status
from protocols.audit.subject import Subject
from protocols.errors import Misuse, require
from protocols.policy import THREATS

DEFAULT_EXAMPLES = 25
BLACK_SECONDS = 170.0
"""What an audit of a black box may take, unless it is told otherwise."""
SHARE = 0.25
"""Of what is left of an audit's time, a property may take that much, or its even share where this is more."""
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
    seconds: float | None = None,
    on_property: Callable[[Property, Checked | None], None] | None = None,
) -> Report:
    """Check every property that is visible in the subject, name the others, and return the report.

    examples: per property, at least 1. seed: of the examples (not of the protocol's own randomness). only: names of
    properties. search: let an adversary plan too, which takes minutes. seconds: that the whole may take; None: 170 for
    a black box whose properties are not searched, no limit elsewhere. A property that draws examples then gets fewer,
    any other is not checked. on_property: called before (with None) and after each. Whoever interrupts the audit
    (KeyboardInterrupt) gets the report of what was found until then. Raises Misuse for a name in `only` that is unknown
    or not visible in the subject, and for an adapter that does not keep its contract.
    """
    require(examples >= 1, "at least 1 per property", examples, "examples")
    if seconds is None:
        seconds = BLACK_SECONDS if subject.level == "black" and not search else math.inf
    require(seconds > 0, "a time above 0", seconds, "seconds")
    verdicts: list[Checked] = []
    chosen = list(planned(subject, only, search))
    until = time.perf_counter() + seconds
    with contextlib.suppress(KeyboardInterrupt), supplied(None):
        for place, prop in enumerate(chosen):
            if on_property:
                on_property(prop, None)
            share = (until - time.perf_counter()) * max(SHARE, 1 / (len(chosen) - place))
            verdicts.append(check(subject, prop, examples, seed, seconds=max(share, 0.01)))
            if on_property:
                on_property(prop, verdicts[-1])
    reached = {verdict.name for verdict in verdicts}
    cut_off = tuple(prop.name for prop in chosen if prop.name not in reached)
    unseen = [] if only else [p for p in PROPERTIES if p.hidden(subject)]
    verdicts += [check(subject, prop, examples, seed) for prop in unseen]
    left_out = [p.name for p in PROPERTIES if p.search and p not in (*chosen, *unseen)]
    return Report(
        subject.name, subject.level, subject.threat, seed, tuple(verdicts), tuple(left_out), cut_off
    )


def planned(subject: Subject, only: Iterable[str] = (), search: bool = False) -> Sequence[Property]:
    """Return the properties that `audit` would check, in order. Raises Misuse as it does."""
    visible = [prop for prop in PROPERTIES if not prop.hidden(subject)]
    chosen = [find(name) for name in only]
    for prop in chosen:
        if prop not in visible:
            raise Misuse(
                f"the property {prop.name} is not visible in the black box {subject.name}: {prop.hidden(subject)}; "
                f"visible: {', '.join(p.name for p in visible)}"
            )
    return chosen or [prop for prop in visible if search or not prop.search]


def check(
    subject: Subject,
    prop: Property,
    examples: int,
    number: int,
    chosen: settings | None = None,
    seconds: float = math.inf,
) -> Checked:
    """Return the verdict on one property. chosen: settings of hypothesis that hold where the audit has no own.
    seconds: that it may take.
    """
    began = time.perf_counter()
    runs = [0]

    def done(status: Status, reason: str, story: str | None = None) -> Checked:
        took, how = time.perf_counter() - began, subject.examined.get(prop.name, "")
        if not prop.search:
            reason = "; ".join(filter(None, (reason, how))) if status is Status.PASSED else reason
            how = prop.statistics
        return Checked(prop.name, prop.claim, prop.literature, status, reason, runs[0], took, story, how)

    def failed(error: BaseException, repeats: bool) -> Checked:
        story = str(error) if isinstance(error, Finding) else _crash(subject, error)
        if not repeats:
            story += "\nIt did not repeat with the same inputs: the protocol's own randomness takes part."
        replay = _replay(subject, prop, examples, number)
        return done(Status.FAILED, story.splitlines()[0], f"{story}\nReplay: {replay}")

    if THREATS.index(prop.threat) > THREATS.index(subject.threat):
        return done(
            Status.NOT_CLAIMED,
            f"promised in the {prop.threat} model; this protocol declares {subject.threat}",
        )
    if why := subject.inapplicable(prop.name):
        return done(Status.NOT_CLAIMED, f"it does not apply: {why}")
    if hidden := prop.hidden(subject):
        return done(Status.NOT_VISIBLE, hidden)
    subject.playing = None
    wanted, found = min(examples, prop.most or examples), list[Finding]()
    reason = ""
    try:
        _within(seconds, lambda: _run(subject, prop, wanted, number, runs, found, chosen))
    except (Exception, SystemExit, Hung) as error:  # whatever it is, the audited protocol brought it about
        first, repeats = _first(error)
        if isinstance(first, Malformed):
            raise first from None
        if isinstance(first, NotChecked):
            unseen = isinstance(first, NotVisible) and subject.level == "black"
            return done(Status.NOT_VISIBLE if unseen else Status.NOT_CHECKED, str(first))
        # then what hypothesis says of itself is the alarm's doing
        over = time.perf_counter() - began >= seconds
        if not isinstance(first, OutOfTime) and not (over and isinstance(first, HypothesisException)):
            return failed(first, repeats)
        if found:
            return failed(found[-1], True)
        if prop.statistical or prop.search or runs[0] < 2:
            return done(Status.NOT_CHECKED, f"it did not end within the {seconds:.0f} s that it may take")
        reason = f"{runs[0] - 1} of {wanted} examples, in the {seconds:.0f} s that it may take"
    if prop.name in subject.unknown:
        return done(Status.NOT_CHECKED, subject.unknown[prop.name])
    return done(Status.PASSED, reason)


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Make a call that may take so long. Raises OutOfTime."""
    if seconds < math.inf:
        limited(call, seconds, OutOfTime)
    else:
        call()


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
    found: list[Finding],
    chosen: settings | None,
) -> None:
    """Check a property on its examples. runs: counts them. found: what they found, the last one shrunk furthest."""
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
        try:
            prop.check(subject, data)
        except Finding as finding:
            found.append(finding)
            raise

    run()
