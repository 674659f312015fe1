"""The ledger: refuses before it overspends, adds up over parties, runs, restarts; append-only; readable."""

import hashlib
import json
import math
import re
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dp import Ledger
from dp.accountants import epsilon
from dp.budget import Terms
from dp.event_json import encode
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
from protocols.guarantee import rounded_up

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


def test_the_day_is_that_of_utc_wherever_the_machine_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()

    class Clock:
        @staticmethod
        def now(zone: Any) -> datetime:
            asked.append(zone)
            return datetime(2026, 1, 2, tzinfo=UTC)

    ledger = new(tmp_path)
    monkeypatch.setattr("dp.ledger_store.datetime", Clock)
    assert ledger.charge(ROUND).at == "2026-01-02"
    assert asked == [UTC]


def test_a_step_that_no_epsilon_bounds_says_what_to_do(tmp_path: Path) -> None:
    """A round that is abandoned with a chance of one in a thousand, which is seen, beside a delta of 1e-5."""
    loose = Failing(event=STEP, probability=1e-3, unit=STEP.unit, relation=STEP.relation)
    with pytest.raises(
        BudgetExceeded,
        match=r"spending where no epsilon bounds it at delta .*; keep the ledger at a larger delta, or add noise\. It",
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


@pytest.mark.parametrize("name", ["party", "note", "run"])
def test_texts_are_checked(tmp_path: Path, name: str) -> None:
    ledger = new(tmp_path)
    for bad in ("a\nb", "x" * 501, 3):
        with pytest.raises(Misuse, match=f"^{name}: expected printable text of at most 500 characters"):
            ledger.charge(ROUND, **{name: bad})  # type: ignore[arg-type]
    assert getattr(ledger.charge(ROUND, **{name: "x" * 500}), name) == "x" * 500  # type: ignore[arg-type]


def test_a_data_sets_name_is_checked_and_gives_its_file(tmp_path: Path) -> None:
    terms = {"epsilon": 1.0, "delta": 1e-5}
    for make in (lambda: Ledger(tmp_path / "a", dataset="a\nb", **terms),
                 lambda: Ledger.for_dataset(tmp_path, "a\nb", **terms)):  # fmt: skip
        with pytest.raises(Misuse, match=r"^dataset: expected printable text"):
            make()
    made = Ledger.for_dataset(tmp_path / "new" / "folder", "patients 2026", **terms)
    name = hashlib.sha256(b"patients 2026").hexdigest()[:32]
    assert made.path == tmp_path / "new" / "folder" / f"{name}.ledger"
    assert made.terms == Terms(1.0, 1e-5, "pld", "patients 2026")
    assert Ledger(made.path).terms == made.terms
    assert Ledger(tmp_path / "b", **terms).terms == Terms(1.0, 1e-5, "pld", "")


@pytest.mark.parametrize(
    ("epsilon", "delta", "fits"),
    [(0.0, 0.5, True), (0.5, 0.99, True), (math.inf, 1e-9, True), (-0.1, 0.5, False), (math.nan, 0.5, False),
     (1.0, 0.0, False), (1.0, 1.0, False), (1.0, 1.5, False), (1.0, -0.5, False)],
)  # fmt: skip
def test_the_range_of_a_budget(epsilon: float, delta: float, fits: bool) -> None:
    if fits:
        terms = Terms(epsilon, delta)
        assert Terms.from_plain(json.loads(json.dumps(terms.to_plain(), allow_nan=False))) == terms
    else:
        with pytest.raises(Misuse, match=r"(epsilon|delta): expected a number"):
            Terms(epsilon, delta)


def test_a_budget_is_written_with_its_infinity_as_null() -> None:
    assert Terms(math.inf, 0.5, "rdp", "d").to_plain() == {
        "epsilon": None, "delta": 0.5, "accountant": "rdp", "dataset": "d",
    }  # fmt: skip
    assert Terms(2.0, 0.5).to_plain()["epsilon"] == 2.0


def test_a_charge_is_kept_as_it_was_told(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=math.inf)
    first = ledger.charge(ROUND)
    assert (first.id, first.run, first.round, first.party, first.count, first.note) == (1, "", 0, "", 1, "")
    told = ledger.charge(STEP, 3, run="r", round=7, party="p", note="n")
    assert (told.id, told.run, told.round, told.party, told.count, told.note) == (2, "r", 7, "p", 3, "n")
    assert (told.unit, told.relation, told.event) == ("example", "zero-out", encode(STEP))
    plain = ledger.charge_all([Charge(ROUND), Charge(ROUND, 2, note="own")])
    assert [(one.id, one.run, one.round, one.note) for one in plain] == [(3, "", 0, ""), (4, "", 0, "own")]
    both = ledger.charge_all([Charge(ROUND), Charge(ROUND, note="own")], note="common")
    assert [one.note for one in both] == ["common", "own"]
    assert ledger.entries() == (first, told, *plain, *both)
    assert ledger.verify().charges == len(ledger.entries()) == 6


def test_a_chain_of_digests_is_that_of_the_format(tmp_path: Path) -> None:
    """Whoever reads the file elsewhere computes the same."""
    ledger, before = new(tmp_path, budget=math.inf), ""
    for entry in (ledger.charge(ROUND, note="n"), ledger.charge(STEP, 2)):
        fields = {name: value for name, value in asdict(entry).items() if name not in ("id", "digest")}
        before = hashlib.sha256(
            (before + json.dumps(fields, sort_keys=True, separators=(",", ":"))).encode()
        ).hexdigest()
        assert entry.digest == before
    body = {"charges": 2, "last": before, "terms": ledger.terms.to_plain()}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    head = hashlib.sha256(b"secagg ledger head v1\0" + text.encode()).hexdigest()
    assert ledger.verify().head == head


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_a_price_to_the_last_digit_of_the_budget_is_spent(tmp_path: Path, accountant: str) -> None:
    price = epsilon([ROUND], 1e-5, accountant)
    for name, spare in (("exact", 0.0), ("less", -1e-12)):
        ledger = Ledger(tmp_path / name, epsilon=price + spare, delta=1e-5, accountant=accountant)
        if spare:
            with pytest.raises(BudgetExceeded) as found:
                ledger.charge(ROUND)
            assert "spending to epsilon" in str(found.value)
        else:
            ledger.charge(ROUND)


def test_the_dearest_party_is_named(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=6.0)
    for party, count in (("b", 5), ("c", 100), ("d", 10)):
        ledger.charge(STEP, count, party=party)
    with pytest.raises(
        BudgetExceeded, match=r"spending of 'c' to epsilon .*per example, zero-out, rdp\); the budget is 6"
    ):
        ledger.charge(STEP, 200)


def test_one_more_of_two_statements_is_priced_with_its_own(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=math.inf)
    ledger.charge(ROUND, 2)
    ledger.charge(STEP, 40, party="a")
    ledger.charge(replace(ROUND, relation=Relation.REPLACE), 9)
    assert ledger.price_with(ROUND) == epsilon([repeat(ROUND, 3)], 1e-5, "rdp")
    assert ledger.price_with(STEP, 2, "a") == epsilon([repeat(STEP, 42)], 1e-5, "rdp")
    assert ledger.price_with(STEP, 2) == epsilon([repeat(STEP, 42)], 1e-5, "rdp")  # a's, the largest
    assert ledger.price_with(STEP, 2, "b") == epsilon([repeat(STEP, 2)], 1e-5, "rdp")


def test_a_record_without_a_budget_prices_nothing_and_takes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new(tmp_path, budget=math.inf)
    monkeypatch.setattr(Ledger, "_prices_with", lambda *given: pytest.fail("priced"))
    ledger.charge(STEP, 10**6)
    assert ledger.entries()[0].count == 10**6


def test_a_renyi_price_within_the_budget_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = new(tmp_path, budget=2.0, accountant="pld")
    asked = list[str]()
    real = Ledger._prices_with

    def seen(self: Ledger, totals: Any, event: Any, count: int, party: str, name: str) -> Any:
        asked.append(name)
        return real(self, totals, event, count, party, name)

    monkeypatch.setattr(Ledger, "_prices_with", seen)
    ledger.charge(ROUND)
    assert asked == ["rdp"]
    with pytest.raises(BudgetExceeded, match="pld"):
        ledger.charge(ROUND, 50)
    assert asked == ["rdp", "rdp", "pld"]


def test_what_only_the_ledgers_own_accountant_prices_is_limited_too(tmp_path: Path) -> None:
    event = replace(STEP, relation=Relation.REPLACE)
    with pytest.raises(UnknownEvent):
        epsilon([event], 1e-5, "rdp")
    ledger = new(tmp_path, accountant="pld")
    assert ledger.charge(event).count == 1
    with pytest.raises(BudgetExceeded, match="pld"):
        ledger.charge(event, 500)


@pytest.mark.parametrize("count", [True, "1", 1.5])
def test_a_charge_of_no_whole_number_or_with_unprintable_text_is_refused(count: Any) -> None:
    for name in ("party", "note"):
        with pytest.raises(Misuse, match=f"^{name}: expected printable text"):
            Charge(ROUND, **{name: "a\nb"})  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="count of at least 1"):
        Charge(ROUND, count)


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


def test_an_export_and_a_page_to_the_letter(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", epsilon=8.0, delta=1e-5, accountant="rdp", dataset="ward")
    ledger.charge(STEP, 5, run="r1", round=2, party="x")
    ledger.charge(STEP, 2, run="r1", round=4, party="x")
    ledger.charge(ROUND, run="r1", round=3)
    one, other = ledger.spent()
    exported = ledger.to_json()
    assert exported == {
        "version": 1,
        "terms": {"epsilon": 8.0, "delta": 1e-5, "accountant": "rdp", "dataset": "ward"},
        "spent": [
            {"unit": "client", "relation": "zero-out", "epsilon": one.epsilon, "delta": 1e-5, "accountant": "rdp",
             "parties": {"": one.epsilon}},
            {"unit": "example", "relation": "zero-out", "epsilon": other.epsilon, "delta": 1e-5, "accountant": "rdp",
             "parties": {"": 0.0, "x": other.epsilon}},
        ],
        "charges": [asdict(entry) for entry in ledger.entries()],
    }  # fmt: skip
    assert [type(spent["unit"]) for spent in exported["spent"]] == [str, str]
    assert ledger.page() == (
        "# Privacy ledger of ward\n\n"
        "Budget: epsilon 8 at delta 1e-05, priced by the rdp accountant.\n\n"
        "## Per client, zero-out neighbours\n\n"
        f"Spent: epsilon {rounded_up(one.epsilon)} at delta 1e-05 (the largest over parties).\n\n"
        "## Per example, zero-out neighbours\n\n"
        f"Spent: epsilon {rounded_up(other.epsilon)} at delta 1e-05 (the largest over parties).\n\n"
        f"| party | epsilon |\n| --- | --- |\n| x | {rounded_up(other.epsilon)} |\n\n"
        "## Charges\n\n"
        "| run | party | event | times | rounds |\n| --- | --- | --- | --- | --- |\n"
        "| r1 | x | PoissonGaussian(noise\\_multiplier=1, sample\\_rate=0.05) per example, zero-out | 7 | 2 to 4 |\n"
        "| r1 | every one | Gaussian(noise\\_multiplier=5) per client, zero-out | 1 | 3 to 3 |\n"
    )
    bare = Ledger(tmp_path / "b.ledger", epsilon=8.0, delta=1e-5).page()
    assert bare.startswith("# Privacy ledger\n\nBudget")


def test_a_price_that_nothing_bounds_is_null_in_an_export(tmp_path: Path) -> None:
    ledger = new(tmp_path, budget=math.inf)
    ledger.charge(Failing(event=STEP, probability=1e-3, unit=STEP.unit, relation=STEP.relation), party="a")
    (spent,) = ledger.to_json()["spent"]
    assert (spent["epsilon"], spent["parties"]) == (None, {"": 0.0, "a": None})


def test_quotes_are_shown_as_they_are(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", epsilon=9.0, delta=1e-5, dataset='O\'Neill "x" & <y>')
    assert ledger.page().startswith('# Privacy ledger of O\'Neill "x" &amp; &lt;y&gt;\n')


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
