"""Privacy against the server's view: what it receives says nothing beyond the sum."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.draws import inputs, tell
from protocols.audit.prop import Finding, NotChecked, Property
from protocols.audit.randomness import ReplayRandom
from protocols.audit.statistics import ALPHA, chi_square_uniform, two_sample

CANARY = 0x5EC2E7CA7A21
SAMPLES = 4096


def nothing_in_clear(subject: Any, data: Any) -> None:
    """Every client puts one value nobody else knows of into the sum; no message may carry it at any bit offset."""
    n = subject.clients[0]
    if subject.level == "black":
        values = [subject.bound - 7 * i for i in range(n)]
        vectors = [np.full(8, v, np.int64) for v in values]
        played = subject.play(vectors, {})
        needles = {v: np.full(8, v, np.int64).tobytes() for v in values}
    else:
        values = [CANARY + 2 * i for i in range(n)]
        vectors = [np.array([v, -v, v, 0], np.int64) for v in values]
        played = subject.play(vectors, {}, bound=1 << 47)
        needles = {v: v.to_bytes(6, "big") for v in values}
    for value, needle in needles.items():
        for sender, recipient, body in played.transcript:
            if not sender.startswith("client"):
                continue
            if _hidden_in(needle, body) or str(value).encode() in body:
                raise Finding(
                    f"a message in clear carries a client's value\n  {sender} put in {value}\n"
                    f"  its message to {recipient} of {len(body)} bytes contains it"
                )


def _hidden_in(needle: bytes, body: bytes) -> bool:
    if needle in body or needle[::-1] in body:
        return True
    bits = "".join(f"{byte:08b}" for byte in body)
    wanted = "".join(f"{byte:08b}" for byte in needle).lstrip("0")
    little = "".join(f"{byte:08b}"[::-1] for byte in body)
    return wanted in bits or wanted[::-1] in little


def sizes_say_nothing(subject: Any, data: Any) -> None:
    n, options = subject.clients[0], {} if subject.level == "black" else {"bound": subject.bound}
    sizes = []
    shapes = ([0, 0, 0], [subject.bound, -subject.bound, 1])
    for row in shapes:
        played = subject.play([np.array(row, np.int64)] * n, {}, **options)
        sizes.append([(s, r, len(b)) for s, r, b in played.transcript if s.startswith("client")])
    if sorted(sizes[0]) != sorted(sizes[1]):
        where = next(((a, b) for a, b in zip(sizes[0], sizes[1], strict=False) if a != b), ("count",))
        raise Finding(
            f"the size of a message depends on the input\n  zeros: {where[0]}\n  extremes: {where[-1]}"
        )


def randomised(subject: Any, data: Any) -> None:
    """Equal inputs, twice: no 16-byte piece of any client's input message comes a second time."""
    n, d = subject.clients[0], 64
    vectors = [np.zeros(d, np.int64)] * n
    seen: dict[bytes, str] = {}
    for session in (1, 2):
        played = (
            subject.play(vectors, {})
            if subject.level == "black"
            else subject.play(vectors, {}, bound=1 << 30)
        )
        for who, body in _input_bodies(subject, played):
            for at in range(0, len(body) - 15, 8):
                piece, place = body[at : at + 16], f"session {session}, {who}, byte {at}"
                if piece in seen and len(set(piece)) > 6:
                    raise Finding(
                        f"masks or ciphertexts repeat for equal inputs\n  {seen[piece]}\n  {place}: {piece.hex()}"
                    )
                seen[piece] = place


def _input_bodies(subject: Any, played: Any) -> list[tuple[str, bytes]]:
    if played.messages:
        pairs = [(str(m.sender), bytes(m.body)) for m in played.messages if m.stage == subject.counting]
        return [(who, _payload(body)) for who, body in pairs if who.startswith("client")]
    return [(sender, body) for sender, recipient, body in played.transcript if sender.startswith("client")]


def _payload(body: bytes) -> bytes:
    """The middle of a body: constant headers and empty trailers are not what is judged here."""
    return body[min(64, len(body) // 8) : len(body) - min(32, len(body) // 8)]


def _elements(subject: Any, played: Any) -> dict[int, Any]:
    hook = subject.hooks.elements
    if hook is None:
        raise NotChecked(
            "the protocol has no hook `elements`: its input messages carry no ring elements that can be read"
        )
    found = {}
    for message in played.messages:
        values = hook(played.session, message) if message.stage == subject.counting else None
        if values is not None and message.sender.role == "client":
            found[message.sender.number] = values
    if not found:
        raise NotChecked("no input message of this session carries ring elements")
    return found


def uniform(subject: Any, data: Any) -> None:
    """Chi-square of masked elements over a small ring, per client: one short of the modulus would show."""
    n = 3
    played = subject.play([np.zeros(SAMPLES, np.int64)] * n, {}, bound=1)
    modulus = _modulus(subject, played)
    for who, values in _elements(subject, played).items():
        p = chi_square_uniform(values, modulus)
        if p < ALPHA / n:
            counts = np.bincount(values.astype(np.int64), minlength=modulus).tolist()
            raise Finding(
                f"masked elements are not uniform over Z_{modulus} (p = {p:.2g})\n"
                f"  client {who}, {SAMPLES} coordinates: {counts}"
            )


def _modulus(subject: Any, played: Any) -> int:
    if subject.hooks.modulus is None:
        raise NotChecked("the protocol has no hook `modulus`")
    return int(subject.hooks.modulus(played.session))


def fresh(subject: Any, data: Any) -> None:
    """Differences of masked vectors between coordinates, clients, rounds and retries look like fresh masks."""
    n, d = 3, SAMPLES
    zeros = [np.zeros(d, np.int64)] * n
    stores = subject.stores(n)
    rows: list[tuple[str, Any]] = []
    modulus = 0
    for round_number in (1, 2):
        updates = {i: bytes([round_number, i]) * 16 for i in range(n)}
        played = subject.play(zeros, {}, bound=1, round=round_number, stores=stores, updates=updates)
        modulus = _modulus(subject, played)
        rows += [
            (f"round {round_number}, client {who}", v)
            for who, v in sorted(_elements(subject, played).items())
        ]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    tests = [(f"{a[0]} against {b[0]}", (a[1] - b[1]) % np.uint64(modulus)) for a, b in pairs]
    tests += [
        (f"{who}: neighbouring coordinates", (v[1:] - v[:-1])[::2] % np.uint64(modulus)) for who, v in rows
    ]
    tests += [
        (f"{who}: the halves of its vector", (v[d // 2 :] - v[: d // 2]) % np.uint64(modulus))
        for who, v in rows
    ]
    for story, difference in tests:
        p = chi_square_uniform(difference, modulus)
        if p < ALPHA / len(tests):
            raise Finding(f"masks are not fresh (p = {p:.2g})\n  {story}: their difference is not uniform")


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
    modulus = _modulus(subject, plays[0])
    first, second = (_elements(subject, p) for p in plays[:2])
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
        modulus = _modulus(subject, played)
        view = subject.hooks.stripped
        values = view(played.session, played.messages) if view else _elements(subject, played)
        cells.append(values[0].astype(np.int64) * modulus + values[1].astype(np.int64))
    p = two_sample(cells[0], cells[1], modulus**2)
    if p < ALPHA:
        raise Finding(
            f"the server can tell two input sets with equal sums apart (p = {p:.2g})\n"
            f"  first: 1, -1, 0; second: 0, 0, 0 in each of {d} coordinates\n"
            f"  judged on the pair of clients 0 and 1 over Z_{modulus}, after it removed all masks it can"
        )


def residual(subject: Any, data: Any) -> None:
    """After the server removed every mask that the transcript opens, each survivor's vector is still uniform."""
    if subject.hooks.stripped is None:
        raise NotChecked("the protocol has no hook `stripped`: what the server can remove is not known")
    d = SAMPLES
    late = subject.stages[-1]
    cases: list[dict[str, set[int]]] = [{}, {subject.counting: {0}}, {late: {1}}]
    for gone in cases:
        played = subject.play([np.zeros(d, np.int64)] * 5, gone, bound=1)
        if played.total is None:
            continue
        modulus = _modulus(subject, played)
        left = subject.hooks.stripped(played.session, played.messages)
        for who, values in left.items():
            p = chi_square_uniform(values, modulus)
            if p < ALPHA / 16:
                raise Finding(
                    f"once the server removed what it can, client {who}'s vector is in the open (p = {p:.2g})\n"
                    f"  all inputs were zero; left: {np.asarray(values[:8]).tolist()}...; {gone or 'nobody'} left"
                )


def seed_entropy(subject: Any, data: Any) -> None:
    """Streams of seeds that differ in any one bit differ, for every bit of the seed."""
    stream, width = subject.hooks.stream, subject.hooks.seed_bytes
    if stream is None:
        raise NotChecked("the protocol has no hook `stream`: its mask generator cannot be called")
    if width < 16:
        raise Finding(f"mask seeds have {8 * width} bits, fewer than 128")
    base = data.draw(st.binary(min_size=width, max_size=width), label="seed")
    reference = stream(base, 64).tobytes()
    for bit in range(8 * width):
        flipped = bytearray(base)
        flipped[bit // 8] ^= 1 << bit % 8
        if stream(bytes(flipped), 64).tobytes() == reference:
            raise Finding(f"bit {bit} of a mask seed does not reach the stream\n  seed {base.hex()}")


def no_collisions(subject: Any, data: Any) -> None:
    """4096 seeds give 4096 streams: a generator folded to 32 bits or fewer collides or repeats."""
    stream, width = subject.hooks.stream, subject.hooks.seed_bytes
    if stream is None:
        raise NotChecked("the protocol has no hook `stream`: its mask generator cannot be called")
    rng = np.random.default_rng(0)
    seen = {stream(rng.bytes(width), 16).tobytes() for _ in range(4096)}
    if len(seen) != 4096:
        raise Finding(f"4096 seeds give {len(seen)} streams")


_POWER = (
    f"chi-square at a false-alarm rate of at most {ALPHA:g} per property; with {SAMPLES} elements a cell that is "
    "missing from a ring of up to 64, or a total variation distance of 0.15, is found with power above 0.99"
)

PROPERTIES = (
    Property(
        "nothing-in-clear",
        "No client's value travels in clear, at any bit offset of any message.",
        "taint canaries",
        "semi-honest",
        "black",
        nothing_in_clear,
        most=1,
    ),
    Property(
        "sizes-say-nothing",
        "The sizes of all messages are independent of the inputs.",
        "length hiding",
        "semi-honest",
        "black",
        sizes_say_nothing,
        most=1,
    ),
    Property(
        "randomised",
        "Equal inputs are masked or encrypted freshly, in every session, client and coordinate.",
        "semantic security",
        "semi-honest",
        "black",
        randomised,
        most=2,
    ),
    Property(
        "uniform-over-the-ring",
        "Masked vectors are uniform over the whole ring.",
        "one-time pad",
        "semi-honest",
        "white",
        uniform,
        statistical=True,
        statistics=_POWER,
    ),
    Property(
        "fresh-masks",
        "Masks are fresh across coordinates, clients, rounds and retries.",
        "one-time pad",
        "semi-honest",
        "white",
        fresh,
        statistical=True,
        statistics=_POWER,
    ),
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
        statistics=_POWER,
    ),
    Property(
        "masked-after-unmasking",
        "What the server can remove from a survivor's vector leaves it uniform, under drop-outs too.",
        "double masking (Bonawitz et al., CCS 2017, section 4)",
        "semi-honest",
        "white",
        residual,
        statistical=True,
        statistics=_POWER,
    ),
    Property(
        "seeds-carry-full-entropy",
        "Every bit of a mask seed reaches the stream, and there are at least 128.",
        "pseudorandom generator",
        "semi-honest",
        "white",
        seed_entropy,
        most=3,
    ),
    Property(
        "streams-do-not-collide",
        "Different seeds give different streams, with no collision beyond birthday.",
        "pseudorandom generator",
        "semi-honest",
        "white",
        no_collisions,
        most=1,
    ),
)
