"""The federation's account: the largest party's price, statements apart, a round charged whole or not at all."""

from pathlib import Path

import pytest

from dp import Ledger
from dp.accountants import epsilon
from dp.event_json import to_fact
from dp.events import Gaussian, Relation, Unit, repeat
from fl.account import Account
from protocols.errors import BudgetExceeded

CLIENT = Gaussian(noise_multiplier=4.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
EXAMPLE = Gaussian(noise_multiplier=2.0, unit=Unit.EXAMPLE, relation=Relation.ADD_REMOVE)


def test_nothing_spent_has_no_price() -> None:
    assert Account().price() is None


def test_the_largest_party_is_stated() -> None:
    account = Account(delta=1e-5)
    account.charge([to_fact(CLIENT), to_fact(CLIENT, party="a")], 1)
    account.charge([to_fact(CLIENT), to_fact(CLIENT, party="b"), to_fact(CLIENT, party="b")], 2)
    assert account.price() == epsilon([repeat(CLIENT, 4)], 1e-5, "rdp")


def test_units_and_relations_are_priced_apart() -> None:
    account = Account(delta=1e-5)
    account.charge([to_fact(CLIENT), to_fact(EXAMPLE, party="a")], 1)
    assert account.price() == epsilon([EXAMPLE], 1e-5, "rdp")


def test_a_round_that_one_party_cannot_afford_charges_nobody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", epsilon=2.0, delta=1e-5, accountant="rdp")
    account = Account(delta=1e-5, ledger=ledger, run="r")
    account.charge([to_fact(CLIENT, party="a")], 1)
    with pytest.raises(BudgetExceeded, match="'a'"):
        account.charge([to_fact(CLIENT, party="b"), *[to_fact(CLIENT, party="a")] * 5], 2)
    assert [entry.party for entry in ledger.entries()] == ["a"]
    assert len(account.events) == 1
