"""DistributedDP with correlated noise: integers, history, slots and refusals."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dp import DistributedDP
from dp.correlated.slots import batch, slots
from dp.event_json import from_fact
from dp.events import CorrelatedRow, DiscreteGaussianSum
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, TooFewSurvivors
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.party_state import CLOSED, LASTING, Held, expire
from protocols.party_state import erase as erase_kept
from protocols.randomness import SecureRandom, SystemRandom
from protocols.roundplan import RoundPlan
from protocols.stack import Stack
from protocols.store import MemoryStore
from secagg import SecAgg
from tests.unit.dp.scripted import Script, words

Floats = NDArray[np.float64]
CLIENTS, EXAMPLES, DIMS = 4, 60, 27
NAMES = tuple(f"c{i}" for i in range(CLIENTS))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models train faster on one, the more so where tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer_of(**options: Any) -> DistributedDP:
    asked = {"epsilon": 8, "unit": "example", "examples": 600, "clip": 1.0, "correlation": "banded"}
    return DistributedDP(**{**asked, "batches": 4, "epochs": 3, **options})


class Same:
    """The same bytes in two runs, so that their dithers are the same; never shipped."""

    def __init__(self, seed: int) -> None:
        self.draws = np.random.default_rng(seed)

    def bytes(self, count: int) -> bytes:
        return self.draws.bytes(count)


class Run:
    """The rounds of one layer by hand: exact sums are given in place of gradients; stores last."""

    def __init__(self, layer: DistributedDP, rounds: int = 12) -> None:
        self.layer, self.stores = layer, {name: MemoryStore() for name in NAMES}
        self.run = RunFacts(rounds, CLIENTS, CLIENTS, dimension=DIMS, delta=1e-5)
        self.stack = Stack([layer, SecAgg()])
        self.stack.plan(self.run)
        self.closed = dict.fromkeys(NAMES, 0.0)

    def plan(
        self, row: int, public: dict[str, Any] | None = None, asked: tuple[str, ...] = NAMES
    ) -> RoundPlan:
        shown = public if public is not None else {**self.stack.public(), CLOSED: dict(self.closed)}
        facts = RoundFacts(self.run, row, asked, bytes([row]) * 32, shown, scope="run")
        return self.stack.round(facts, np.zeros(DIMS))

    def encoded(
        self, plan: RoundPlan, name: str, exact: NDArray[np.int64], random: SecureRandom | None = None
    ) -> NDArray[np.int64]:
        own = replace(plan.facts, client=name, store=self.stores[name], random=random or SystemRandom())
        self.layer._sums[name] = exact
        return plan.encode(Contribution(np.zeros(DIMS), 1), own)

    def row(
        self, row: int, given: dict[str, NDArray[np.int64]], survivors: tuple[str, ...] = NAMES
    ) -> Floats:
        plan = self.plan(row)
        total = np.zeros(plan.dimension, np.int64)
        for name in NAMES:
            vector = self.encoded(plan, name, given[name])
            if name in survivors:
                total += vector
        half = plan.modulus // 2
        found = plan.decode(np.mod(total + half, plan.modulus) - half, survivors).vector
        self.closed |= dict.fromkeys(survivors, float(row))
        return found


def sums(row: int, size: float = 1.0) -> dict[str, NDArray[np.int64]]:
    """Gradients of norm about `size`, on the fine grid of a clip of 1 (2^-22)."""
    draws = np.random.default_rng(row).normal(size=(CLIENTS, DIMS)) * size / DIMS**0.5 * 2**22
    return {name: np.rint(one).astype(np.int64) for name, one in zip(NAMES, draws, strict=True)}


def meant(given: dict[str, NDArray[np.int64]], names: tuple[str, ...] = NAMES) -> Floats:
    return -sum((given[name] for name in names), np.zeros(DIMS, np.int64)) * 2.0**-22  # steps go downhill


QUIET: dict[str, Any] = {"epsilon": None, "noise_multiplier": 0.02, "colluders": 0, "min_survivors": 2}
"""Noise of a fiftieth of the clip: what comes out is what went in, to a tenth."""


def test_what_goes_in_comes_out_row_by_row() -> None:
    run = Run(layer_of(**QUIET))
    for row in range(1, 13):
        given = sums(row)
        assert np.abs(run.row(row, given) - meant(given)).max() < 0.5


def test_a_party_keeps_history_for_as_many_rows_as_there_are_bands_and_no_longer() -> None:
    run = Run(layer_of(bands=3, **QUIET))
    for row in range(1, 13):
        run.row(row, sums(row))
        held = {int(key) for name in NAMES for key in kept(run.stores[name])}
        # sealed, settled or pending; none after the end
        assert held == ({row - 1, row} - {0} if row < 12 else set())


def kept(store: MemoryStore) -> list[str]:
    """The names of all arrays in a party's store, settled or pending."""
    names = [name for name in store.names("kept/") if name.endswith(("/settled", "/pending"))]
    return [key for name in names for key in Held.decode(store.get(name) or b"").values if key.isdigit()]


def test_a_party_that_missed_a_row_is_left_out_of_it_and_of_what_follows_from_it() -> None:
    """Its vector of the lost row is erased: later rows carry nothing of it, and no row catches up."""
    run, lost = Run(layer_of(bands=2, **QUIET)), NAMES[1:]
    first = sums(1, 20.0)
    run.row(1, first)
    run.row(2, sums(2, 20.0), lost)  # c0's row 2 never arrived, and neither did its history of row 1
    assert "2" in kept(run.stores["c0"])  # pending: it cannot know yet
    third = sums(3, 20.0)
    off = run.row(3, third) - meant(third)
    assert "2" not in kept(run.stores["c0"])
    assert run.layer.correlation is not None
    strategy = run.layer.correlation.strategy(12)
    # row 2 lacked c0's part of row 1, and what is decoded carries it on
    ratio = strategy.at(2, 1) / strategy.at(1, 1)
    assert np.abs(meant(first, ("c0",))).max() > 5
    assert np.abs(off - ratio**2 * meant(first, ("c0",))).max() < 0.5


def test_an_abandoned_row_is_deleted_everywhere() -> None:
    run = Run(layer_of(**QUIET))
    run.row(1, sums(1))
    plan = run.plan(2)
    for name in NAMES:
        run.encoded(plan, name, sums(2, 50.0)[name])  # sent, and the round is said to be abandoned
    for row in range(3, 9):
        given = sums(row)
        assert np.abs(run.row(row, given) - meant(given)).max() < 0.5
        assert not any("2" in kept(store) for store in run.stores.values())


def test_a_row_that_too_few_survive_is_not_opened() -> None:
    run = Run(layer_of(**{**QUIET, "min_survivors": 3}))
    run.row(1, sums(1))
    with pytest.raises(TooFewSurvivors, match="2 clients are in the total, 3 are needed"):
        run.row(2, sums(2, 50.0), NAMES[:2])
    for row in (3, 4):
        assert np.abs(run.row(row, given := sums(row)) - meant(given)).max() < 0.5


def test_no_row_is_sent_twice_and_nobodys_terms_change() -> None:
    run = Run(layer_of(**QUIET))
    run.row(1, sums(1))
    with pytest.raises(PolicyRefusal, match="taken already"):
        run.encoded(
            run.plan(1, {**run.stack.public(), CLOSED: dict.fromkeys(NAMES, 0.0)}), "c0", sums(1)["c0"]
        )
    plan = run.plan(2)
    run.layer.batches = 5  # the server talks this party into another plan
    with pytest.raises(ProtocolViolation, match="not what this run began with"):
        run.encoded(plan, "c0", sums(2)["c0"])


@pytest.mark.parametrize("row", [0, 13])
def test_no_row_is_sent_that_was_not_planned(row: int) -> None:
    run = Run(layer_of(**QUIET))
    with pytest.raises(ProtocolViolation, match="expected a row from 1 to 12"):
        run.encoded(run.plan(row), "c0", sums(1)["c0"])


def turns_of() -> DistributedDP:
    return layer_of(unit="client", examples=None, even_so=True, **QUIET)


def test_a_clients_turn_is_no_servers_choice() -> None:
    """c1's turns are rows 2, 6 and 10. A server that leaves c0 out of row 5 would make that one too."""
    run, others = Run(turns_of()), (*NAMES[1:], "c4")
    run.row(1, sums(1))
    for row, asked in ((2, NAMES[1:]), (3, others), (4, NAMES[::-1])):
        with pytest.raises(ProtocolViolation, match="turns follow the roster"):
            run.encoded(run.plan(row, asked=asked), "c1", sums(row)["c1"])
    run.row(5, sums(5))


def test_a_party_that_was_told_to_erase_draws_no_batches_anew() -> None:
    """The server says that the run is over after row 1, and later that it never began."""
    run = Run(layer_of(**QUIET))
    store, own = run.stores["c0"], replace(run.plan(1).facts, client="c0", store=run.stores["c0"])
    run.layer._batch(EXAMPLES, own)
    run.row(1, sums(1))
    erase_kept(store, own.scope)
    run.closed = dict.fromkeys(NAMES, 0.0)
    with pytest.raises(PolicyRefusal, match="the run is over"):
        run.layer._batch(EXAMPLES, replace(own, number=2))
    assert not [name for name in store.names("kept/") if not name.endswith(LASTING)]  # nothing is kept again


def test_history_dies_after_thirty_days_without_a_row() -> None:
    """Whatever became of the run; who took rows stays known."""
    run = Run(layer_of(**QUIET))
    run.row(1, sums(1))
    store, now = run.stores["c0"], time.time()
    expire(store, now + 29 * 86_400)
    assert kept(store) == ["1"]
    expire(store, now + 31 * 86_400)
    assert [name.endswith(LASTING) for name in store.names("kept/")] == [True]
    with pytest.raises(ProtocolViolation, match="was lost, erased"):
        run.encoded(run.plan(2), "c0", sums(2)["c0"])


def test_another_strategy_than_the_other_parties_is_refused() -> None:
    run = Run(layer_of(**QUIET))
    shown = {**run.stack.public(), CLOSED: dict(run.closed)}
    shown[run.layer.name] = {"strategy": np.asarray(shown[run.layer.name]["strategy"]) * 2}
    with pytest.raises(ProtocolViolation, match="another strategy"):
        run.encoded(run.plan(1, shown), "c0", sums(1)["c0"])
    assert run.plan(1, shown).digest(b"") != run.plan(1).digest(b"")  # and it is in the session's digest


def test_one_example_moves_its_rows_by_no_more_than_the_price_says() -> None:
    """An example of the clip's norm in row 1; the other rows' sums are drawn. Without noise, all rows beside."""
    event, moved, one = None, 0.0, np.eye(1, DIMS)[0]
    runs = [Run(layer_of(noise_multiplier=0.5, epsilon=None, colluders=0, min_survivors=4)) for _ in range(2)]
    for run in runs:
        run.layer._share = lambda plan, facts: np.zeros(plan.dims, np.int64)  # type: ignore[method-assign]
    for row in range(1, 13):
        given, vectors = sums(row, 20.0)["c0"], []
        for with_it, run in enumerate(runs):
            mine = given + (np.rint(one * 2**22).astype(np.int64) if row == 1 and with_it else 0)
            plan = run.plan(row)
            vectors.append(run.encoded(plan, "c0", mine, Same(row)))
            run.closed |= dict.fromkeys(NAMES, float(row))
            stated = from_fact(plan.events(NAMES)[0])
            assert isinstance(stated, CorrelatedRow)
            event = stated.event
        moved += float(((vectors[1] - vectors[0]).astype(float) ** 2).sum())
        assert row <= 4 or np.array_equal(*vectors)  # the band is over: no trace is left
    assert isinstance(event, DiscreteGaussianSum)
    assert 0.9 * event.sensitivity < moved**0.5 <= event.sensitivity  # but for 2^-70 a row: the dither
    assert event.dims == 32 * 4  # padded, over four rows


# -- slots --


def facts(row: int, store: MemoryStore) -> RoundFacts:
    run = RunFacts(40, 1, 1)
    return RoundFacts(
        run, row, ("a",), bytes(32), client="a", store=store, scope="run", random=SystemRandom()
    )


def test_every_example_is_in_one_batch_in_every_epoch() -> None:
    store = MemoryStore()
    epochs = [[batch(facts(row, store), "layer", 1000, 8) for row in range(at, at + 8)] for at in (1, 9)]
    assert epochs[0] == epochs[1]
    assert sorted(i for one in epochs[0] for i in one) == list(range(1000))
    assert min(map(len, epochs[0])) > 40  # binomial, mean 125, deviation 10.5: 8 deviations
    with pytest.raises(Misuse, match="another number of examples"):
        slots(facts(3, store), "layer", 999, 8)
    other = slots(facts(1, MemoryStore()), "layer", 1000, 8)
    assert not np.array_equal(other, slots(facts(1, store), "layer", 1000, 8))  # drawn, not counted out


def test_coins_within_bands() -> None:
    store = MemoryStore()
    own = slots(facts(1, store), "layer", 4000, 4)
    for row in (1, 2, 5):
        rows = batch(facts(row, store), "layer", 4000, 4, 0.5)
        assert set(own[rows]) == {(row - 1) % 4}
        assert 300 < len(rows) < 700  # mean 500, deviation 21 over slots and coins
    assert batch(facts(1, store), "layer", 4000, 4, 0.5) != batch(facts(5, store), "layer", 4000, 4, 0.5)


def test_slots_are_the_remainders_of_what_was_drawn_once() -> None:
    drawn = facts(1, MemoryStore())
    drawn = replace(drawn, random=Script(words(5, 2**64 - 1, 8, 3)))
    own = slots(drawn, "layer", 4, 4)
    assert (own.tolist(), own.dtype) == ([1, 3, 0, 3], np.int64)
    assert slots(replace(drawn, random=SystemRandom()), "layer", 4, 4).tolist() == own.tolist()
    for row, known in ((1, [2]), (2, [0]), (3, []), (4, [1, 3]), (5, [2])):
        assert batch(replace(drawn, number=row, random=SystemRandom()), "layer", 4, 4) == known


# -- what is refused --


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"unit": "client", "examples": None},
            "everybody who sends in every round, with independent noise, does better",
        ),
        ({"unit": "client", "examples": None, "even_so": True, "amplify": True}, "does better"),
        ({"batches": None}, "batches"),
        ({"batches": 1}, "batches >= 2"),
        ({"epochs": 0}, "epochs"),
        ({"correlation": None}, "banded"),
        ({"correlation": "tree"}, "banded"),
        ({"bands": 5}, "beyond the separation"),
        ({"bands": 5, "amplify": True}, "at most 4 bands"),
        ({"noise": "skellam"}, "discrete Gaussian"),
    ],
)
def test_what_would_not_hold_or_help_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        layer_of(**options)


@pytest.mark.parametrize("changes", [{"rounds": 11}, {"sampling": "fixed", "rate": 0.5}])
def test_a_run_of_another_plan_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match="12 rounds"):
        layer_of().plan(replace(RunFacts(12, 4, 4, dimension=5), **changes))
