"""Correctness: the total is the sum over the survivors, exactly, or there is none."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from protocols.audit.draws import drop, exact, inputs, tell, tolerated
from protocols.audit.heeding import require_answers, require_exact, require_together
from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.properties import black
from protocols.audit.reading import hook_of
from protocols.audit.repeatable import ReplayRandom
from protocols.audit.stepping import drive
from protocols.kernel import SERVER, Message


@promised(
    "none",
    "correctness with drop-outs (Bonawitz et al., CCS 2017, theorem 6.1)",
    pieces=("",),
    outside=black.exact_sum,
)
def exact_sum(subject: Any, data: Any) -> None:
    """The total is exactly the sum over the survivors, under every tolerated drop-out at every stage."""
    vectors = inputs(subject, data)
    gone = drop(subject, data, len(vectors))
    played = subject.play(vectors, gone, bound=subject.bound)
    survivors = subject.survivors_of(len(vectors), gone)
    if played.total is None:
        if tolerated(subject, gone, len(vectors), len(vectors[0])):
            raise tell(black.NO_TOTAL, vectors, gone, played)
        return
    if tuple(played.survivors) != survivors:
        said = f"the total is over other clients than {list(survivors)}, who sent their input"
        raise tell(said, vectors, gone, played)
    if played.total.tolist() != exact(vectors, survivors):
        expected = exact(vectors, survivors)
        raise tell(black.NOT_THE_SUM, vectors, gone, played, expected=expected)


@promised("none", "capacity", pieces=("",), most=1)
def no_wrap_at_the_bound(subject: Any, data: Any) -> None:
    """Inputs at the public bound neither wrap nor saturate."""
    n = subject.clients[1]
    for sign in (1, -1):
        vectors = [np.full(2, sign * subject.bound, np.int64)] * n
        played = subject.play(vectors, {}, bound=subject.bound)
        if played.total is None or played.total.tolist() != exact(vectors, tuple(range(n))):
            raise tell("at the bound the total wraps, saturates or is missing", vectors, {}, played)


LONG, MASKED_LONG = 1_009, 40_009
"""Coordinates of a long vector; masks are made in blocks, so where there are masks it is longer than a block."""


@promised("none", "correctness", pieces=("",), most=1)
def exact_in_every_coordinate(subject: Any, data: Any) -> None:
    """A long vector is summed exactly in every coordinate.

    Every coordinate of a long vector counts, the last one too.
    """
    hooks = getattr(subject, "hooks", None)
    dimension = MASKED_LONG if hooks is not None and hooks.stream is not None else LONG
    steps = np.arange(dimension, dtype=np.int64)
    n = subject.clients[0]
    vectors = [(steps * (i + 3)) % (2 * subject.bound + 1) - subject.bound for i in range(n)]
    played = subject.play(vectors, {}, bound=subject.bound)
    expected = np.sum(vectors, axis=0)
    if played.total is None or len(played.total) != dimension:
        raise Finding(f"no total of {dimension} coordinates came out of vectors of that length: {played.why}")
    wrong = np.flatnonzero(played.total != expected)
    if len(wrong):
        at = int(wrong[0])
        raise Finding(
            f"the total of a long vector is wrong in {len(wrong)} of {dimension} coordinates\n"
            f"  coordinate {at}: expected {expected[at]}, got {played.total[at]}"
        )


@promised("none", "capacity", most=1)
def no_input_beyond_the_bound(subject: Any, data: Any) -> None:
    """An input beyond the public bound is refused, not clipped or wrapped silently."""
    vectors = [np.ones(2, np.int64)] * subject.clients[1]
    vectors[1] = np.array([subject.bound + 1, 0])
    played = subject.play(vectors, {}, bound=subject.bound)
    if played.total is not None and 1 in played.survivors:
        raise tell(f"an input beyond the public bound {subject.bound} was summed", vectors, {}, played)


@promised("semi-honest", "robustness threshold", pieces=("",), outside=black.none_beyond_tolerance)
def no_total_beyond_tolerance(subject: Any, data: Any) -> None:
    """When fewer clients stay than the threshold asks for, no total comes out."""
    vectors = inputs(subject, data)
    gone = drop(subject, data, len(vectors))
    within = tolerated(subject, gone, len(vectors), len(vectors[0]))
    if within is not False:
        gone = {subject.stages[0]: set(range(len(vectors)))}
    played = subject.play(vectors, gone)
    if played.total is not None:
        raise tell(black.TOO_FEW, vectors, gone, played)


@promised("none", "asynchronous delivery", most=5, pieces=("tamper",))
def order_and_duplicates(subject: Any, data: Any) -> None:
    """Order, timing and duplication of messages do not change the total."""
    if subject.level == "black":
        require_exact(subject)
        subject.cached("answers", lambda: require_answers(subject))
    vectors = inputs(subject, data)

    def twice(sent: Message) -> list[Message]:
        return [sent, sent] if sent.recipient == SERVER else [sent]

    played = subject.play(vectors, {}, tamper=twice)
    everyone = tuple(range(len(vectors)))
    if played.total is None or played.total.tolist() != exact(vectors, everyone):
        raise tell("messages that arrive twice change the total", vectors, {}, played)
    senders = {(m.stage, m.sender) for m in played.messages if m.recipient == SERVER}
    answers = Counter(stage for stage, sender in senders if sender.role == "client")
    if max(answers.values(), default=0) < 2:
        raise NotChecked("at no stage do two clients answer the server: there is no order to change")
    if subject.level == "black":
        subject.cached("together", lambda: require_together(subject, _Late(answers, late=False)))
    played = subject.play(vectors, {}, tamper=_Late(answers))
    if played.total is None or played.total.tolist() != exact(vectors, everyone):
        raise tell("the order in which answers arrive changes the total", vectors, {}, played)


class _Late:
    """Holds what the first client answers at a stage back until another one answered. late: and delivers it last."""

    def __init__(self, answers: Mapping[str, int], late: bool = True) -> None:
        self.answers, self.late = answers, late
        self.held: dict[str, list[Message]] = {}
        self.over: set[str] = set()

    def __call__(self, sent: Message) -> list[Message]:
        if sent.recipient != SERVER or sent.sender.role != "client" or self.answers[sent.stage] < 2:
            return [sent]
        held = self.held.setdefault(sent.stage, [])
        if sent.stage in self.over:
            return [sent]
        if not held or held[0].sender == sent.sender:
            held.append(sent)
            return []
        self.over.add(sent.stage)
        return [sent, *held] if self.late else [*held, sent]


@promised("none", "crash recovery", most=3)
def state_is_data(subject: Any, data: Any) -> None:
    """Every state survives its encoding: a session run from encoded states gives the same total."""
    vectors = inputs(subject, data, 2)
    session = subject.session_of(len(vectors), len(vectors[0]), subject.bound)
    runs = [
        drive(subject, vectors, random=ReplayRandom(1), encoded=e, session=session) for e in (False, True)
    ]
    whole, total = (driven.total for driven in runs)
    if whole is None or total is None or total.tolist() != whole.tolist():
        raise tell(
            "a session whose states are encoded and decoded between steps gives another total", vectors
        )
    for party, state in runs[0].last.items():
        saved = subject.protocol.encode_state(state)
        if subject.protocol.encode_state(subject.protocol.decode_state(saved)) != saved:
            raise tell(f"the state that {party} ends with does not survive its encoding", vectors)


@promised("none", "specification", most=1)
def tolerance_declared(subject: Any, data: Any) -> None:
    """What the protocol promises under drop-outs is declared, so that it can be checked.

    A protocol without any hook about tolerance says nothing about drop-outs: that is reported, not passed. One with
    it promises a total when nobody leaves, and none when everybody does: else nothing would be checked by it.
    """
    if subject.hooks.tolerated is None and len(subject.stages) == 1:
        return
    hook = hook_of(subject, "tolerated", "what it promises under drop-outs is not known")
    n = subject.clients[1]
    session = subject.session_of(n, 2, subject.bound)
    for who, kept in ((set(), True), (set(range(n)), False)):
        answered = hook(session, {subject.stages[0]: who})
        if answered is not kept:
            raise Finding(
                f"the protocol says {answered}, expected {kept}, to whether it promises a total\n"
                f"  when {len(who)} of {n} clients leave before {subject.stages[0]}"
            )
