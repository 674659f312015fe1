"""What a user may get wrong in the two library calls ends in one clear sentence, before anything is trained or sent."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from dp import ClientDP, Ledger, SampleDP
from fl import ClientEvaluation, Federation, FedProx, SecureAverage
from fl.loaders import examples_in
from protocols.errors import BudgetExceeded, Misuse, StackError
from protocols.policy import Policy
from secagg import SecAgg

DATA = TensorDataset(torch.randn(24, 4, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 2)


NOBODY = DataLoader(TensorDataset(torch.zeros(0, 4), torch.zeros(0).long()), batch_size=8)


def model() -> torch.nn.Module:
    return torch.nn.Linear(4, 2)


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(part.clone() for part in DATA.tensors)), batch_size=8)


def train(model: Any, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


class Trainer:
    def __call__(self, model: Any, loader: Any, optimizer: Any) -> None:
        train(model, loader, optimizer)

    def own(self, model: Any, loader: Any) -> None:
        train(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))


def fit(**options: Any) -> Any:
    return Federation(
        **{"model": model, "clients": [loader() for _ in range(3)], "train": train, **options}
    ).fit(1)


@pytest.mark.parametrize(
    "function",
    [
        Trainer(),
        Trainer().own,
        functools.partial(train),
        functools.partial(lambda model, loader, optimizer, times: None, times=3),
        lambda loader, model: None,
        lambda **everything: train(everything["model"], everything["loader"], everything["optimizer"]),
    ],
)
def test_every_kind_of_callable_trains(function: Any) -> None:
    assert fit(train=function).survivors == [("0", "1", "2")]


def swallow(model: Any, loader: Any, **rest: Any) -> None:
    Trainer().own(model, loader)


@pytest.mark.parametrize("options", [{"strategy": FedProx()}, {"privacy": [SampleDP(epsilon=8, delta=1e-3)]}])
def test_a_function_that_takes_anything_does_not_take_an_optimizer_by_name(options: Any) -> None:
    with pytest.raises(Misuse, match="swallow does not take one"):
        fit(train=swallow, **options)
    assert fit(train=swallow).history


@pytest.mark.parametrize(
    "options, said",
    [
        ({"train": "x"}, "train: expected a function"),
        ({"train": dict}, "train: expected a function"),
        ({"train": functools.partial(train, 1)}, "train asks for no model or no loader"),
        ({"model": model()}, "model: expected a function that returns a new module, got Linear"),
        ({"model": None}, "model: expected a function"),
        ({"model": lambda: None}, "model: expected a factory"),
        ({"criterion": torch.nn.CrossEntropyLoss()}, "criterion: expected a function"),
        ({"optimizer": torch.optim.SGD(model().parameters(), lr=0.1)}, "optimizer: expected a function"),
        ({"clients": loader()}, "clients: expected loaders by name"),
        ({"clients": None}, "clients: expected loaders by name"),
        ({"clients": lambda name, config: loader(), "names": 2.5}, "names: expected"),
        ({"clients": lambda name, config: loader(), "names": "abc"}, "names: expected"),
        ({"strategy": "fedavg"}, "strategy: expected a strategy"),
        ({"privacy": SecAgg()}, "privacy: expected a list of layers, got SecAgg"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"test": loader(), "evaluate": lambda *rest: 3.0}, "evaluate: expected a dict of floats"),
        ({"test": loader(), "evaluate": 3}, "evaluate: expected a function of model, loader"),
        (
            {"test": loader(), "evaluate": lambda net, data: {}},
            "asks for net, data; its arguments are found by name",
        ),
        (
            {"clients": {"a": loader(), "b": DATA}},
            "client 'b': expected a loader of batches, got the data set Tensor",
        ),
        ({"clients": lambda name, config: DATA, "names": 1}, "client '0'.*expected a loader of batches"),
        ({"test": DATA}, "test: expected a loader of batches, got the data set TensorDataset: wrap it"),
        ({"clients": {"a": NOBODY, "b": NOBODY}}, r"none of \['a', 'b'\] holds an example"),
        ({"privacy": [SecAgg]}, r"privacy: expected a layer, got the class SecAgg: write SecAgg\(...\)"),
        ({"strategy": FedProx}, r"strategy: expected an object, got the class FedProx: write FedProx\(...\)"),
        ({"ledger": Ledger}, r"ledger: expected an object, got the class Ledger: write Ledger\(...\)"),
        (
            {"evaluation": ClientEvaluation},
            r"evaluation: expected an object, got the class ClientEvaluation: write Cl",
        ),
        ({"policy": Policy}, r"policy: expected an object, got the class Policy"),
        (
            {"metrics": ["f1"], "privacy": [ClientDP(noise_multiplier=1.0)]},
            "metrics: 'f1' is not summed beside",
        ),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises((Misuse, StackError), match=said):
        fit(**options)


class Rows(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, place: int) -> dict[str, Any]:
        return dict(zip("xy", DATA[place], strict=True))


@pytest.mark.parametrize(
    "held, said",
    [
        (
            DataLoader(Rows(), batch_size=4),
            r"takes batches \(inputs, labels\).* is a dict of 2: give a loop of your own",
        ),
        (
            DataLoader(TensorDataset(torch.zeros(8, 4), torch.rand(8)), 4),
            r"labels.* got torch.float32 of shape \(4,\)",
        ),
        ([(torch.zeros(4), torch.tensor(1))], "one per example, and got torch.int64 of shape"),
    ],
)
def test_what_the_default_loops_cannot_read_is_said_before_anything_is_spent(
    held: Any, said: str, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.db", epsilon=99.0, delta=1e-5)
    private = {"privacy": [ClientDP(noise_multiplier=1.0, delta=1e-5)], "ledger": ledger}
    for options, remedy in (
        ({"clients": [held, held], "train": None}, "train"),
        ({"test": held}, "evaluate"),
    ):
        with pytest.raises(Misuse, match=said) as caught:
            fit(**options, **private)
        assert f"{remedy}=..." in str(caught.value)
    assert not list(ledger.entries())


def test_evaluate_is_called_by_the_names_of_its_arguments() -> None:
    def swapped(loader: Any, model: Any, *, device: str, rest: int = 3) -> dict[str, float]:
        return {
            "right": float(isinstance(model, torch.nn.Linear) and len(list(loader)) == 3 and device == "cpu")
        }

    def rest(**given: Any) -> dict[str, float]:
        return {"right": float(list(given) == ["model", "loader", "criterion", "device"])}

    for given in (swapped, rest, lambda *four: {"right": float(len(four) == 4)}):
        assert fit(test=loader(), evaluate=given).metrics == {"right": 1.0}


@pytest.mark.parametrize(
    "metrics, said",
    [
        (("f1",), r"client '0', round 1: 'f1' of metrics=\['f1'\] never comes: train returned \['acc'\]"),
        (None, "'accuracy'"),
    ],
)
def test_a_metric_that_never_comes_is_said_with_what_came_instead(metrics: Any, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        result = fit(
            train=lambda model, loader: {"acc": 1.0}, **({} if metrics is None else {"metrics": metrics})
        )
    assert result.history[0].train_metrics == {}


def test_a_metric_too_large_for_the_sum_is_said_where_the_client_lives() -> None:
    def train(model: Any, loader: Any) -> dict[str, float]:
        return {"mse": 300.0 if len(loader) == 3 else 100.0}

    clients = {"a": loader(), "b": DataLoader(DATA, batch_size=24)}
    said = r"client 'a', round 1: 'mse' is beyond \+-256, .*other clients alone"
    with pytest.warns(UserWarning, match=said):
        result = fit(clients=clients, train=train, metrics=("mse",))
    assert result.history[0].train_metrics == {"mse": 100.0}


@pytest.mark.filterwarnings("error")
def test_a_loop_without_metrics_is_no_mistake() -> None:
    assert fit().history[0].train_metrics == {}
    assert fit(train=lambda model, loader: {"loss": 0.5, "other": 1.0}).history[0].train_metrics == {
        "loss": 0.5
    }


def test_a_client_without_examples_is_named_before_round_1_unless_noise_hides_how_many_it_has() -> None:
    clients = {"a": loader(), "b": NOBODY, "c": loader()}
    with pytest.warns(UserWarning, match="client 'b' holds no example and contributes nothing: leave it out"):
        fit(clients=clients)
    with pytest.warns(UserWarning, match="it drowns the update") as caught:
        fit(clients=clients, privacy=[ClientDP(noise_multiplier=9.0, clip=0.1)])
    assert not any("holds no example" in str(said.message) for said in caught)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "3"])
def test_a_wrong_number_of_rounds_is_refused(rounds: Any) -> None:
    with pytest.raises(Misuse, match="rounds: expected a whole number"):
        Federation(model, [loader()], train).fit(rounds)


def test_metrics_of_the_users_evaluation_are_numbers_and_the_file_is_json(tmp_path: Path) -> None:
    def evaluate(*_: Any) -> dict[str, Any]:
        return {"tensor": torch.tensor(1.5), "lost": float("nan")}

    result = fit(test=loader(), evaluate=evaluate, output=tmp_path)
    assert result.metrics["tensor"] == 1.5
    assert math.isnan(result.metrics["lost"])
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert (line["tensor"], line["lost"]) == (1.5, None)


def test_nan_in_an_update_names_client_round_and_tensor() -> None:
    def spoil(model: Any, loader: Any) -> None:
        with torch.no_grad():
            model.bias[1] = float("nan")

    with pytest.raises(Misuse, match="client '0', round 1: bias: holds NaN"):
        fit(train=spoil)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(DATA)


def test_a_clients_weight_is_what_its_loader_serves() -> None:
    batches = [(torch.zeros(7, 4), torch.zeros(7))] * 3
    singles = [(torch.zeros(4), torch.tensor(1))] * 3
    some = DataLoader(DATA, batch_size=4, sampler=SubsetRandomSampler(range(5)))
    few = DataLoader(DATA, batch_sampler=BatchSampler(SubsetRandomSampler(range(6)), 4, drop_last=False))
    x, y = torch.zeros(7, 4), torch.zeros(7)
    shaped = [{"x": x, "y": y}, ([x, x], y), ({"x": x}, y), (x, ["text"] * 7), (x, None), x, (x, 1)]
    given = (loader(), some, few, batches, singles, DATA)
    assert [examples_in(each) for each in given] == [24, 5, 6, 21, 3, 24]
    assert [examples_in([batch] * 2) for batch in shaped] == [14] * 6 + [2]
    for endless in (DataLoader(Stream()), iter([])):
        with pytest.raises(Misuse, match="no length"):
            examples_in(endless)


def test_poisson_batches_do_not_reach_past_a_clients_own_sampler() -> None:
    some = [
        DataLoader(loader().dataset, batch_size=4, sampler=SubsetRandomSampler(range(8))) for _ in range(3)
    ]
    with pytest.raises(Misuse, match="SubsetRandomSampler"):
        fit(clients=some, privacy=[SampleDP(epsilon=8, delta=1e-3)])


REFERENCE = {"w": torch.full((2, 3), 2.0)}
SENT = {name: {"w": REFERENCE["w"] + shift} for name, shift in zip("abc", (0.0, 0.5, 1.0), strict=True)}


@pytest.mark.parametrize(
    "updates, weights, reference, said",
    [
        (SENT, [1, 2], REFERENCE, "weights: expected one per client, 3"),
        (SENT, 3, REFERENCE, "weights: expected one per client, 3"),
        (SENT, [1, 2, float("nan")], REFERENCE, "client 'c': expected an integer weight"),
        (SENT, [1, float("inf"), 2], REFERENCE, "client 'b': expected an integer weight"),
        (SENT, [1, 2, 1.5], REFERENCE, "client 'c': expected an integer weight"),
        ({}, None, REFERENCE, "updates: expected a mapping"),
        (list(SENT.values()), None, REFERENCE, "updates: expected a mapping"),
        ({1: SENT["a"], "1": SENT["b"]}, None, REFERENCE, "distinct names"),
        (SENT, None, None, "expected a state dict"),
        (SENT, None, model(), "expected a state dict"),
        ({**SENT, "b": model()}, None, REFERENCE, "client 'b': expected a state dict"),
        ({"a": {}, "b": {}, "c": {}}, None, {}, "no floating-point value"),
        (SENT, None, {"w": torch.eye(2).to_sparse()}, "w: expected a dense tensor"),
        (SENT, None, {"w": torch.zeros(2, device="meta")}, "w: expected a dense tensor"),
        (SENT, None, {"w": torch.zeros(2).to(torch.float8_e4m3fn)}, "w: a tensor of float8_e4m3fn"),
    ],
)
def test_a_wrong_argument_of_the_average_is_named(
    updates: Any, weights: Any, reference: Any, said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        SecureAverage([SecAgg()])(updates, weights=weights, reference=reference)


def test_an_average_that_had_to_clip_says_so() -> None:
    average = SecureAverage([SecAgg()], range=0.75)
    with pytest.warns(UserWarning, match="clipped"):
        average(SENT, reference=REFERENCE)
    assert average.clipped_share == pytest.approx(1 / 3)
    assert any("clipped" in note for note in average.statement.notes)


def test_noise_calibrated_for_an_epsilon_serves_the_planned_rounds_only() -> None:
    average = SecureAverage([ClientDP(epsilon=8, delta=1e-5), SecAgg()], rounds=2)
    for _ in range(2):
        average(SENT, reference=REFERENCE)
    spent = average.epsilon
    with pytest.raises(BudgetExceeded, match="2 calls were paid for of the 2"):
        average(SENT, reference=REFERENCE)
    assert average.epsilon == spent == pytest.approx(8, abs=1e-2)
    federation = Federation(
        model, [loader() for _ in range(3)], train, privacy=[ClientDP(epsilon=8, delta=1e-5)]
    )
    federation.fit(1)
    with pytest.raises(Misuse, match="calibrated"):
        federation.fit(1)
