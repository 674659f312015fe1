"""Views: what the server, alone or with insiders, can make of all that it received."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.draws import inputs, tell
from protocols.audit.prop import Finding, NotChecked, Property
from protocols.audit.randomness import ReplayRandom
from protocols.audit.reading import POWER, SAMPLES, elements_of, modulus_of
from protocols.audit.statistics import ALPHA, chi_square_uniform, two_sample
from protocols.audit.stepping import drive
from protocols.kernel import Message, client


def coupling(subject: Any, data: Any) -> None:
    """Same randomness, inputs that differ but have the same sum: the views differ only where masks hide it,
    and by just that.
    """
    vectors = inputs(subject, data, 3)
    i, j = data.draw(st.permutations(range(len(vectors))), label="who differs")[:2]
    delta = data.draw(st.integers(1, max(1, subject.bound // 2)), label="difference")
    base = [v // 2 for v in vectors]
    moved = [v.copy() for v in base]
    moved[i] += delta // 2 + 1 if delta // 2 + 1 <= subject.bound // 2 else 0
    moved[j] -= moved[i][0] - base[i][0]
    number = data.draw(st.integers(0, 2**32), label="randomness")
    updates = {k: bytes([k]) * 32 for k in range(len(vectors))}
    plays = [
        subject.play(v, {}, bound=subject.bound, rng=ReplayRandom(number), updates=updates)
        for v in (base, moved)
    ]
    changed = _changed(plays[0], plays[1])
    for who, stage in changed:
        if stage != subject.counting or who not in (f"client {i}", f"client {j}"):
            raise tell(
                "a message besides the two clients' inputs depends on the inputs, though the sum is the same",
                base,
                {},
                plays[0],
                message=f"of {who} at {stage}",
                moved=f"client {i} by +, client {j} by -",
            )
    if subject.hooks.elements is None:
        return
    modulus = modulus_of(subject, plays[0])
    first, second = (elements_of(subject, p) for p in plays[:2])
    for k in (i, j):
        expected = (moved[k] - base[k]).astype(np.int64) % modulus if modulus < 1 << 63 else None
        got = ((second[k].astype(object) - first[k].astype(object)) % modulus).astype(object)
        if expected is not None and got[: len(expected)].tolist() != [int(x) for x in expected]:
            raise tell("the mask depends on the input it hides", base, {}, plays[0], client=k)


def _changed(a: Any, b: Any) -> list[tuple[str, str]]:
    return [
        (str(x.sender), x.stage)
        for x, y in zip(a.messages, b.messages, strict=True)
        if x.sender.role == "client" and bytes(x.body) != bytes(y.body)
    ]


def independent(subject: Any, data: Any) -> None:
    """Two input sets with equal sums, many coordinates: the joint view of two clients has one distribution."""
    d = SAMPLES * 4
    left = [np.ones(d, np.int64), -np.ones(d, np.int64), np.zeros(d, np.int64)]
    right = [np.zeros(d, np.int64), np.zeros(d, np.int64), np.zeros(d, np.int64)]
    cells = []
    modulus = 0
    for vectors in (left, right):
        played = subject.play(vectors, {}, bound=1)
        modulus = modulus_of(subject, played)
        view = subject.hooks.stripped
        values = view(played.session, played.messages, {}) if view else elements_of(subject, played)
        cells.append(values[0].astype(np.int64) * modulus + values[1].astype(np.int64))
    p = two_sample(cells[0], cells[1], modulus**2)
    if p < ALPHA:
        raise Finding(
            f"the server can tell two input sets with equal sums apart (p = {p:.2g})\n"
            f"  first: 1, -1, 0; second: 0, 0, 0 in each of {d} coordinates\n"
            f"  judged on the pair of clients 0 and 1 over Z_{modulus}, after it removed all masks it can"
        )


def residual(subject: Any, data: Any) -> None:
    """After the server removed every mask that the transcript opens, each client's vector is still uniform."""
    hook = _stripped(subject)
    zeros = [np.zeros(SAMPLES, np.int64)] * 5

    def late(sent: Message) -> Message | None:
        """The server feigns that client 0's vector never came, and keeps it."""
        return None if sent.stage == subject.counting and sent.sender == client(0) else sent

    cases = [
        ("nobody leaves", {}, None),
        ("client 0 leaves before its input", {subject.counting: {0}}, None),
        ("client 1 leaves after its input", {subject.stages[-1]: {1}}, None),
        ("the server says client 0's vector never came", {}, late),
    ]
    for story, gone, tamper in cases:
        played = subject.play(zeros, gone, bound=1, tamper=tamper)
        if played.total is not None:
            _still_hidden(hook(played.session, played.messages, {}), modulus_of(subject, played), story)


def residual_with_insiders(subject: Any, data: Any) -> None:
    """The server with all clients but two: those two still hide from it what each put in."""
    hook = _stripped(subject)
    n, d = 5, SAMPLES // 4
    outsiders = (0, 1)
    driven = drive(_Bound(subject, 1), [np.zeros(d, np.int64)] * n)
    saved = driven.before[subject.counting]
    insiders = {i: subject.protocol.decode_state(saved[client(i)]) for i in range(n) if i not in outsiders}
    left = hook(driven.session, driven.messages, insiders)
    if subject.hooks.modulus is None:
        raise NotChecked("the protocol has no hook `modulus`")
    _still_hidden(
        left,
        int(subject.hooks.modulus(driven.session)),
        f"clients {sorted(insiders)} tell the server all they know",
    )


class _Bound:
    """A subject with another bound: a small ring shows more."""

    def __init__(self, subject: Any, bound: int) -> None:
        self.protocol, self.bound = subject.protocol, bound


def _stripped(subject: Any) -> Any:
    if subject.hooks.stripped is None:
        raise NotChecked("the protocol has no hook `stripped`: what the server can remove is not known")
    return subject.hooks.stripped


def _still_hidden(left: Any, modulus: int, story: str) -> None:
    if not left:
        raise NotChecked("the hook `stripped` reads nothing out of this protocol's transcript")
    for who, values in left.items():
        p = chi_square_uniform(values, modulus)
        if p < ALPHA / 16:
            raise Finding(
                f"once the server removed what it can, client {who}'s vector is in the open (p = {p:.2g})\n"
                f"  {story}; all inputs were zero; left of its vector: {np.asarray(values[:8]).tolist()}..."
            )


PROPERTIES = (
    Property(
        "view-depends-on-the-sum-only",
        "With equal randomness and equal sums, views differ by the masked difference and nothing else.",
        "simulation, exact coupling",
        "semi-honest",
        "white",
        coupling,
        most=15,
    ),
    Property(
        "views-indistinguishable",
        "Two input sets with equal sums give the same distribution of views.",
        "simulation",
        "semi-honest",
        "white",
        independent,
        statistical=True,
        statistics=POWER,
    ),
    Property(
        "masked-after-unmasking",
        "What the server can remove from a survivor's vector leaves it uniform, under drop-outs too.",
        "double masking (Bonawitz et al., CCS 2017, section 4)",
        "semi-honest",
        "white",
        residual,
        statistical=True,
        statistics=POWER,
    ),
    Property(
        "hidden-from-insiders",
        "The server with all clients but two learns nothing about either of the two beyond their sum.",
        "privacy against t-1 colluding clients (Bonawitz et al., CCS 2017, theorem 6.3)",
        "semi-honest",
        "white",
        residual_with_insiders,
        statistical=True,
        statistics=POWER,
    ),
)
