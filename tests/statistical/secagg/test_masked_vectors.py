"""What leaves a client is uniform over the ring and independent of everything a server may compare it
with.

Chi-square tests on the vectors as they are sent, with inputs of zero, so that any structure would be the
masks'. Each test is at significance `ALPHA`: the file's false-alarm rate is below 10^-9 per run (at most
`TESTS` tests). Effect size: a deviation of Cohen's w = 0.05 is found with power above 0.99 at `CELLS` cells
and `DIMENSION` draws, checked below; a mask that skips half of the ring has w = 1, one that repeats between
rounds, streams or coordinates has w > 10.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from protocols.kernel import SERVER, Message
from protocols.randomness import SystemRandom
from protocols.simulate import simulate
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus, shamir
from secagg.messages import INPUT, Masked
from secagg.packing import unpack
from secagg.ring import Ring

DIMENSION, CELLS, TESTS = 1 << 17, 256, 30
ALPHA = 1e-9 / TESTS
RING = Ring(20)
Vectors = dict[int, NDArray[np.uint64]]


def sent(protocol: SecAgg | SecAggPlus, n: int, **options: object) -> Vectors:
    """The masked vectors of one session whose inputs are all zero, by client."""
    found: Vectors = {}

    def look(message: Message) -> None:
        if message.stage == INPUT and message.recipient == SERVER:
            vector = Masked.decode(message.body).vector
            found[message.sender.number] = RING.residues(unpack(vector, DIMENSION, RING))

    updates = {i: SystemRandom().bytes(8) for i in range(n)}
    inputs = [np.zeros(DIMENSION, np.int64)] * n
    outcome = simulate(protocol, inputs, observe=look, modulus=RING.modulus, updates=updates, **options)  # type: ignore[arg-type]  # options of simulate
    assert not outcome.total.any()
    return found


def uniform(values: NDArray[np.uint64]) -> bool:
    """Chi-square over the whole ring: its high and its low bits, and a cell of both."""
    values = values & np.uint64(RING.modulus - 1)
    cells = (
        values >> np.uint64(RING.bits - 8),
        values & np.uint64(255),
        (values >> np.uint64(RING.bits - 4)) << np.uint64(4) | values & np.uint64(15),
    )
    counts = (np.bincount(c.astype(np.int64), minlength=CELLS) for c in cells)
    return all(stats.chisquare(count).pvalue > ALPHA / 3 for count in counts)


def independent(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> bool:
    """Chi-square of pairs of high bits, and uniformity of the difference (a repeated mask makes it
    constant).
    """
    shift = np.uint64(RING.bits - 4)
    pairs = ((one >> shift) << np.uint64(4) | other >> shift).astype(np.int64)
    return stats.chisquare(np.bincount(pairs, minlength=CELLS)).pvalue > ALPHA / 4 and uniform(one - other)


@pytest.fixture(scope="module")
def session() -> Vectors:
    return sent(SecAgg(), 4)


def test_power() -> None:
    effect = 0.05
    limit = stats.chi2.isf(ALPHA / 4, CELLS - 1)
    assert stats.ncx2.sf(limit, CELLS - 1, DIMENSION * effect**2) > 0.99


def test_each_masked_vector_is_uniform(session: Vectors) -> None:
    assert all(uniform(vector) for vector in session.values())


def test_successive_coordinates_are_independent(session: Vectors) -> None:
    assert independent(session[0][:-1], session[0][1:])


def test_clients_of_one_session_are_independent(session: Vectors) -> None:
    assert independent(session[0], session[1])


def test_any_partial_sum_is_uniform(session: Vectors) -> None:
    """All vectors but one: the pair masks with the missing one, and the self masks, remain."""
    for missing in session:
        assert uniform(sum((v for i, v in session.items() if i != missing), np.zeros(DIMENSION, np.uint64)))


def test_even_the_full_sum_is_masked_until_seeds_are_opened(session: Vectors) -> None:
    assert uniform(sum(session.values(), np.zeros(DIMENSION, np.uint64)))


def test_sessions_are_independent(session: Vectors) -> None:
    again = sent(SecAgg(), 4)
    assert all(independent(session[i], again[i]) for i in (0, 3))


def test_rounds_of_one_set_up_are_independent() -> None:
    stores = {name: MemoryStore() for name in (*range(4), "server")}
    protocol = SecAgg(setup="reuse")
    rounds = [sent(protocol, 4, stores=stores, round=number) for number in (1, 2, 3)]
    assert all(uniform(vectors[0]) for vectors in rounds)
    assert independent(rounds[0][0], rounds[1][0])
    assert independent(rounds[1][2], rounds[2][2])


def test_a_sparse_graph_masks_as_well() -> None:
    vectors = sent(SecAggPlus(threat="semi-honest", neighbours=2, threshold=2, collusion=0.0, dropout=0.0), 8)
    assert all(uniform(vectors[i]) for i in (0, 7))


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_shares_below_the_threshold_are_uniform_whatever_the_secret(secret: bytes) -> None:
    rows = [shamir.split_array(secret, 3, np.array([1, 2, 3]), SystemRandom())[:2] for _ in range(2000)]
    data = np.stack(rows).reshape(-1)
    assert stats.chisquare(np.bincount(data, minlength=256)).pvalue > ALPHA
    both = np.stack(rows)[:, 0].astype(int) // 16 * 16 + np.stack(rows)[:, 1].astype(int) // 16
    assert stats.chisquare(np.bincount(both.reshape(-1), minlength=256)).pvalue > ALPHA
