"""Checks of what a printed epsilon stands on, each True for sound code: what is charged, what is told, what is opened,
what noise and rate follow, which lines are printed, what a ledger's file hides, what cannot be priced.

What belongs here: the checks, from whole runs where runs are meant. What does not: defects (`test_account_defects`).
"""

import json
import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.accountants import accountant, epsilon
from dp.audit import Rehearsal, check_noise
from dp.event_json import from_fact
from dp.events import Gaussian, Relation, Unit, UnknownEvent
from dp.ledger_head import SignedHead
from dp.sample.errors import UnaccountedStep
from fl import Federation, FedSGD
from fl.account import Account
from fl.checkpoint import load_run
from fl.computation import LocalComputation
from fl.made_with import of
from fl.round import new_session
from fl.round.kept import METRICS
from fl.round.party import RoundParty
from fl.round.party_ledger import PartyLedger
from protocols.errors import BudgetExceeded, Misuse, SecAggError, StoreError
from protocols.identity import Identity
from protocols.layers import RoundFacts, RunFacts
from protocols.plain import PlainSum
from protocols.randomness import SystemRandom
from protocols.record import FILE_NAME, verify_record
from protocols.store import MemoryStore
from secagg import SecAggPlus
from tests.defects.dp import rig
from tests.flower.test_flower_apps import SITES, grid_of, serve
from tests.flower.test_flower_apps import federation as flower_federation

ROUND = Gaussian(noise_multiplier=5.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
Z: dict[str, Any] = {"noise_multiplier": 1.0, "clip": 0.5}


def loss(model: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def federation(privacy: Sequence[Any], sizes: Sequence[int], **options: Any) -> Federation:
    """A client for each size."""
    clients = {
        f"ward-{i}": DataLoader(TensorDataset(torch.ones(n, 3), torch.arange(n) % 2), 8)
        for i, n in enumerate(sizes)
    }
    return Federation(lambda: torch.nn.Linear(3, 2), clients, privacy=privacy, loss=loss, **options)


def amplified(chosen: dict[int, int]) -> Federation:
    """A run that claims a secret choice of clients; chosen: round -> how many were."""
    run = federation([ClientDP(**Z, amplify=True)], [8] * 6, sampling="poisson", fraction=0.3)
    run.coordinator.choose = lambda number: run.setup.names[: chosen[number]]  # type: ignore[method-assign]
    return run


def planned_rounds_are_charged() -> bool:
    run = amplified({1: 2, 2: 0, 3: 1})
    result = run.fit(3)
    return len(run.account.events) == 3 and all(entry.abandoned is None for entry in result.history)


def rounds_that_fail_too_often_are_refused(kind: type[ClientDP] = ClientDP) -> bool:
    """Twenty clients at rate .1, at least four of them: the rule tells more than the rate prices."""
    run = federation([kind(**Z, amplify=True)], [8] * 20, sampling="poisson", fraction=0.1, min_survivors=4)
    try:
        run.fit(1)
    except Misuse:
        return True
    return False


def every_number_is_looked_at() -> bool:
    """200 clients at rate .55, at least 110 of them: nearly every second round fails."""
    kind = ClientDP(noise_multiplier=20.0, delta=1e-5, amplify=True)
    run = federation([kind], [8] * 200, sampling="poisson", fraction=0.55, min_survivors=110)
    try:
        run.coordinator.prepare(1)
    except Misuse:
        return True
    return False


def broken_clients_are_told_nowhere() -> bool:
    """A client with NaN in its data: a run that ends there, or names it, releases that without a price."""
    run = federation([ClientDP(**Z)], [8] * 4)
    run.setup.loader_for("ward-1").dataset.tensors[0].fill_(float("nan"))
    try:
        result = run.fit(2)
    except Misuse:
        return False
    return all(entry.abandoned is None and not entry.refusals for entry in result.history)


def broken_examples_end_nothing() -> bool:
    """The same for one example of a client, which counts as zero."""
    run = federation([SampleDP(**Z, batch_size=8, examples=8)], [8] * 2)
    run.setup.loader_for("ward-1").dataset.tensors[0][3] = float("nan")
    try:
        result = run.fit(1)
    except Misuse:
        return False
    return result.history[0].abandoned is None


def sizes_and_seconds_are_told_nowhere() -> bool:
    """Two runs that differ in one client's number of examples tell the same, but for noise and the server's seconds."""
    told = []
    for size in (8, 40):
        run = federation([ClientDP(**Z, weights="bounded", weight_cap=100)], [8, size, 8])
        result = run.fit(1).history[0]
        told.append((run.coordinator.planned(1).weight_cap, of(run.setup), sorted(result.seconds)))
    return told[0] == told[1] and told[0][2] == ["privacy_server"]


def a_checkpoint_follows_no_example() -> bool:
    """A client without an example, with one, or with one that is NaN: what a run keeps of the layer is the same."""
    kept = []
    for value, size in ((1.0, 8), (1.0, 1), (float("nan"), 1), (1.0, 0)):
        with tempfile.TemporaryDirectory() as folder:
            layer = SampleDP(**Z, batch_size=8, examples=8)
            run = federation([layer], [8, size], output=Path(folder) / "run")
            run.setup.loader_for("ward-1").dataset.tensors[0].fill_(value)
            run.fit(1)
            kept.append(load_run(Path(folder) / "run").layers)
    return all(each == kept[0] for each in kept) and "ward-1" in kept[0]["sample-dp"]["clients"]


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


def a_resumed_round_keeps_its_guarantee() -> bool:
    """What a ledger was charged and no checkpoint knows of is the same layer's, against the same adversary."""
    run = federation([SampleDP(**Z, batch_size=8)], [8] * 2)
    run.fit(1)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "l", epsilon=1e6, delta=1e-5)
        Account(ledger=ledger).charge(run.account.events, 1)
        again = Account(ledger=ledger)
        again.restore([], "")
    return again.events == run.account.events


def counts_are_told_nowhere() -> bool:
    """Two rounds that differ in how many were chosen are told alike, but for number and price so far."""
    history = amplified({1: 4, 2: 1}).fit(2).history
    one, other = (vars(replace(entry, number=0, guarantees=())) for entry in history)
    return bool(one == other)


def noise_is_opened_for_enough(kind: type[DistributedDP] = DistributedDP, unit: str = "example") -> bool:
    """Three of eight clients are asked where noise was planned for four survivors: the model stays."""
    claims: dict[str, Any] = {"sample_rate": 0.5, "examples": 64} if unit == "example" else {}
    layer = kind(**Z, unit=unit, min_survivors=4, **claims)
    strategy = FedSGD() if claims else None
    run = federation(
        [layer, SecAggPlus(dropout=0.0)], [8] * 8, strategy=strategy, sampling="poisson", fraction=0.5
    )
    run.coordinator.choose = lambda number: run.setup.names[:3]  # type: ignore[method-assign]
    before = run.coordinator.reference().flat.vector
    run.fit(1)
    return bool((run.coordinator.reference().flat.vector == before).all())


def a_run_goes_on_after_too_few() -> bool:
    """Two, then six of eight clients are asked where noise was planned for four survivors: a round is abandoned, no
    more."""
    layer = DistributedDP(**Z, min_survivors=4)
    run = federation([layer, SecAggPlus(dropout=0.0)], [8] * 8, sampling="poisson", fraction=0.5)
    run.coordinator.choose = {1: run.setup.names[:2], 2: run.setup.names[:6]}.__getitem__  # type: ignore[method-assign]
    try:
        history = run.fit(2).history
    except SecAggError:
        return False
    return [entry.abandoned is not None for entry in history] == [True, False] and len(
        run.account.events
    ) == 1


def flower_files_tell_no_counts() -> bool:
    """A run on Flower, stopped and resumed: its rounds had two clients, none and one, and its files tell them alike."""
    with tempfile.TemporaryDirectory() as folder:

        def secret(**named: Any) -> Federation:
            layers = [ClientDP(**Z, amplify=True), PlainSum()]
            return flower_federation(layers, sampling="poisson", fraction=0.4, **named)

        out = Path(folder) / "run"
        grid = grid_of(Path(folder), secret)
        for rounds in (2, 3):
            own = secret(output=out)
            own.coordinator.choose = {1: SITES[:2], 2: (), 3: SITES[1:2]}.__getitem__  # type: ignore[method-assign]
            history = serve(grid, own, rounds).history
        told = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
        bodies = [entry.body for entry in verify_record(out / FILE_NAME).entries]
        alike = [
            {k: entry[k] for k in ("asked", "survivors", "bytes_up_per_client", "seconds", "trips")}
            for entry in told
        ]
        counts = {(body.get("asked"), body.get("survivors"), body.get("session")) for body in bodies}
        one = vars(replace(history[0], number=0, guarantees=()))
        same = all(vars(replace(entry, number=0, guarantees=())) == one for entry in history)
        return same and len(counts) == 1 and all(entry == alike[0] for entry in alike) and len(told) == 3


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


def claims_against_the_server_hold(kind: type[LocalDP] | type[DistributedDP]) -> bool:
    """Where no secure sum follows, one client's vector bears all the noise that is claimed against the server."""
    layer = kind(noise_multiplier=1.0, clip=rig.CLIP)
    rehearsal = Rehearsal(layer, rig.CLIENTS, rig.DIMS)
    seen = rehearsal.contributions(rig.ZERO)[0]
    claimed = any(event.adversary == "server" for event in rehearsal.facts())
    return not claimed or check_noise(seen, rig.CLIP, rig.ALARM).passed


def honest_noise_bears_the_claim() -> bool:
    """Clients that the sum's own statement admits as corrupt know their noise: the others' is what is claimed."""
    masks = SecAggPlus(collusion=0.3)
    rehearsal = Rehearsal(
        DistributedDP(noise_multiplier=1.0, clip=rig.CLIP), rig.CLIENTS, rig.DIMS, secure_sum=masks
    )
    session = masks.session(rehearsal.names, 1, 1, random=SystemRandom())
    honest = rig.CLIENTS - masks.protection(session).parameters["corrupt"]
    seen = np.sum(rehearsal.contributions(rig.ZERO)[:honest], axis=0)
    return honest < rig.CLIENTS and check_noise(seen, rig.CLIP, rig.ALARM).passed


def steps_follow_no_private_size(kind: type[SampleDP] = SampleDP) -> bool:
    """A client with one example more spends the same, where a public number stands for its own."""
    spent = []
    for size in (64, 65):
        layer = kind(**Z, batch_size=8, examples=64)
        result = federation([layer], [size]).fit(1)
        spent.append([replace(event, layer="") for event in result.statement.events])
    return spent[0] == spent[1]


def each_unit_has_its_own_line() -> bool:
    """Examples and clients: every line is the price of its own unit's events at its own delta, and no more."""
    layers = [SampleDP(**Z, delta=1e-5, batch_size=8), ClientDP(**Z, delta=1e-3)]
    result = federation(layers, [8] * 3).fit(1)
    deltas = {"example": 1e-5, "client": 1e-3}
    dearest = {
        unit: max(
            epsilon([from_fact(e)], deltas[unit], "rdp") for e in result.statement.events if e.unit == unit
        )
        for unit in deltas
    }
    return {(g.unit, g.delta, g.epsilon) for g in result.guarantees} == {
        (unit, delta, dearest[unit]) for unit, delta in deltas.items()
    }


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


def what_has_no_price_is_refused_when_built() -> bool:
    """Skellam noise has no price in a ledger by privacy losses."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "l", epsilon=9.0, delta=1e-5, accountant="pld")
        stack = [DistributedDP(epsilon=8, clip=0.5, noise="skellam"), SecAggPlus(dropout=0.0)]
        try:
            federation(stack, [8] * 6, ledger=ledger)
        except UnknownEvent:
            return True
        return False


def each_client_trains_on_its_own_examples() -> bool:
    """Four clients, one data set, a batch sampler each over its own quarter: no example is in two updates."""
    readers: dict[int, set[str]] = {}

    class Noted(Dataset[Any]):
        def __init__(self, client: str) -> None:
            self.client = client

        def __len__(self) -> int:
            return 16

        def __getitem__(self, index: int) -> Any:
            readers.setdefault(index, set()).add(self.client)
            return torch.ones(3), index % 2

    clients = {
        f"ward-{k}": DataLoader(
            Noted(f"ward-{k}"),
            batch_sampler=BatchSampler(SubsetRandomSampler(range(4 * k, 4 * k + 4)), 2, False),
        )
        for k in range(4)
    }
    try:
        Federation(lambda: torch.nn.Linear(3, 2), clients, privacy=[SampleDP(**Z, batch_size=8)]).fit(1)
    except Misuse:
        return True
    return all(len(names) == 1 for names in readers.values())


def the_loop_reads_no_example_beside_its_batches() -> bool:
    """A loop that looks at the whole data set, for weights of its classes or a second model, gets no further."""
    read: list[int] = []

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        read.append(len(loader.dataset))
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    try:
        federation([SampleDP(**Z, batch_size=8)], [16], train=train).fit(1)
    except Misuse:
        return not read
    return not read


def passes(count: int, most: int = 99) -> Any:
    """A loop of `count` passes that leaves each after `most` batches, once it trains."""
    calls: list[int] = []

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        calls.append(1)
        for _ in range(count):
            for number, (x, y) in enumerate(loader):
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                if number + 1 >= most and len(calls) > 1:  # the first call is the check
                    break

    return train


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


def one_example_brings_one_example() -> bool:
    """Sixteen examples too large for the check, and one more that is not: the noiseless sums lie one clip apart."""

    def make() -> Any:
        made = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.zeros_(made.weight)
        return made

    moved = []
    for more in (0, 1):
        x = torch.cat([torch.full((16, 3), 1e10), torch.full((more, 3), 0.1)])
        data = DataLoader(TensorDataset(x, torch.ones(len(x), 1)), 16)
        layer = SampleDP(noise_multiplier=1e-4, clip=1.0, delta=1e-5, batch_size=16, examples=16)
        run = Federation(
            make,
            {"a": data},
            passes(1),
            criterion=torch.nn.MSELoss,
            privacy=[layer],
            learning_rate=1.0,
            range=4.0,
        )
        run.fit(1)
        moved.append(16 * run.coordinator.reference().flat.vector)
    return bool(np.linalg.norm(moved[1] - moved[0]) < 1.02)


def a_frozen_layer_stays() -> bool:
    """A loop lets a frozen layer have gradients for a moment: torch steps whatever has one."""

    def make() -> Any:
        made = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
        made[0].requires_grad_(False)
        return made

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            model[0].requires_grad_(True)
            criterion(model(x), y).backward()
            model[0].requires_grad_(False)
            optimizer.step()

    data = DataLoader(TensorDataset(torch.ones(16, 3), torch.arange(16) % 2), 8)
    run = Federation(make, {"a": data}, train, privacy=[SampleDP(**Z, batch_size=8)], parameters="all")
    before = run.coordinator.reference().tree["0.weight"]
    try:
        run.fit(1)
    except UnaccountedStep:
        return True
    return bool((run.coordinator.reference().tree["0.weight"] == before).all())


def step_sizes_follow_no_loss() -> bool:
    """A loop that takes shorter steps where the loss is large: the released model tells whether it was."""

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.param_groups[0]["lr"] = 0.1 if loss.item() > 1e6 else 0.01
            optimizer.step()

    try:
        federation([SampleDP(**Z, batch_size=8)], [16], train=train, learning_rate=0.1).fit(1)
    except UnaccountedStep:
        return True
    return False


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
