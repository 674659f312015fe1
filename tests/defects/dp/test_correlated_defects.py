"""Correlated noise, broken on purpose, each time in one place: what a check notices, and the sound layer passes.

Most checks are exact: the noise is left out, and what one unit moves in all opened rows is measured beside what its
events say. A sampled event per row in place of one per band is enumerated in tests/unit/dp/test_correlated.py.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP
from dp.accountants import accountant
from dp.audit import audit_run
from dp.correlated.attendance import Attendance
from dp.correlated.options import Correlation
from dp.correlated.patterns import dearest
from dp.correlated.rows import OpenedRows, combined
from dp.correlated.slots import batch
from dp.event_json import from_fact
from dp.events import CorrelatedRow, DiscreteGaussianSum
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation
from protocols.layers import RoundFacts, RunFacts
from protocols.party_state import CLOSED, Held, PartyState, erase
from protocols.store import MemoryStore
from tests.unit.dp.test_client_correlated import (
    banded,
    federation,
    the_digest_of_a_checkpoint_with_secrets_says_nothing_of_them,
)
from tests.unit.dp.test_distributed_correlated import (
    DIMS,
    NAMES,
    QUIET,
    Run,
    Same,
    kept,
    layer_of,
    meant,
    sums,
)
from tests.unit.dp.test_distributed_correlated import (
    facts as slot_facts,
)

SHORT: dict[str, Any] = {"noise_multiplier": 0.5, "epsilon": None, "colluders": 0, "min_survivors": 4}
ONE = np.rint(np.eye(1, DIMS)[0] * 2**22).astype(np.int64)


def moved_and_charged(pair: list[Run], sent: list[int], present: set[int]) -> tuple[float, float]:
    """Squared steps by which an example of the clip's norm in the rows `present` moves what one party sends in the rows
    `sent`, beside what the events of these rows are charged for. The second run of the pair holds the example.
    """
    moved, charged, noise = 0.0, accountant("rdp"), None
    for run in pair:
        run.layer._share = lambda plan, facts: np.zeros(plan.dims, np.int64)  # type: ignore[method-assign]
    for row in sent:
        vectors = []
        for with_it, run in enumerate(pair):
            plan = run.plan(row)
            mine = sums(row)["c0"] + (ONE if with_it and row in present else 0)
            vectors.append(run.encoded(plan, "c0", mine, Same(row)).astype(float))
            run.closed |= dict.fromkeys(NAMES, float(row))
            event = from_fact(plan.events(NAMES)[0])
            assert isinstance(event, CorrelatedRow)
            noise = event.event
        charged.add(event)
        moved += float(((vectors[1] - vectors[0]) ** 2).sum())
    assert isinstance(noise, DiscreteGaussianSum)
    times = sum(charged._whole()[0].values())
    return moved, times * noise.sensitivity**2


def pair(**options: Any) -> list[Run]:
    return [Run(layer_of(**SHORT, **options)) for _ in range(2)]


def test_a_sound_run_is_charged_for_all_that_it_moves() -> None:
    moved, charged = moved_and_charged(pair(), list(range(1, 13)), {1, 5, 9})
    assert 0.8 * charged < moved <= charged


def test_a_band_over_the_separation_is_refused_and_would_move_more() -> None:
    with pytest.raises(Misuse, match="beyond the separation"):
        layer_of(bands=8)
    broken = pair()
    for run in broken:
        wide = Correlation(8, 3, 8)  # sound by itself; but examples come back after four rows
        object.__setattr__(wide, "separation", 4)
        run.layer.correlation = wide
        run.layer._kept.clear()
    moved, charged = moved_and_charged(broken, list(range(1, 13)), {1, 5, 9})
    assert moved > 1.2 * charged


def test_a_row_that_is_sent_twice_shows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = pair()
    with pytest.raises((PolicyRefusal, ProtocolViolation)):
        moved_and_charged(runs, [1, 1], {1})
    monkeypatch.setattr(Attendance, "_refusal", lambda self, held, row: "")
    monkeypatch.setattr(PartyState, "_settle", lambda self: None)
    broken = pair()
    once, charged = moved_and_charged(broken, [1], {1})
    again, _ = moved_and_charged(broken, [1], {1})  # the same row under fresh noise
    assert once <= charged < 0.8 * (once + again)


def test_early_participation_is_more_than_any_pattern_that_is_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ClientDP(noise_multiplier=1.0, correlation="banded", min_separation=4)
    assert run.correlation is not None
    strategy, rules = run.correlation.strategy(12), run.correlation.attendance(12)
    rows = [1, 2, 5]
    shift = strategy.matrix()[:, [row - 1 for row in rows]].sum(axis=1)
    charged = dearest([float(row in rows) for row in range(1, 13)], 4, 3) * strategy.norm**2
    assert float(shift @ shift) > 1.5 * charged
    from tests.unit.dp.test_correlated_rows import facts

    store = MemoryStore()
    rules.take(facts(1, store), "layer", b"")
    with pytest.raises(PolicyRefusal, match="row 5 at the earliest"):
        rules.take(facts(2, store), "layer", b"")


def test_a_turn_that_a_server_may_move_shows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's row of its own is every row of the run where the server asks whoever puts it at the row's place."""
    even_so = {**SHORT, "unit": "client", "examples": None, "even_so": True, "epochs": 1, "bits": 24}

    def turns_taken() -> int:
        run, taken = Run(layer_of(**even_so), rounds=4), 0
        for row in range(1, 5):
            plan = run.plan(row, asked=(*NAMES[1:][: row - 1], "c0", *NAMES[row:]))
            own = replace(plan.facts, client="c0")
            run.encoded(plan, "c0", ONE)
            taken += run.layer._place(own) == row - 1
        return taken

    with pytest.raises(ProtocolViolation, match="turns follow the roster"):
        turns_taken()
    monkeypatch.setattr(Correlation, "admit", lambda self, *rest: None)
    assert turns_taken() == 4  # one is charged


def test_batches_that_are_drawn_anew_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that forgets the run after each row: of 4000 examples some come again but with chance 2^-1000."""
    store = MemoryStore()

    def again() -> set[int]:
        first = batch(slot_facts(1, store), "layer", 4000, 2)
        erase(store, "run")
        return set(first) & set(batch(slot_facts(2, store), "layer", 4000, 2))

    with pytest.raises(PolicyRefusal, match="batches of this run were erased"):
        again()
    monkeypatch.setattr("dp.correlated.slots.LASTING", "")  # the mark goes with the slots
    store = MemoryStore()
    assert again()  # one epoch, and nobody was to come twice


def test_groups_that_share_a_history_show_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sums a row, as for a median over groups: a client of the last one enters the rows of all."""
    monkeypatch.setattr("dp.client.discrete_gaussian", lambda random, sigma, size: np.zeros(size, np.int64))
    layer = ClientDP(noise_multiplier=1.0, correlation="banded", min_separation=4)
    run = RunFacts(4, 8, 2, "cyclic", 0.25)
    opened: list[float] = []

    def seen(*args: Any) -> Any:
        opened.append((total := combined(*args))[0])
        return total

    monkeypatch.setattr("dp.client.combined", seen)

    def rows(client: int) -> float:
        layer._opened, opened[:] = OpenedRows(), []
        for row in range(1, 5):
            for group in range(3):
                alone = np.array([client * (row == 1 and group == 2)], np.int64)
                layer._noised(alone, 1.0, RoundFacts(run, row, ("a", "b"), bytes(32)))
        return float(np.sum(np.square(opened, dtype=float)))

    assert layer.one_sum
    assert layer.correlation is not None
    assert rows(1) > 1.2 * layer.correlation.strategy(4).norm ** 2


def test_a_layer_that_serves_two_runs_at_once_is_refused_and_would_open_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 2 of the second run, which nobody of the first is charged for, carries what the first opened in its row 1."""
    opened: list[int] = []

    def seen(*args: Any) -> Any:
        opened.append(int((total := combined(*args))[0]))
        return total

    monkeypatch.setattr("dp.client.combined", seen)
    layer, run = banded(), RunFacts(12, 12, 3, "cyclic", 0.25)

    def row(number: int, scope: str, count: int) -> None:
        layer._noised(
            np.array([count], np.int64), 1.0, RoundFacts(run, number, ("a",), bytes(32), scope=scope)
        )

    row(1, "one", 1000)
    with pytest.raises(Misuse, match="a layer of its own"):
        row(2, "two", 0)
    monkeypatch.setattr(OpenedRows, "of", lambda self, scope: self)
    row(2, "two", 0)
    assert opened[0] > 1000
    assert opened[1] > 1000


def _abandons_row_2(run: Run) -> tuple[float, bool]:
    """How far row 3 is off after row 2 was abandoned, and whether its vector is still kept."""
    run.row(1, sums(1))
    plan = run.plan(2)
    for name in NAMES:
        run.encoded(plan, name, sums(2, 50.0)[name])
    off = float(np.abs(run.row(3, sums(3)) - meant(sums(3))).max())
    return off, any("2" in kept(store) for store in run.stores.values())


def test_history_that_is_kept_after_abandonment_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _abandons_row_2(Run(layer_of(**QUIET))) == (pytest.approx(0, abs=0.5), False)
    sound = PartyState._settle

    def keeps(self: PartyState) -> Held | None:
        pending = self.store.get(self._key("pending"))
        if pending is not None:  # whatever the server says of the round
            self.store.put(self._key("settled"), pending)
            object.__setattr__(self, "closed", Held.decode(pending).round)
        return sound(self)

    monkeypatch.setattr(PartyState, "_settle", keeps)
    off, kept = _abandons_row_2(Run(layer_of(**QUIET)))
    assert kept
    assert off > 2


def test_parties_with_another_strategy_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broadcast is compared (and in the digest); without the comparison the sum decodes to nothing sensible."""
    run, other = Run(layer_of(**QUIET)), Run(layer_of(bands=2, **QUIET))
    other.stores = run.stores
    run.row(1, sums(1, 20.0))
    given, plan, shown = sums(2, 20.0), run.plan(2), {**run.stack.public(), CLOSED: dict(run.closed)}
    with pytest.raises(ProtocolViolation, match="another strategy"):
        other.encoded(other.plan(2, shown), "c0", given["c0"])
    monkeypatch.setattr(Correlation, "admit", lambda self, *rest: None)
    total = other.encoded(other.plan(2, shown), "c0", given["c0"])
    for name in NAMES[1:]:
        total += run.encoded(plan, name, given[name])
    half = plan.modulus // 2
    found = plan.decode(np.mod(total + half, plan.modulus) - half, NAMES).vector
    assert np.abs(found - meant(given)).max() > 1


# -- canaries over whole runs --


LAYERS: dict[str, Callable[[float], ClientDP | DistributedDP]] = {
    "client": lambda noise: ClientDP(
        noise_multiplier=noise, clip=1.0, correlation="banded", min_separation=4
    ),
    "distributed": lambda noise: DistributedDP(
        noise_multiplier=noise, clip=1.0, correlation="banded", batches=4, epochs=2, even_so=True
    ),
}


WHOLE: dict[str, Any] = {
    "clients": 120,
    "rounds": 8,
    "norm": 1.0,
    "alarm": 1e-10,
    "delta": 1e-14,
    "guesses": 60,
}


@pytest.mark.parametrize("name", LAYERS)
def test_canaries_of_a_whole_run_stay_below_its_price_and_see_noise_that_is_too_little(name: str) -> None:
    """A false alarm in 10^10 runs. Too little: a thousandth of what is stated; all 60 guesses are right then."""
    stated = audit_run(LAYERS[name](30.0), **WHOLE)
    assert stated.sound
    assert 0 < stated.stated < 0.7
    assert audit_run(LAYERS[name](0.03), **WHOLE).measured.refutes(stated.stated)


def test_a_layer_with_independent_noise_is_for_the_other_audit() -> None:
    with pytest.raises(Misuse, match="audit_layer"):
        audit_run(ClientDP(noise_multiplier=1.0), clients=40, rounds=2, norm=1.0)


@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_checkpoint_without_secret_bytes_of_its_own_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Fixed:
        def bytes(self, count: int) -> bytes:
            return bytes(count)

    federation(banded(), output=tmp_path).fit(12, on_round=lambda result: result.number < 2)
    the_digest_of_a_checkpoint_with_secrets_says_nothing_of_them(tmp_path)
    monkeypatch.setattr("fl.round.run_files.SystemRandom", Fixed)
    with pytest.raises(AssertionError):
        the_digest_of_a_checkpoint_with_secrets_says_nothing_of_them(tmp_path)
