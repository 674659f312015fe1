"""Federation and SecureAverage: the user's own loop, wrapped; refusals before round 1; equal seeds, equal results."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import DistributedDP
from fl import FedAdam, FedAvg, Federation, FedProx, FedSGD, SecureAverage
from fl.computation import LocalComputation
from protocols import PlainSum
from protocols.errors import CapacityError, Misuse, StackError, TooFewSurvivors
from protocols.layers import Compute, LocalTask, PrivacyLayer, RoundFacts
from secagg import SecAgg, SecAggPlus


def data(n: int = 40, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


def clients(count: int = 5) -> dict[str, DataLoader]:
    return {f"site-{i}": DataLoader(data(20 + 6 * i, i), batch_size=8, shuffle=True) for i in range(count)}


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def with_batchnorm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def own_optimizer(model: nn.Module, loader: DataLoader) -> dict[str, float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {"loss": 0.5}


def federation(privacy: list[Any], **options: Any) -> Federation:
    options = {"test": DataLoader(data(50, 99), batch_size=50), **options}
    return Federation(model, clients(), privacy=privacy, **options)


def weights_of(result: Any) -> list[torch.Tensor]:
    return list(result.model.state_dict().values())


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights_of(a), weights_of(b), strict=True))


def test_the_same_federation_with_other_layers() -> None:
    plain = federation([], strategy=FedAdam())
    masked = plain.with_privacy([SecAggPlus(dropout=0.2)])
    one, other = masked.fit(2), plain.fit(2)
    assert equal(one, other)
    assert (one.statement.protection.threat, len(other.history)) == ("semi-malicious", 2)
    with pytest.raises(Misuse, match="has not begun"):
        plain.with_privacy([])
    with pytest.raises(StackError):
        federation([]).with_privacy([SecAggPlus(), SecAgg()])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("privacy", [[SecAgg(dropout=0.4)], [SecAggPlus(dropout=0.4)]])
def test_masks_give_the_plain_run_bit_for_bit(privacy: list[Any], dropout: float) -> None:
    plain = federation([PlainSum()], dropout=dropout).fit(3)
    masked = federation(privacy, dropout=dropout).fit(3)
    assert plain.survivors == masked.survivors
    assert equal(plain, masked)
    if dropout:
        assert any(len(s) < 5 for s in plain.survivors)


def test_equal_seeds_equal_results_and_other_seeds_others() -> None:
    runs = [federation([], seed=seed).fit(2) for seed in (1, 1, 2)]
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_the_users_generators_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    federation([]).fit(1)
    assert torch.equal(torch.rand(3), expected)


def test_one_round_is_within_one_step_of_the_float_average() -> None:
    fed = federation([SecAgg()], bits=16)
    fed.coordinator.prepare(1)
    shown = fed.coordinator.open(1, fed.setup.names)
    train = LocalComputation(fed.setup, fed.coordinator.model)
    trained = [train(shown, shown.own(name)) for name in fed.setup.names]
    total = sum(c.weight for c in trained)
    mean = shown.reference.flat.vector + sum(c.weight * c.vector for c in trained) / total
    fed.fit(1)
    got = np.concatenate([t.double().numpy().ravel() for t in fed.coordinator.model.state_dict().values()])
    assert shown.plan.quantiser is not None
    assert np.abs(got - mean).max() <= shown.plan.quantiser.step


def test_train_metrics_are_the_weighted_mean_though_nobody_sent_them_in_clear() -> None:
    seen: dict[str, float] = {}

    def train(model: nn.Module, loader: DataLoader) -> dict[str, float]:
        own_optimizer(model, loader)
        value = len(loader.dataset) / 100  # type: ignore[arg-type]
        seen[str(len(seen))] = value
        return {"loss": value, "not-asked-for": 3.0}

    result = federation([SecAgg()], train=train).fit(1)
    sizes = [20 + 6 * i for i in range(5)]
    assert result.history[0].train_metrics == {
        "loss": pytest.approx(sum(s * s / 100 for s in sizes) / sum(sizes), abs=2e-6)
    }


def test_weights_above_the_public_cap_are_capped_and_counted() -> None:
    result = federation([SecAgg()], weight_cap=30).fit(1)
    assert result.history[0].weights_capped == 3


def test_arguments_of_the_train_function_are_found_by_name() -> None:
    asked: list[tuple[int, int, str]] = []

    def train(
        device: str, round: int, epoch: int, loader: Any, model: Any, optimizer: Any, criterion: Any
    ) -> None:
        asked.append((round, epoch, device))
        assert isinstance(criterion, nn.CrossEntropyLoss)

    federation([], train=train, local_epochs=2).fit(1)
    assert asked == [(1, 0, "cpu"), (1, 1, "cpu")] * 5


@pytest.mark.parametrize("bad", [lambda model, loader, teapot: None, lambda optimizer: None])
def test_a_train_function_that_asks_for_something_else_is_refused(bad: Any) -> None:
    with pytest.raises(Misuse, match="by name"):
        federation([], train=bad)


class Owner(PrivacyLayer):
    name = "owner"
    owns = frozenset({"optimizer"})

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def run(task: LocalTask) -> dict[str, float]:
            return compute(task)

        return run


@pytest.mark.parametrize("options", [{"privacy": [Owner()]}, {"strategy": FedProx()}, {"strategy": FedSGD()}])
def test_a_loop_that_builds_its_own_optimizer_is_refused_where_one_must_own_it(options: dict) -> None:
    with pytest.raises(Misuse, match="own_optimizer does not take one"):
        Federation(model, clients(), train=own_optimizer, **options)
    assert Federation(model, clients(), train=own_optimizer).fit(1).history


def test_two_owners_of_one_optimizer_are_refused() -> None:
    with pytest.raises(StackError, match="both must own the optimizer"):
        Federation(model, clients(), strategy=FedSGD(), privacy=[Owner()])


@pytest.mark.parametrize(
    "strategy", [FedAvg(), FedAvg(weighted=False), FedSGD(0.5), FedProx(0.1), FedAdam(0.05)]
)
def test_every_strategy_learns(strategy: Any) -> None:
    result = federation([SecAgg()], strategy=strategy, local_epochs=2, learning_rate=0.2).fit(12)
    assert result.history[-1].metrics["loss"] < 0.95 * result.history[0].metrics["loss"]


def test_fedprox_pulls_where_a_loop_gives_its_step_a_closure() -> None:
    def train(model: nn.Module, loader: Any, optimizer: Any, *, closing: bool) -> None:
        for x, y in loader:

            def closure(x: Any = x, y: Any = y) -> Any:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            if closing:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()

    one, other, free = (
        federation([], strategy=FedProx(mu), train=partial(train, closing=closing)).fit(2)
        for closing, mu in ((True, 1.0), (False, 1.0), (False, 0.0))
    )
    assert equal(one, other)
    assert not equal(one, free)


def test_batchnorm_counters_are_kept_or_summed_by_choice_and_buffers_averaged() -> None:
    def counter(integers: str) -> int:
        fed = Federation(with_batchnorm, clients(), privacy=[SecAgg()], integers=integers)
        return int(fed.fit(1).model.state_dict()["1.num_batches_tracked"])

    assert counter("keep") == 0
    assert counter("sum") == sum(-(-(20 + 6 * i) // 8) for i in range(5))
    with pytest.raises(Misuse, match="num_batches_tracked"):
        counter("refuse")


def test_nan_in_an_update_is_refused_by_client_and_tensor() -> None:
    def train(model: nn.Module, loader: Any) -> None:
        with torch.no_grad():
            model[0].bias[1] = float("nan")  # type: ignore[index,operator]

    with pytest.raises(Misuse, match=r"0\.bias"):
        federation([SecAgg()], train=train).fit(1)


def test_a_round_below_the_threshold_is_abandoned_whole() -> None:
    fed = federation([SecAgg(threshold=4)], dropout=0.5, seed=3)
    before = [t.clone() for t in fed.coordinator.model.state_dict().values()]
    result = fed.fit(1)
    assert result.history[0].abandoned
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(result), strict=True))


def test_impossible_numbers_are_refused_before_round_one() -> None:
    many = {str(i): loader for i, loader in enumerate(list(clients().values()) * 30)}
    with pytest.raises(CapacityError, match="weight cap"):  # of clients whose sizes nobody knows
        Federation(
            model,
            lambda name, _: many[name],
            names=list(many),
            privacy=[SecAgg()],
            bits=32,
            weight_cap=1 << 24,
        ).fit(1)
    with pytest.raises(Misuse, match="no option 'teapot'"):
        federation([], teapot=1)
    for bad in ({"fraction": 0.0}, {"dropout": 1.0}, {"local_epochs": 0}, {"sampling": "some"}):
        with pytest.raises(Misuse):
            federation([], **bad)


def test_some_clients_are_asked_by_the_seed_alone() -> None:
    asked = [tuple(r.asked for r in federation([], fraction=0.6, seed=4).fit(4).history) for _ in range(2)]
    assert asked[0] == asked[1]
    assert {len(a) for a in asked[0]} == {3}
    poisson = federation([], fraction=0.5, sampling="poisson", seed=4).fit(6).history
    assert len({len(r.asked) for r in poisson}) > 1


def test_loaders_are_asked_for_only_where_the_client_lives() -> None:
    asked: list[str] = []

    def loader_for(client_id: str, config: dict) -> DataLoader:
        asked.append(client_id)
        return clients()[client_id]

    Federation(model, loader_for, names=["site-1", "site-3", "site-4"]).fit(1)
    assert asked == ["site-1", "site-3", "site-4"]
    with pytest.raises(Misuse, match="names"):
        Federation(model, loader_for)


# -- SecureAverage --


def states(n: int = 3) -> dict[str, dict[str, torch.Tensor] | None]:
    torch.manual_seed(0)
    return {name: with_batchnorm().state_dict() for name in "abcdefgh"[:n]}


@pytest.mark.parametrize("privacy", [[], [SecAgg()], [SecAggPlus()]])
def test_secure_average_is_the_average_within_one_step(privacy: list[Any]) -> None:
    reference = with_batchnorm().state_dict()
    given = {**states(4), "z": None}
    weights = {"a": 3, "b": 1, "c": 7, "d": 2, "z": 5}
    average = SecureAverage(privacy, bits=24)
    mean = average(given, weights=weights, reference=reference)
    assert average.survivors == ("a", "b", "c", "d")
    for name, value in mean.items():
        assert value.dtype == reference[name].dtype
        if value.dtype.is_floating_point:
            exact = sum(w * given[k][name].double() for k, w in weights.items() if given[k]) / 13
            assert (value.double() - exact).abs().max() <= 2.0**-20
    assert average.clipped_share == 0
    assert average.statement.protection.mechanism


def test_secure_average_works_on_bfloat16_half_and_rank_zero() -> None:
    reference = {
        "b": torch.zeros(3, dtype=torch.bfloat16), "h": torch.zeros((), dtype=torch.float16), "n": torch.tensor(4)
    }  # fmt: skip
    given = {
        k: {
            "b": torch.full((3,), k + 0.5, dtype=torch.bfloat16),
            "h": torch.tensor(k, dtype=torch.float16),
            "n": torch.tensor(9),
        }
        for k in (0, 1, 2)
    }
    mean = SecureAverage([SecAgg()], range=4.0)({str(k): v for k, v in given.items()}, reference=reference)
    assert mean["b"].dtype == torch.bfloat16
    assert mean["b"].tolist() == [1.5] * 3
    assert mean["h"].item() == 1.0
    assert mean["n"].item() == 4


@pytest.mark.parametrize(
    "weights, said",
    [
        ({"a": 1, "b": 2}, "'c'"),
        ({"a": 1, "b": 2, "c": 0.5}, "'c'"),
        ([1, 2, 20_000], "public cap"),
        ([1, 2, 0], "'c'"),
    ],
)
def test_secure_average_refuses_weights_by_client(weights: Any, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        SecureAverage([])(states(), weights=weights, reference=with_batchnorm().state_dict())


def test_secure_average_names_client_and_tensor_of_a_bad_update() -> None:
    given = states()
    assert given["b"] is not None
    given["b"]["0.weight"] = torch.full_like(given["b"]["0.weight"], float("inf"))
    with pytest.raises(Misuse, match=r"client 'b': 0\.weight"):
        SecureAverage([])(given, reference=with_batchnorm().state_dict())


def test_secure_average_takes_noise_in_shares_of_whole_clients() -> None:
    reference = {"w": torch.zeros(50)}
    average = SecureAverage([DistributedDP(noise_multiplier=0.01, clip=1.0), SecAgg()])
    found = average({name: {"w": torch.full((50,), 0.1)} for name in "abc"}, reference=reference)
    assert torch.allclose(found["w"], torch.full((50,), 0.1), atol=0.05)


def test_secure_averages_statement_promises_what_every_call_did() -> None:
    average, least = SecureAverage([SecAgg()]), []
    for clients in (8, 3, 8):
        average({str(i): {"w": torch.ones(2)} for i in range(clients)}, reference={"w": torch.zeros(2)})
        least.append(average.statement.protection.parameters["least_survivors"])
    assert least == [5, 3, 3]


def test_secure_average_refuses_layers_that_must_own_the_loop() -> None:
    with pytest.raises(StackError, match="Federation"):
        SecureAverage([Owner()])


def test_secure_average_gives_no_average_below_the_threshold() -> None:
    with pytest.raises(TooFewSurvivors):
        SecureAverage([SecAgg()])(
            {"a": states()["a"], "b": None, "c": None}, reference=with_batchnorm().state_dict()
        )
