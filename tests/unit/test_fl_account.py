"""The federation's account: the largest party's price, statements apart, a round charged whole or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dp import ClientDP, Ledger, SampleDP
from dp.accountants import epsilon
from dp.event_json import to_fact
from dp.events import Gaussian, Planned, Relation, Unit, UnknownEvent, repeat
from fl.account import Account
from protocols import PlainSum
from protocols.errors import BudgetExceeded, Misuse
from protocols.guarantee import only_epsilon
from protocols.layers import RoundFacts, RunFacts
from protocols.stack import Stack

CLIENT = Gaussian(noise_multiplier=4.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
EXAMPLE = Gaussian(noise_multiplier=2.0, unit=Unit.EXAMPLE, relation=Relation.ADD_REMOVE)


def test_nothing_spent_has_no_price() -> None:
    assert Account().guarantees() == ()


def test_the_largest_party_is_stated() -> None:
    account = Account(delta=1e-5)
    account.charge([to_fact(CLIENT), to_fact(CLIENT, party="a")], 1)
    account.charge([to_fact(CLIENT), to_fact(CLIENT, party="b"), to_fact(CLIENT, party="b")], 2)
    assert [line.epsilon for line in account.guarantees()] == [epsilon([repeat(CLIENT, 4)], 1e-5, "rdp")]


def test_units_relations_and_adversaries_are_priced_apart() -> None:
    account = Account(delta=1e-5)
    account.charge([to_fact(CLIENT), to_fact(EXAMPLE, party="a"), to_fact(EXAMPLE, "server", "a")], 1)
    lines = account.guarantees()
    assert [(line.unit, line.adversary) for line in lines] == [
        ("client", "public"),
        ("example", "public"),
        ("example", "server"),
    ]
    prices = [epsilon([event], 1e-5, "rdp") for event in (CLIENT, EXAMPLE, EXAMPLE)]
    assert [line.epsilon for line in lines] == prices


def test_a_promise_for_a_whole_run_counts_once_and_adds_up_with_nothing(tmp_path: Path) -> None:
    statement = {"unit": Unit.EXAMPLE, "relation": Relation.ADD_REMOVE}
    whole, part = Planned(epsilon=8.0, delta=1e-5, **statement), repeat(EXAMPLE, 3)
    account = Account([SampleDP(epsilon=8.0)])
    listed = [
        replace(to_fact(event, "server", "a"), layer="sample-dp") for event in (whole, part, whole, whole)
    ]
    account.charge(listed, 1)  # the part is what the promise is about
    account.charge([replace(to_fact(EXAMPLE, "server", "b"), layer="sample-dp")], 1)
    assert [line.epsilon for line in account.guarantees()] == [8.0]
    account.charge([replace(to_fact(EXAMPLE, "server"), layer="another")], 2)
    with pytest.raises(UnknownEvent, match="does not add up"):
        account.guarantees()
    ledger = Ledger(tmp_path / "l", epsilon=20.0, delta=1e-5)
    with pytest.raises(UnknownEvent, match="batch_size, and examples"):
        Account([SampleDP(epsilon=8.0)], ledger=ledger).charge(listed[:1], 1)
    smaller = Account([SampleDP(epsilon=8.0)], delta=1e-6)
    smaller.charge(listed[:1], 1)
    with pytest.raises(UnknownEvent, match="at delta 1e-05"):
        smaller.guarantees()


def test_each_layer_is_priced_at_its_own_delta_by_its_own_accountant() -> None:
    """SampleDP 1 at 1e-5 with ClientDP 9 at 1e-3 were one number at 1e-5: neither's."""
    stack = Stack(
        [
            SampleDP(epsilon=1, delta=1e-5, accountant="pld", batch_size=10),
            ClientDP(epsilon=9, delta=1e-3, clip=1.0),
            PlainSum(),
        ]
    )
    run = RunFacts(rounds=3, population=4, cohort=4, dimension=20, sizes=dict.fromkeys("0123", 50))
    stack.plan(run)
    facts = RoundFacts(run, 1, tuple("0123"), bytes(32))
    account = Account(stack.layers, delta=1e-7)
    for number in (1, 2, 3):
        account.charge(stack.round(facts, np.zeros(20)).events(facts.clients), number)
    example, client = account.guarantees()
    assert (example.delta, example.accountant, example.layers) == (1e-5, "pld", ("sample-dp",))
    assert (client.delta, client.accountant, client.layers) == (1e-3, "rdp", ("client-dp",))
    assert 0.95 < example.epsilon <= 1
    assert 8.9 < client.epsilon <= 9
    with pytest.raises(Misuse, match="2 guarantees"):
        only_epsilon(account.guarantees())


def test_a_round_that_one_party_cannot_afford_charges_nobody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", epsilon=2.0, delta=1e-5, accountant="rdp")
    account = Account(delta=1e-5, ledger=ledger, run="r")
    account.charge([to_fact(CLIENT, party="a")], 1)
    with pytest.raises(BudgetExceeded, match="'a'"):
        account.charge([to_fact(CLIENT, party="b"), *[to_fact(CLIENT, party="a")] * 5], 2)
    assert [entry.party for entry in ledger.entries()] == ["a"]
    assert len(account.events) == 1
