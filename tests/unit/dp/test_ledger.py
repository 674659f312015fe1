"""The ledger: refuses before it overspends, adds up over parties, runs, restarts; append-only; readable."""

import json
import math
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dp import Ledger
from dp.accountants import epsilon
from dp.events import (
    Failing,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Relation,
    Skellam,
    Unit,
    UnknownEvent,
    repeat,
)
from dp.ledger import Charge
from protocols.errors import BudgetExceeded, Misuse, StoreError

ROUND = Gaussian(noise_multiplier=5.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
STEP = PoissonGaussian(noise_multiplier=1.0, sample_rate=0.05, unit=Unit.EXAMPLE, relation=Relation.ZERO_OUT)


def new(path: Path, budget: float = 2.0, accountant: str = "rdp") -> Ledger:
    return Ledger(path / "a.ledger", epsilon=budget, delta=1e-5, accountant=accountant)


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_the_step_that_would_overspend_is_refused_and_not_written(tmp_path: Path, accountant: str) -> None:
    ledger = new(tmp_path, accountant=accountant)
    taken = 0
    while ledger.price_with(ROUND) <= 2.0:
        ledger.charge(ROUND, run="r", round=taken)
        taken += 1
    with pytest.raises(BudgetExceeded, match="not taken"):
        ledger.charge(ROUND)
    assert len(ledger.entries()) == taken >= 2
    assert ledger.epsilon() == epsilon([repeat(ROUND, taken)], 1e-5, accountant) <= 2.0
    assert ledger.price_with(ROUND) == epsilon([repeat(ROUND, taken + 1)], 1e-5, accountant) > 2.0


def test_a_charge_tells_the_day_and_no_time_of_day(tmp_path: Path) -> None:
    """Seconds between two rounds' charges are seconds of training."""
    ledger = new(tmp_path)
    days = {datetime.now(UTC).date().isoformat()}
    ledger.charge(ROUND)
    days.add(datetime.now(UTC).date().isoformat())
    (entry,) = ledger.entries()
    assert entry.at in days
    assert ledger.to_json()["charges"][-1]["at"] in days
    assert ledger.verify().charges == 1


def test_a_step_that_no_epsilon_bounds_says_what_to_do(tmp_path: Path) -> None:
    """A round that is abandoned with a chance of one in a thousand, which is seen, beside a delta of 1e-5."""
    loose = Failing(event=STEP, probability=1e-3, unit=STEP.unit, relation=STEP.relation)
    with pytest.raises(
        BudgetExceeded, match=r"no epsilon bounds .* at delta 1e-05 .* larger delta, or add noise"
    ):
        new(tmp_path).charge(loose)


def test_a_smaller_step_still_fits(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    ledger.charge(ROUND, 3)
    quiet = Gaussian(noise_multiplier=500.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
    with pytest.raises(BudgetExceeded):
        ledger.charge(ROUND, 20)
    assert ledger.charge(quiet).id == 2


def test_it_adds_up_over_restarts_runs_and_federations(tmp_path: Path) -> None:
    for run in ("first", "second", "second"):  # the third is a retry: charged again
        client = Ledger.for_dataset(tmp_path, "patients 2026", epsilon=5.0, delta=1e-5, accountant="rdp")
        client.charge(STEP, 10, run=run)
    other = Ledger.for_dataset(tmp_path, "another data set", epsilon=5.0, delta=1e-5, accountant="rdp")
    assert client.epsilon() == epsilon([repeat(STEP, 30)], 1e-5, "rdp")
    assert other.epsilon() == 0.0
    assert Ledger(client.path).epsilon() == client.epsilon()


def test_parties_have_their_own_price_and_the_largest_is_stated(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=10.0)
    ledger.charge(STEP, 100, party="small")
    ledger.charge(STEP, 10, party="large")
    ledger.charge(STEP, 5)
    (spending,) = ledger.spent()
    assert spending.parties == {
        "": epsilon([repeat(STEP, 5)], 1e-5, "rdp"),
        "small": epsilon([repeat(STEP, 105)], 1e-5, "rdp"),
        "large": epsilon([repeat(STEP, 15)], 1e-5, "rdp"),
    }
    assert spending.epsilon == spending.parties["small"] == ledger.epsilon()
    assert ledger.epsilon("large") == spending.parties["large"]
    assert ledger.epsilon("never heard of") == spending.parties[""]
    assert "per example, zero-out" in str(spending)


def test_a_charge_for_every_one_is_refused_if_one_cannot_afford_it(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=6.0)
    while ledger.price_with(STEP, 50, party="a") <= 6.0:
        ledger.charge(STEP, 50, party="a")
    with pytest.raises(BudgetExceeded, match="'a'"):
        ledger.charge(STEP, 50)
    ledger.charge(STEP, 50, party="b")


def test_a_round_is_charged_for_every_party_or_for_none(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=6.0)
    ledger.charge(STEP, 150, party="spent most")
    with pytest.raises(BudgetExceeded, match="spent most"):
        ledger.charge_all([Charge(STEP, 150, "fresh"), Charge(STEP, 150, "spent most")], run="r", round=1)
    assert len(ledger.entries()) == 1
    with pytest.raises(BudgetExceeded):
        ledger.charge_all([Charge(STEP, 150, "fresh"), Charge(STEP, 150, "fresh")])
    entries = ledger.charge_all([Charge(STEP, 10, "fresh"), Charge(STEP, 1, "spent most")], run="r", round=2)
    assert [(e.party, e.count, e.round) for e in entries] == [("fresh", 10, 2), ("spent most", 1, 2)]
    ledger.verify()


def test_statements_are_priced_apart_and_each_is_limited(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    ledger.charge(ROUND)
    ledger.charge(STEP)
    assert [(s.unit, s.relation) for s in ledger.spent()] == [
        (Unit.CLIENT, Relation.ZERO_OUT),
        (Unit.EXAMPLE, Relation.ZERO_OUT),
    ]
    with pytest.raises(BudgetExceeded):
        ledger.charge(STEP, 100_000)


def test_events_without_a_price_are_refused(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=math.inf, accountant="pld")
    skellam = Skellam(
        l1=3.0, l2=3.0, variance=1e4, shares=1, dims=1, unit=Unit.CLIENT, relation=Relation.ZERO_OUT
    )
    fixed = FixedSizeGaussian(
        noise_multiplier=5.0, population=10, sample_size=2, unit=Unit.CLIENT, relation=Relation.ZERO_OUT
    )
    for event in (skellam, fixed, "gaussian"):
        with pytest.raises(UnknownEvent):
            ledger.charge(event)  # type: ignore[arg-type]
    assert ledger.entries() == ()


@pytest.mark.parametrize("count", [0, -1, 1.0, True])
def test_counts_are_checked(tmp_path: Path, count: object) -> None:
    with pytest.raises(Misuse):
        new(tmp_path).charge(ROUND, count)  # type: ignore[arg-type]


def test_texts_are_checked(tmp_path: Path) -> None:
    for bad in ("a\nb", "x" * 501):
        with pytest.raises(Misuse):
            new(tmp_path).charge(ROUND, party=bad)


def test_terms_are_fixed_when_the_ledger_is_made(tmp_path: Path) -> None:
    new(tmp_path)
    with pytest.raises(Misuse, match="other terms"):
        new(tmp_path, budget=20.0)
    with pytest.raises(Misuse, match="no ledger"):
        Ledger(tmp_path / "none.ledger")
    for terms in (
        {"epsilon": -1.0, "delta": 1e-5},
        {"epsilon": 1.0, "delta": 0.0},
        {"epsilon": math.nan, "delta": 0.1},
    ):
        with pytest.raises(Misuse):
            Ledger(tmp_path / "bad.ledger", **terms)
    with pytest.raises(Misuse):
        Ledger(tmp_path / "bad.ledger", epsilon=1.0, delta=1e-5, accountant="moments")


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        Ledger(tmp_path / "file" / "a.ledger", epsilon=1.0, delta=1e-5)


def test_threads_share_one_budget(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    refused = []

    def spend() -> None:
        try:
            while True:
                ledger.charge(ROUND)
        except BudgetExceeded:
            refused.append(1)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 4
    assert ledger.epsilon() <= 2.0 < ledger.price_with(ROUND)
    ledger.verify()


def test_export_and_page(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", epsilon=math.inf, delta=1e-5, accountant="rdp", dataset="a|b")
    ledger.charge(STEP, 5, run="r1", round=2, party="x|y")
    ledger.charge(ROUND, run="r1", round=3)
    data = json.loads(json.dumps(ledger.to_json(), allow_nan=False))
    assert data["terms"]["epsilon"] is None
    assert {(s["unit"], s["relation"]) for s in data["spent"]} == {
        ("example", "zero-out"),
        ("client", "zero-out"),
    }
    assert [c["count"] for c in data["charges"]] == [5, 1]
    text = ledger.page()
    for part in ("Per example, zero-out neighbours", "x\\|y", "PoissonGaussian", "delta 1e-05", "rdp"):
        assert part in text


def test_a_page_shows_names_as_they_are_whatever_markdown_they_look_like(tmp_path: Path) -> None:
    """A name with a backslash before its bar began a cell of its own; a data set's name was taken for HTML."""
    ledger = Ledger(tmp_path / "a.ledger", epsilon=9.0, delta=1e-5, dataset="<b>all</b> [x](http://y)")
    ledger.charge(ROUND, run="r1", party="x\\|999 | 0.0001")
    page = ledger.page()
    assert "<b>" not in page
    assert "\\[x\\](http://y)" in page
    rows = [line for line in page.splitlines() if line.startswith("| x") or "| x" in line]
    for row, cells in zip(rows, (2, 5), strict=True):
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == cells + 1, row


def test_what_is_printed_is_never_less_than_what_was_spent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", epsilon=math.inf, delta=1e-5)
    for _ in range(4):
        ledger.charge(ROUND)
        spent = ledger.epsilon()
        printed = [
            float(found)
            for found in re.findall(r"epsilon ([0-9.]+) at", f"{ledger.spent()[0]} {ledger.page()}")
        ]
        assert len(printed) == 2
        assert all(spent <= one <= spent * 1.001 for one in printed)
