"""A round is taken whole or abandoned whole: what fits no model, who refuses alone, what is counted, what is kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from dp import ClientDP
from fl import FedAdam, Federation, SecureAverage
from fl.round import moved, reference_of
from fl.round.hidden import told
from fl.strategies.base import Strategy
from protocols.errors import Aborted, BudgetExceeded, Misuse, PolicyRefusal
from protocols.layers import (
    Aggregate,
    Block,
    Compute,
    Contribution,
    LocalTask,
    PrivacyLayer,
    RoundFacts,
    RunFacts,
)
from protocols.party_state import CLOSED, PartyState
from protocols.stack import Numbers, Stack
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus

CLIENTS = ("a", "b", "c", "d")


def loader(examples: int = 8) -> DataLoader[Any]:
    x = torch.randn(examples, 3, generator=torch.Generator().manual_seed(examples))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4)


def federation(model: Any = lambda: nn.Linear(3, 2), **options: Any) -> Federation:
    options.setdefault("clients", {name: loader() for name in CLIENTS})
    return Federation(model, options.pop("clients"), **options)


def adds(value: float) -> Any:
    """A loop that adds `value` to every parameter, as a lying client would."""

    def train(model: Any, loader: Any, optimizer: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += value

    return train


# -- what fits no model --


@pytest.mark.parametrize("privacy", [[], [SecAgg()]])
def test_a_sum_beyond_the_models_dtype_abandons_the_round_and_changes_nothing(privacy: list[Any]) -> None:
    strategy = FedAdam(lr=1e6)
    found = federation(lambda: nn.Linear(3, 2).half(), privacy=privacy, strategy=strategy, train=adds(1.0))
    before = {name: value.clone() for name, value in found.coordinator.model.state_dict().items()}
    result = found.fit(2)
    assert ["does not fit" in str(entry.abandoned) for entry in result.history] == [True, True]
    assert strategy.state() == {}
    assert all(
        torch.equal(value, before[name]) for name, value in found.coordinator.model.state_dict().items()
    )
    assert not any(entry.survivors for entry in result.history)


class Wanders(PrivacyLayer):
    """Toy: its state moves with every decoded sum."""

    name = "wanders"

    def __init__(self) -> None:
        self.seen = 0

    def decode(self, aggregate: Aggregate, *rest: Any) -> Aggregate:
        self.seen += 1
        return aggregate

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


class Stops(Strategy):
    """Toy: takes no mean."""

    name = "stops"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def step(self, mean: Any) -> Any:
        raise self.error


def test_a_strategy_that_refuses_a_mean_abandons_the_round_and_layers_stay() -> None:
    layer = Wanders()
    result = federation(privacy=[layer], strategy=Stops(Aborted("not this one"))).fit(2)
    assert [entry.abandoned for entry in result.history] == ["not this one"] * 2
    assert layer.seen == 0


def test_layers_stay_where_the_strategy_fails_for_another_reason() -> None:
    layer = Wanders()
    with pytest.raises(ZeroDivisionError):
        federation(privacy=[layer], strategy=Stops(ZeroDivisionError())).fit(1)
    assert layer.seen == 0


@pytest.mark.parametrize("start, change", [(2**63 - 2, 4), (-(2**63) + 1, -2)])
def test_a_counter_beyond_64_bits_abandons_and_never_wraps(start: int, change: int) -> None:
    reference = reference_of({"w": np.zeros(2), "n": np.array([start])}, integers="sum")
    with pytest.raises(Aborted, match="64 bits"):
        moved(reference, np.zeros(2), np.array([change]))
    assert moved(reference, np.zeros(2), np.array([change // 4]))["n"] == start + change // 4


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 2)
        self.register_buffer("n", torch.tensor(-(2**63), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(x)
        return out


def test_a_clients_own_counter_that_moves_by_more_than_64_bits_is_refused() -> None:
    def train(model: Any, loader: Any, optimizer: Any) -> None:
        model.n.fill_(2**63 - 1)

    with pytest.raises(Misuse, match="changed by more than 64 bits"):
        federation(Counts, train=train, integers="sum").fit(1)


# -- who refuses alone --


class Refuses(PrivacyLayer):
    """Toy: client d refuses from round `first` on, in the place that is named."""

    name = "refuses"

    def __init__(self, error: Exception, place: str, client: str = "d", first: int = 2) -> None:
        self.error, self.place, self.client, self.first = error, place, client, first

    def _at(self, place: str, own: RoundFacts) -> None:
        if (place, own.client) == (self.place, self.client) and own.number >= self.first:
            raise self.error

    def encode(self, contribution: Contribution, given: Any, own: RoundFacts) -> Contribution:
        self._at("encode", own)
        return contribution


class RefusesWithin(Refuses):
    """The same, around the local computation too."""

    def local(self, compute: Compute, own: RoundFacts) -> Compute:
        def wrapped(task: LocalTask) -> Any:
            self._at("local", own)
            return compute(task)

        return wrapped


@pytest.mark.parametrize("place", ["local", "encode"])
@pytest.mark.parametrize("client", ["a", "d"])
@pytest.mark.parametrize(
    "error",
    [PolicyRefusal("not me"), BudgetExceeded("all is spent"), Aborted("no")],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("secure_sum", [[], [SecAggPlus()]], ids=["plain", "masks"])
def test_one_clients_refusal_drops_that_client_alone(
    place: str, client: str, error: Exception, secure_sum: list[Any]
) -> None:
    found = federation(privacy=[RefusesWithin(error, place, client), *secure_sum]).fit(3)
    assert [len(entry.survivors) for entry in found.history] == [4, 3, 3]
    assert all(client not in entry.survivors for entry in found.history[1:])
    assert type(error).__name__ in found.history[2].refusals[client]


def test_it_does_in_a_worker_process_too() -> None:
    layer = Refuses(BudgetExceeded("all is spent"), "encode")
    found = federation(privacy=[layer, SecAgg()], workers=2).fit(2)
    assert [len(entry.survivors) for entry in found.history] == [4, 3]
    assert "all is spent" in found.history[1].refusals["d"]


def test_a_loop_that_fails_for_everybody_still_ends_the_run_by_name() -> None:
    def train(model: Any, loader: Any, optimizer: Any) -> None:
        model.weight.data.fill_(float("nan"))

    with pytest.raises(Misuse, match="client 'a', round 1: weight"):
        federation(train=train, privacy=[SecAgg()]).fit(1)


# -- what is counted --


def test_clients_without_examples_do_not_dilute_the_mean() -> None:
    def movement(clients: dict[str, Any]) -> torch.Tensor:
        found = federation(clients=clients, bits=32, train=adds(0.5))
        before = found.coordinator.model.weight.detach().clone()
        found.fit(1)
        return found.coordinator.model.weight.detach() - before

    alone = movement({"a": loader(1), "b": loader(1)})
    empty = TensorDataset(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.warns(UserWarning, match="contribute nothing but their presence"):
        beside = movement({"a": loader(1), "b": loader(1), **{n: DataLoader(empty, 4) for n in ("c", "d")}})
    assert torch.allclose(alone, beside, atol=1e-5)


def test_a_block_without_a_range_is_refused_and_clipping_in_it_is_counted() -> None:
    run = RunFacts(1, 3, 3, dimension=2, blocks=(Block("control", 2),))
    with pytest.raises(Misuse, match=r"block 'control'.*Block\(range="):
        Stack([]).plan(run)
    run = RunFacts(1, 3, 3, dimension=2, blocks=(Block("control", 2, range=1.0),))
    plan = Stack([], Numbers(range=1.0)).round(RoundFacts(run, 1, CLIENTS[:3], bytes(32), {}), np.zeros(2))
    given = Contribution(np.zeros(2), 1, {}, {"control": np.array([3.0, -50.0])})
    assert plan.clipped(plan.decode(plan.encode(given, plan.facts), ("a",))) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_is_refused_by_name(value: float) -> None:
    run = RunFacts(1, 3, 3, dimension=2, blocks=(Block("control", 2, range=1.0),))
    plan = Stack([]).round(RoundFacts(run, 1, CLIENTS[:3], bytes(32), {}), np.zeros(2))
    with pytest.raises(Misuse, match="block 'control': holds NaN or infinity"):
        plan.encode(Contribution(np.zeros(2), 1, {}, {"control": np.array([0.0, value])}), plan.facts)


def test_a_total_that_no_honest_clients_can_give_is_abandoned() -> None:
    run = RunFacts(1, 3, 3, dimension=2)
    plan = Stack([], Numbers(range=1.0, weight_cap=10)).round(
        RoundFacts(run, 1, CLIENTS[:3], bytes(32), {}), np.zeros(2)
    )
    for weight in (31, -1):
        total = plan.encode(Contribution(np.zeros(2), 1, {}), plan.facts)
        total[2] = weight  # after the vector of two
        with pytest.raises(Aborted, match="'weight' is beyond what 3 clients can send"):
            plan.decode(total, CLIENTS[:3])
    total[2] = 30
    assert plan.decode(total, CLIENTS[:3]).weight == 30


def test_every_call_of_an_average_that_was_charged_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    average = SecureAverage([ClientDP(epsilon=8, delta=1e-5, clip=1.0), SecAgg()], rounds=2)
    updates = {name: {"w": torch.tensor([0.1, 0.2])} for name in CLIENTS}
    reference = {"w": torch.zeros(2)}

    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ClientDP, "decode", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                average(updates, reference=reference)
    with pytest.raises(BudgetExceeded, match="2 calls were paid for"):
        average(updates, reference=reference)
    assert average.epsilon == pytest.approx(8, rel=0.01)


# -- what is kept, and told --


def test_a_client_keeps_arrays_of_every_dtype_bit_for_bit() -> None:
    store = MemoryStore()
    kept = {
        "whole": np.array([2**53 + 1, -(2**63)]),
        "complex": np.array([[1 + 2j]], np.complex64),
        "flags": np.array([True, False]),
        "scalar": np.array(0.1, np.float32),
        "none": np.zeros((0, 3)),
    }

    def state(number: int, closed: int) -> PartyState:
        run = RunFacts(4, 1, 1)
        return PartyState.of(
            RoundFacts(run, number, ("a",), bytes(32), {CLOSED: {"a": closed}}, client="a", store=store),
            "toy",
        )

    state(1, 0).keep(kept)
    found = state(2, 1).arrays()
    assert found.keys() == kept.keys()
    for name, array in kept.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_a_samplers_own_generator_starts_anew_in_every_round() -> None:
    def trained(workers: int) -> torch.Tensor:
        clients = {}
        for name in CLIENTS:
            data = loader().dataset
            sampler = RandomSampler(data, generator=torch.Generator().manual_seed(7))  # type: ignore[arg-type]
            clients[name] = DataLoader(data, batch_size=2, sampler=sampler)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = federation(clients=clients, workers=workers, bits=32, range=1.0, learning_rate=0.5)
            found.fit(3)
        finally:
            torch.set_num_threads(threads)
        return found.coordinator.model.weight.detach()

    assert torch.equal(trained(1), trained(2))


def test_who_sent_again_is_withheld_where_the_choice_is_secret() -> None:
    notes = (
        "simulated",
        "sent again: an update left its client a second time, as that client's own policy allows: x",
    )
    assert not any("policy: x" in note for note in told(notes))
    assert told(notes)[0] == "simulated"
    assert "whose is withheld" in told(notes)[1]


@pytest.mark.parametrize("weight", [2.5, "3", -1, None])
def test_a_weight_that_is_none_is_refused(weight: Any) -> None:
    from fl.round import contribution_of, open_round
    from protocols.updates import flatten

    run = RunFacts(1, 3, 3, dimension=2)
    stack = Stack([], Numbers(range=1.0))
    stack.plan(run)
    shown = open_round(stack, run, 1, CLIENTS[:3], reference_of({"w": np.zeros(2)}))
    trained = flatten({"w": np.ones(2)}, shown.reference.schema)
    with pytest.raises(Misuse, match="weight: expected an integer"):
        contribution_of(shown, trained, weight)


def test_a_model_without_parameters_is_refused_before_its_optimizer() -> None:
    with pytest.raises(Misuse, match="nothing to train"):
        federation(nn.Identity)
