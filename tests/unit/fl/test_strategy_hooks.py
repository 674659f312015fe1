"""What a strategy may do besides stepping: broadcast arrays, choose weights, report counts and blocks, keep state."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP
from fl import Federation, FedSGD
from fl.round.run_files import RunFiles
from fl.strategies.base import Extras
from protocols.errors import Aborted, Misuse, ProtocolViolation, SecAggError, StackError
from protocols.layers import Aggregate, Contribution, PrivacyLayer, RoundFacts, RunFacts, Signal, SumFacts
from protocols.party_state import CLOSED, PartyState
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus
from tests.toys.clusters import OFFSET, Clusters
from tests.toys.controlled import Controlled

CLIENTS = 4


class RefusesOnce(PrivacyLayer):
    """Toy: refuses one sum."""

    name = "refuses"
    takes_blocks = True

    def __init__(self, at: int) -> None:
        self.left = at

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        self.left -= opened.given.block == "update"
        if self.left == 0:
            raise Aborted("refused")
        return aggregate


def loaders() -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(CLIENTS * 8, 4, generator=drawn)
    return [DataLoader(TensorDataset(part, (part.sum(1) > 0).long()), batch_size=4) for part in x.split(8)]


def make() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


def federation(privacy: list[Any], **options: Any) -> Federation:
    return Federation(make, loaders(), privacy=privacy, **options)


@pytest.mark.parametrize("privacy", [[], [SecAgg()]])
def test_a_strategy_broadcasts_weighs_counts_and_keeps(privacy: list[Any]) -> None:
    strategy = Controlled()
    federation(privacy, strategy=strategy).fit(3)
    assert [mean.weight for mean in strategy.means] == [1 + 2 + 3 + 4] * 3
    assert [mean.counts for mean in strategy.means] == [{"steps": 0 + 1 + 2 + 3}] * 3
    assert [mean.blocks["control"][0] for mean in strategy.means] == pytest.approx([1, 2, 3], abs=0.01)
    assert strategy.seen["0"] == pytest.approx([0, 1, 2], abs=0.01)


def test_what_a_client_kept_in_an_abandoned_round_is_rolled_back() -> None:
    strategy = Controlled()
    history = federation([RefusesOnce(2), SecAgg()], strategy=strategy).fit(4).history
    assert [bool(result.abandoned) for result in history] == [False, True, False, False]
    assert [mean.blocks["control"][0] for mean in strategy.means] == pytest.approx([1, 2, 3], abs=0.01)


def test_state_comes_back_from_worker_processes() -> None:
    runs = [federation([SecAgg()], strategy=Controlled(), workers=workers) for workers in (1, 2)]
    models = [run.fit(3).model.state_dict() for run in runs]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    stores = [run.engine.stores["0"] for run in runs]  # type: ignore[attr-defined]
    assert kept(stores[0], "settled") == kept(stores[1], "settled") is not None


def kept(store: MemoryStore, kind: str) -> bytes | None:
    """What the one run of a store keeps for the toy strategy."""
    (name,) = [name for name in store.names("kept/") if name.endswith(f"/controlled/{kind}")] or [""]
    return store.get(name)


class Remembers(PrivacyLayer):
    """Toy: adds nothing to an update, and counts in the client's own store how many closed."""

    name = "remembers"
    keeps_state = True

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        state = PartyState.of(facts, self.name)
        closed = float(state.arrays().get("closed", np.zeros(1))[0])
        assert closed == facts.number_for(CLOSED, facts.client, 0)
        state.keep({"closed": np.array([float(facts.number)])})
        return contribution


def test_a_layer_keeps_state_as_a_strategy_does() -> None:
    history = federation([Remembers(), SecAgg()], fraction=0.75, seed=2).fit(5).history
    assert all(not result.abandoned for result in history)


@pytest.mark.parametrize("options", [{"strategy": Controlled}, {"stay_local": ("2.*",)}, {"workers": 2}])
def test_a_simulated_run_whose_clients_keep_state_goes_on_to_the_same_model(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    def run(**more: Any) -> Federation:
        made = {"strategy": Controlled, **options}
        return federation([SecAgg()], **{**made, "strategy": made["strategy"](), **more})

    run(output=tmp_path).fit(2)
    assert (tmp_path / "clients.npz").stat().st_mode & 0o777 == 0o600
    again = run(output=tmp_path).fit(4, resume=True).model.state_dict()
    whole = run().fit(4).model.state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_kill_between_the_clients_state_and_the_checkpoint_plays_the_round_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(files: RunFiles, kept: Any) -> str:
        if kept.rounds == 2:
            raise KeyboardInterrupt
        return save(files, kept)

    save = RunFiles.save
    monkeypatch.setattr(RunFiles, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        federation([], strategy=Controlled(), output=tmp_path).fit(3)
    monkeypatch.undo()
    federation([], strategy=(again := Controlled()), output=tmp_path).fit(3, resume=True)
    assert [mean.blocks["control"][0] for mean in again.means] == pytest.approx([2, 3], abs=0.01)


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"no"), lambda path: path.write_bytes(b"")]
)
def test_a_simulated_run_without_its_clients_state_is_refused_by_name(tmp_path: Path, damage: Any) -> None:
    federation([], strategy=Controlled(), output=tmp_path).fit(1)
    damage(tmp_path / "clients.npz")
    with pytest.raises(SecAggError, match=r"clients\.npz is (gone|not a checkpoint)"):
        federation([], strategy=Controlled(), output=tmp_path).fit(2, resume=True)


def test_who_was_not_in_a_round_keeps_what_it_had() -> None:
    strategy = Controlled()
    run = federation([], strategy=strategy, fraction=0.5, seed=1)
    history = run.fit(8).history
    for name in run.setup.names:
        asked = sum(name in result.survivors for result in history)
        held = kept(run.engine.stores[name], "pending")  # type: ignore[attr-defined]
        assert (held is not None) == (asked > 0)
    assert {len(seen) for seen in strategy.seen.values()} != {8}


def test_a_layer_that_protects_the_update_alone_refuses_blocks() -> None:
    class Halves(PrivacyLayer):
        name = "halves"

        def encode(self, contribution: Any, given: Any, facts: Any) -> Any:
            return contribution

    with pytest.raises(StackError, match="halves protects the update alone"):
        federation([Halves()], strategy=Controlled()).fit(1)


def test_chosen_weights_are_bound_by_the_strategys_own_cap_not_by_examples() -> None:
    class Heavy(Controlled):
        weight_cap = 1_000

        def extras(self, *given: Any) -> Extras:
            return replace(super().extras(*given), weight=900)

    heavy = Heavy()
    (result,) = federation([SecAgg()], strategy=heavy).fit(1).history  # 8 examples each
    assert (heavy.means[0].weight, result.weights_capped) == (900 * CLIENTS, 0)
    heavy.weight_cap = None
    with pytest.raises(Misuse, match="weight_cap"):
        federation([], strategy=heavy).fit(1)


# -- several sums in one round --


def moved(offset: float) -> torch.nn.Module:
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += offset
    return model


@pytest.mark.parametrize("privacy", [[], [SecAgg()]])
def test_each_sum_of_a_round_moves_a_model_of_its_own(privacy: list[Any]) -> None:
    run = federation(privacy, strategy=(clusters := Clusters()))
    history = run.fit(3).history
    assert [result.survivors for result in history] == [("0", "1", "2", "3")] * 3
    assert clusters.members == {"first": ("0", "1", "2"), "second": ("1", "2", "3")}
    for name, place, offset in (("first", 0, 0.0), ("second", 1, OFFSET)):
        clients = dict(list(enumerate(loaders()))[place : place + 3])
        # a federation of the group alone ends where the group's sum does
        alone = Federation(partial(moved, offset), clients, privacy=privacy).fit(3).model
        apart = np.concatenate([p.detach().numpy().ravel() for p in alone.parameters()])
        assert clusters.models[name] == pytest.approx(apart, abs=1e-3)
    assert not np.allclose(clusters.models["first"] + OFFSET, clusters.models["second"])


def test_a_sum_without_a_total_abandons_the_round_and_moves_no_model() -> None:
    run = federation([RefusesOnce(4), SecAgg()], strategy=(clusters := Clusters()))
    models: list[Any] = []
    history = run.fit(3, on_round=lambda result: models.append(clusters.state())).history
    assert [bool(result.abandoned) for result in history] == [False, True, False]
    assert all(np.array_equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_several_sums_in_a_round_work_with_reused_keys(workers: int) -> None:
    layers = [SecAggPlus(setup="reuse", threat="semi-honest")]
    history = federation(layers, strategy=Clusters(), workers=workers).fit(3).history
    assert [result.abandoned for result in history] == [None] * 3


def test_several_sums_go_on_where_a_run_was_stopped(tmp_path: Path) -> None:
    federation([SecAgg()], strategy=Clusters(), output=tmp_path).fit(1)
    again = federation([SecAgg()], strategy=(clusters := Clusters()), output=tmp_path)
    again.fit(3, resume=True)
    federation([SecAgg()], strategy=(whole := Clusters())).fit(3)
    assert all(np.array_equal(clusters.models[name], whole.models[name]) for name in whole.models)


def test_sums_that_no_round_can_end_are_refused_before_the_first() -> None:
    with pytest.raises(Misuse, match="sum 'first' has 3 clients"):
        federation([SecAgg()], strategy=Clusters(), min_survivors=4).fit(1)
    layer = ClientDP(noise_multiplier=1.0, clip=1.0, amplify=True)
    with pytest.raises(StackError, match="who was chosen in secret"):
        federation([layer], strategy=Clusters(), fraction=0.5, sampling="poisson", metrics=()).fit(1)

    class Strangers(Clusters):
        def sums(self, clients: tuple[str, ...], number: int) -> Any:
            return {"": clients, "more": ("mallory", *clients)}

    with pytest.raises(Misuse, match="sums over the clients asked"):
        federation([], strategy=Strangers()).fit(1)


# -- a client's own state, step by step --


def facts(store: MemoryStore, number: int, closed: int, run: str = "run") -> RoundFacts:
    public = {CLOSED: {"a": float(closed)}}
    return RoundFacts(RunFacts(9, 1, 1), number, ("a",), bytes(32), public, "a", store, scope=run)


def keep(store: MemoryStore, number: int, closed: int, value: float, run: str = "run") -> float:
    """Play one round at a client: return what it started from."""
    state = PartyState.of(facts(store, number, closed, run), "toy")
    before = float(state.arrays().get("x", np.zeros(()))[()])
    state.keep({"x": np.array(value)})
    return before


def test_state_is_settled_by_the_round_that_closed_with_it_and_by_no_other() -> None:
    store = MemoryStore()
    assert keep(store, 1, 0, 1.0) == 0.0
    assert keep(store, 2, 1, 2.0) == 1.0  # round 1 closed with this client
    assert keep(store, 3, 1, 3.0) == 1.0  # round 2 did not
    assert keep(store, 3, 1, 3.5) == 1.0  # round 3 is played again
    assert keep(store, 4, 3, 4.0) == 3.5


def test_what_was_rolled_back_cannot_be_settled_later() -> None:
    store = MemoryStore()
    keep(store, 1, 0, 1.0)
    PartyState.of(facts(store, 2, 0), "toy")  # round 1 did not close with this client
    with pytest.raises(ProtocolViolation, match=r"round 1 was the last .* of round 0"):
        PartyState.of(facts(store, 3, 1), "toy")


def test_a_server_that_says_otherwise_is_refused() -> None:
    store = MemoryStore()
    keep(store, 1, 0, 1.0)
    keep(store, 2, 1, 2.0)
    with pytest.raises(ProtocolViolation, match=r"round 0 was the last .* of round 1"):
        PartyState.of(facts(store, 3, 0), "toy")
    with pytest.raises(ProtocolViolation, match="round 5"):
        PartyState.of(facts(MemoryStore(), 6, 5), "toy")
    with pytest.raises(Misuse, match="keeps_state"):
        PartyState.of(RoundFacts(RunFacts(9, 1, 1), 1, ("a",), bytes(32), {}, "a", store), "toy")


def test_a_server_that_is_wrong_once_costs_a_party_nothing_that_it_keeps() -> None:
    store = MemoryStore()
    keep(store, 1, 0, 1.0)
    with pytest.raises(ProtocolViolation, match=r"round 2 was the last .* of round 0"):
        PartyState.of(facts(store, 2, 2), "toy")
    assert keep(store, 2, 1, 2.0) == 1.0


def test_runs_over_one_store_disturb_each_other_in_no_round() -> None:
    store = MemoryStore()
    assert keep(store, 1, 0, 1.0, "north") == 0.0
    assert keep(store, 1, 0, 5.0, "south") == 0.0
    assert keep(store, 2, 1, 2.0, "north") == 1.0
    assert keep(store, 2, 1, 6.0, "south") == 5.0
    with pytest.raises(ProtocolViolation, match=r"round 2 was the last .* of another run"):
        keep(store, 3, 2, 9.0, "east")


# -- what never leaves a client --


@pytest.mark.parametrize("privacy", [[], [SecAgg()]])
def test_entries_that_stay_local_never_leave_and_are_each_clients_own(privacy: list[Any]) -> None:
    heads: dict[int, list[list[float]]] = {}

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        owner = int(1000 * loader.dataset.tensors[0][0, 0])
        heads.setdefault(owner, []).append(model[2].bias.tolist())
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    run = federation(privacy, stay_local=("2.*",), train=train, test=loaders()[0])
    before = [tensor.clone() for tensor in run.coordinator.model[2].state_dict().values()]
    run.fit(3)
    assert [leaf.name for leaf in run.coordinator.schema.leaves] == ["0.weight", "0.bias"]
    after = run.coordinator.model[2].state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    starts = list(heads.values())
    assert all(start[0] == before[1].tolist() for start in starts)
    assert len({tuple(start[2]) for start in starts}) == CLIENTS, "each client has a head of its own"
    assert all(start[0] != start[1] != start[2] for start in starts)


def test_nothing_left_to_share_is_refused() -> None:
    with pytest.raises(Misuse, match="nothing to train"):
        federation([], stay_local=("*",))
    with pytest.raises(Misuse, match="stay_local: expected a list of names"):
        federation([], stay_local="2.*")


def test_a_name_that_is_to_stay_and_is_no_entry_of_the_model_is_refused() -> None:
    """One letter wrong, and what was to stay would leave."""
    with pytest.raises(Misuse, match=r"stay_local: '2.biass' matches no entry of the model, \['0.bias', "):
        federation([], stay_local=("2.weight", "2.biass"))


def test_buffers_that_stay_beside_a_layer_that_sums_gradients_itself_last_over_rounds() -> None:
    class Offset(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.full((4,), 0.5))
            self.line = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(x + self.offset)

    layer = DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=0.5, examples=8)
    run = Federation(
        Offset, loaders(), strategy=FedSGD(), privacy=[layer, SecAgg()], buffers="local", metrics=()
    )
    assert [result.abandoned for result in run.fit(3).history] == [None] * 3
