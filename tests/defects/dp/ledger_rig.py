"""Rules of a ledger, each a question that a planted defect answers with no."""

import sqlite3
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import Ledger, SampleDP
from dp.accountants import accountant
from dp.ledger_head import SignedHead
from dp.sample.errors import UnaccountedStep
from fl import Federation
from fl.account import Account
from fl.computation import LocalComputation
from fl.round import new_session
from fl.round.party import RoundParty
from fl.round.party_ledger import PartyLedger
from protocols.errors import BudgetExceeded, StoreError
from protocols.identity import Identity
from protocols.layers import RoundFacts, RunFacts
from protocols.store import MemoryStore
from tests.defects.dp.account_rig import ROUND, Z, federation, passes


def a_ledger_tells_no_time_of_day() -> bool:
    """Two rounds are charged as far apart as clients train, which follows their examples."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "l", epsilon=1e6, delta=1e-5)
        federation([SampleDP(**Z, batch_size=8, examples=8)], [8] * 2, ledger=ledger).fit(1)
        told = [entry.at for entry in ledger.entries()]
        return bool(told) and all(len(day) == len(str(date.today())) for day in told)


def a_plan_costs_at_most_what_is_printed() -> bool:
    """Rounds beyond the plan, one after the other, until the layer refuses them: what is printed stays the same."""
    run = RunFacts(2000, 2, 2, dimension=1000, delta=1e-5)
    layer = SampleDP(epsilon=3.0, delta=1e-5, batch_size=64)
    spent = layer._planned(256, 64, 1, run)
    spent.taken = spent.planned
    facts = RoundFacts(run, 1, ("a",), bytes(32))
    while True:
        try:
            layer._refuse_overspending(spent, facts)
        except BudgetExceeded:
            break
        spent.taken += spent.steps
    return accountant("rdp").add(spent.event, spent.taken).epsilon(1e-5) <= 3.0


def a_forged_file_is_found(kind: type[Ledger] = Ledger) -> bool:
    """Another ledger in the file's place: as many charges, each cheaper, chained as it should be; or another signer's
    head."""
    with tempfile.TemporaryDirectory() as folder:
        signer, other = Identity.generate("ward"), Identity.generate("else")
        ledger, forged = (kind(Path(folder) / name, epsilon=9.0, delta=1e-5) for name in ("l", "forged"))
        for _ in range(3):
            ledger.charge(ROUND)
            forged.charge(replace(ROUND, noise_multiplier=500.0))
        head = ledger.sign_head(signer)
        ledger.verify(head, signer.public)
        found = [_refused(ledger, ledger.sign_head(other), signer.public)]
        forged.verify()
        forged.path.replace(ledger.path)
        return all([*found, _refused(kind(ledger.path), head, signer.public)])


def _refused(ledger: Ledger, head: SignedHead, key: bytes) -> bool:
    try:
        ledger.verify(head, key)
    except StoreError:
        return True
    return False


CUT = "DELETE FROM charges WHERE id = 3"

RAISED = """UPDATE terms SET json = replace(json, '"epsilon": 9.0', '"epsilon": 900.0')"""


def tampering_is_found(statement: str) -> bool:
    """Whoever can write the ledger's file runs SQL on it."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "l", epsilon=9.0, delta=1e-5)
        for _ in range(3):
            ledger.charge(ROUND)
        ledger.verify()
        connection = sqlite3.connect(ledger.path)
        for trigger in ("charges_DELETE", "terms_UPDATE"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(statement)
        connection.commit()
        connection.close()
        try:
            ledger.verify()
        except StoreError:
            return True
        return False


def no_more_is_spent_than_planned() -> bool:
    """Twenty passes, or a pass left early, where epsilon 1 was asked for one pass over the data."""
    for train in (passes(20), passes(1, most=1)):
        layer = SampleDP(epsilon=1.0, delta=1e-5, batch_size=32)
        try:
            result = federation([layer], [64], train=train).fit(1)
        except UnaccountedStep:
            continue
        printed = [event.facts["count"] for event in result.statement.events]
        if layer.epsilon("ward-0", 1e-5) > 1.001 or printed != [layer.accounts["ward-0"].taken]:
            return False
    return True


def every_prefix_costs_at_most_what_is_printed() -> bool:
    """A server that does not know a client's rate, in each round of four, and the steps that the client took."""
    server, run = SampleDP(epsilon=8.0, delta=1e-5), RunFacts(4, 1, 1, dimension=8, delta=1e-5)
    account, client = Account([server]), SampleDP(epsilon=8.0, delta=1e-5)._planned(640, 4, 1, run)
    for number in range(1, 5):
        facts = RoundFacts(run, number, ("a",), bytes(32))
        account.charge([replace(event, layer=server.name) for event in server.events(facts, ("a",))], number)
        spent = accountant("pld").add(client.event, number * client.steps).epsilon(1e-5)
        if spent > account.guarantees()[0].epsilon:
            return False
    return True


def a_node_is_charged_what_its_steps_cost() -> bool:
    """A node's own ledger after the first of four rounds holds the price of 16 sampled steps."""
    g = torch.Generator().manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(64, 3, generator=g), torch.arange(64) % 2), batch_size=4)
    layer = SampleDP(epsilon=8.0, delta=1e-5)
    own = Federation(lambda: torch.nn.Linear(3, 2), lambda name, config: data, names=["a"], privacy=[layer])
    own.coordinator.prepare(4)
    broadcast = own.coordinator.open(1, ("a",))
    session = new_session(own.setup.stack.secure_sum, broadcast, least=1, number=1, memory=None)
    work = LocalComputation(own.setup, own.coordinator.model)
    with tempfile.TemporaryDirectory() as folder:
        policy = replace(own.setup.stack.secure_sum.default_policy, max_epsilon=7.9)
        party = RoundParty("a", MemoryStore(), PartyLedger(Path(folder)), policy, own.setup.stack)
        party.begin(broadcast, session, 0, work, "run")
        charged = [line.epsilon for line in Ledger(Path(folder) / "own.ledger").spent()]
    return charged == [layer.epsilon("a", 1e-5)]
