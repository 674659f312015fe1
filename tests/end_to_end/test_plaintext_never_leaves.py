"""The self-test of "on": what leaves a client is searched for its update, and what is printed for its secrets.

Every search is shown to find what it looks for where it is there: in PlainSum's messages, in a careless repr.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from protocols import PlainSum, SecureSum, simulate
from protocols.kernel import Step
from protocols.simulate import _Simulation
from secagg import SecAgg, SecAggPlus
from secagg.packing import pack
from secagg.ring import Ring
from tests.deterministic import DeterministicRandom

CLIENTS, DIMENSION, BOUND = 6, 96, 1000
MASKED = [SecAgg(), SecAggPlus(threat="semi-honest", neighbours=4, threshold=3)]


def vectors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(5)
    return {f"client-{i}": draw.integers(-BOUND, BOUND + 1, DIMENSION) for i in range(CLIENTS)}


def ways_to_write(vector: np.ndarray, bits: int) -> Iterator[bytes]:
    """The beginning of a vector as anyone may have written it: words of every width, and packed into the ring."""
    for kind in ("<i8", "<i4", "<i2", ">i8", ">i4", ">i2", "<f8", "<f4"):
        yield vector.astype(kind).tobytes()[:16]
    ring = Ring(bits)
    words = np.zeros(len(vector), ring.dtype)
    words += vector.astype(words.dtype)
    yield pack(words & words.dtype.type((1 << bits) - 1), ring)[:16]


def leaks(frames: list[bytes], inputs: dict[str, np.ndarray], bits: int) -> int:
    return sum(
        way in frame for vector in inputs.values() for way in ways_to_write(vector, bits) for frame in frames
    )


def frames_of(protocol: SecureSum) -> tuple[list[bytes], int]:
    frames: list[bytes] = []
    outcome = simulate(
        protocol, vectors(), observe=lambda message: frames.append(message.to_wire()), bound=BOUND
    )
    assert np.array_equal(outcome.total, sum(vectors().values()))
    return frames, outcome.session.ring_bits()


@pytest.mark.parametrize("protocol", MASKED, ids=lambda protocol: protocol.name)
def test_no_message_holds_an_update_in_any_writing(protocol: SecureSum) -> None:
    frames, bits = frames_of(protocol)
    assert len(frames) > 4 * CLIENTS
    assert leaks(frames, vectors(), bits) == 0


def test_the_search_finds_what_plain_sums_send() -> None:
    frames, bits = frames_of(PlainSum())
    assert leaks(frames, vectors(), bits) == CLIENTS


def test_the_search_finds_a_vector_that_was_packed_and_not_masked() -> None:
    own = vectors()
    packed = list(ways_to_write(own["client-0"], 13))[-1]
    assert leaks([b"head" + packed + b"tail"], own, 13) == 1


class Recording(DeterministicRandom):
    """Remembers everything that it gave out: every secret of a session is among it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.given: list[bytes] = []

    def bytes(self, count: int) -> bytes:
        drawn = super().bytes(count)
        self.given.append(drawn)
        return drawn


def shown(secret: bytes, text: str) -> bool:
    """Whether the first half of a secret stands in a text: as Python writes bytes, or in hexadecimal."""
    half = secret[: len(secret) // 2]
    return repr(half)[2:-1] in text or half.hex() in text


@pytest.mark.parametrize("protocol", MASKED, ids=lambda protocol: protocol.name)
def test_no_secret_is_printed_by_any_state_message_or_outcome(
    protocol: SecureSum, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    inner = _Simulation._run

    def watched(self: _Simulation, party: object, stage: str, call: object) -> Step:
        step = inner(self, party, stage, call)  # type: ignore[arg-type]
        texts.append(f"{self.states!r} {self.states} {step!r} {step}")
        return step

    monkeypatch.setattr(_Simulation, "_run", watched)
    random = Recording(11)
    outcome = simulate(protocol, vectors(), drop={"masked-input": ["client-1"]}, rng=random, bound=BOUND)
    texts.append(f"{outcome!r} {outcome.protection!r} {protocol!r}")
    secrets = [drawn for drawn in random.given if len(drawn) >= 16 and drawn != outcome.session.nonce]
    assert len(secrets) >= 2 * CLIENTS
    assert [secret.hex() for secret in secrets for text in texts if shown(secret, text)] == []


def test_the_search_finds_a_secret_in_a_careless_repr() -> None:
    secret = bytes(range(100, 132))
    assert shown(secret, f"State(key={secret!r})")
    assert shown(secret, f"seed {secret.hex()}")
    assert not shown(secret, "State(key=...)")
