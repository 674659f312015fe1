"""Checks of what a printed epsilon stands on, each True for sound code: what is charged, what is told, what is opened,
what noise and rate follow, which lines are printed, what cannot be priced.

What belongs here: the checks, from whole runs where runs are meant. What does not: defects (`test_account_defects`).
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.accountants import epsilon
from dp.audit import Rehearsal, check_noise
from dp.event_json import from_fact
from dp.events import Gaussian, Relation, Unit, UnknownEvent
from dp.sample.errors import UnaccountedStep
from fl import Federation, FedSGD
from fl.account import Account
from fl.checkpoint import load_run
from fl.made_with import of
from fl.round.run_files import METRICS
from protocols.errors import Misuse, SecAggError
from protocols.plain import PlainSum
from protocols.randomness import SystemRandom
from protocols.record import FILE_NAME, verify_record
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
