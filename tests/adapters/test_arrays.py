"""Loops over NumPy arrays and estimators of scikit-learn: what travels is the weights, through every layer that can."""

import runpy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diffs import Pair
from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import FedAvg, FedProx
from fl.adapters import from_numpy, from_sklearn
from he import CKKSSum
from protocols.errors import Misuse
from secagg import SecAgg, SecAggPlus
from tests.paillier_fixed import keyholder

LAYERS = {
    "plain": lambda: [],
    "masks": lambda: [SecAggPlus()],
    "paillier": lambda: [keyholder()],
    "ckks": lambda: [CKKSSum()],
    "client-dp": lambda: [ClientDP(noise_multiplier=1e-3, clip=50.0, delta=1e-5), SecAgg()],
    "local-dp": lambda: [LocalDP(noise_multiplier=1e-3, clip=50.0, delta=1e-5)],
    "distributed-dp": lambda: [DistributedDP(noise_multiplier=1e-3, clip=50.0, delta=1e-5), SecAgg()],
}
CLIENTS = {
    name: (np.full((size, 2), float(size)), np.arange(size) % 2)
    for name, size in zip("abcd", (2, 4, 6, 8), strict=True)
}


def towards(weights: dict[str, Any], data: Any) -> Any:
    """A loop whose result is known: the mean input."""
    return {**weights, "w": data[0].mean(axis=0), "n": weights["n"]}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_become_the_mean_through_every_layer(name: str) -> None:
    start = {"w": np.zeros(2), "n": np.array(7)}
    federation = from_numpy(start, towards, CLIENTS, privacy=LAYERS[name](), range=16.0)
    weights = federation.fit(rounds=1).model.weights()
    equal = name.endswith("dp")  # such clients count alike
    mean = np.mean([2, 4, 6, 8]) if equal else np.average([2, 4, 6, 8], weights=[2, 4, 6, 8])
    assert weights["w"] == pytest.approx([mean] * 2, abs=2.0 if equal else 0.01)  # 20 deviations of the noise
    assert weights["n"] == 7


X, Y = np.zeros((6, 2)), np.zeros(6)


@pytest.mark.parametrize(
    ("data", "examples"),
    [
        (X, 6),
        ((X, Y), 6),
        ([X, Y], 6),
        ({"x": X, "name": "abc", "rate": 0.1}, 6),
        ((X.tolist(), Y.tolist()), 6),
        ({"x": X.tolist(), "y": Y}, 6),
        ([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)], 3),
        ([(X[0], 1), (X[1], 0), (X[2], 1)], 3),
        ([{"x": 1}, {"x": 2}, {"x": 3}], 3),
        ({"x": [1, 2], "y": [0, 1]}, 2),
        ([([1.0], 0), ([2.0], 1), ([3.0], 0)], 3),
        ([["1", "2"], ["3", "4"], ["5", "6"]], 3),
        (list(Y), 6),
        ([], 0),
        ([np.zeros((2, 2)), np.zeros((2, 2))], 2),
        (DataLoader(TensorDataset(torch.zeros(6)), 4), 6),
    ],
)
def test_a_client_weighs_as_much_as_it_has_examples(data: Any, examples: int) -> None:
    federation = from_numpy({"w": np.zeros(2)}, towards, {"a": data, "b": X})
    assert federation.setup.sizes == {"a": examples, "b": 6}


@pytest.mark.parametrize("data", [list(X), "data/a.csv", {"x": 1}, 3, (X, Y[:5]), (X.tolist(), Y[:5])])
def test_a_client_whose_examples_cannot_be_counted_is_named(data: Any) -> None:
    for clients in ({"a": X, "b": data}, lambda client, config: {"a": X, "b": data}[client]):
        options = {"names": ["a", "b"]} if callable(clients) else {}
        with pytest.raises(Misuse, match=r"client 'b'.*: cannot tell how many examples"):
            from_numpy(
                {"w": np.zeros(2)}, lambda weights, data: weights, clients, **options
            ).setup.loader_for("b")


class Line(NamedTuple):
    w: Any
    b: Any


def test_a_named_tuple_comes_back_as_one() -> None:
    def train(weights: Line, data: Any) -> Line:
        return Line(weights.w + 1, weights.b + 2)

    weights = from_numpy(Line(np.zeros(2), 0.0), train, CLIENTS, range=4.0).fit(rounds=1).model.weights()
    assert type(weights) is Line
    assert weights.b == pytest.approx(2.0, abs=1e-3)


def test_what_comes_back_has_the_users_container_names_dtypes_and_shapes() -> None:
    named = {
        "train": np.ones((2, 3), np.float32),
        "a.b": np.float64(2.0),
        "c": np.zeros(0),
        "i": np.arange(3),
    }
    for weights in (named, list(named.values()), tuple(named.values())):
        seen: list[Any] = []

        def train(given: Any, data: Any, round: int, *, seen: list[Any] = seen) -> Any:
            seen.append(round)
            return given, {"loss": 0.5}

        result = from_numpy(weights, train, CLIENTS, metrics=("loss",)).fit(rounds=2)
        back = result.model.weights()
        assert type(back) is type(weights)
        pairs = zip(named.values(), back.values() if isinstance(back, dict) else back, strict=True)
        assert all(np.array_equal(one, two) and np.asarray(one).dtype == two.dtype for one, two in pairs)
        assert seen == [1] * 4 + [2] * 4
        assert result.history[-1].train_metrics["loss"] == pytest.approx(0.5, abs=0.01)


def test_a_loop_that_trains_in_place_leaves_the_server_and_the_other_clients_alone() -> None:
    def train(weights: list[Any], data: Any) -> list[Any]:
        weights[0] += 1
        return weights

    start = [np.zeros(2)]
    assert from_numpy(start, train, CLIENTS).fit(rounds=2).model.weights()[0] == pytest.approx(
        [2, 2], abs=1e-3
    )
    assert not start[0].any()


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (lambda weights, data: None, "returned None"),
        (lambda weights, data: {"w": np.zeros(3)}, r"expected shape \(2,\), got \(3,\)"),
        (lambda weights, data: {"v": np.zeros(2)}, r"expected the weights \['w'\], got \['v'\]"),
        (lambda weights, data: {"w": np.array(["a", "b"])}, "w: expected an array of numbers"),
        (lambda weights, data: {"w": np.array([np.nan, 1])}, "NaN"),
        (
            lambda weights, data: {"w": weights["w"] + 1j},
            "w: it began as float64 and would lose what complex128",
        ),
    ],
)
def test_what_a_loop_returns_wrongly_is_a_sentence(train: Any, says: str) -> None:
    federation = from_numpy({"w": np.zeros(2)}, train, CLIENTS)
    with pytest.raises(Misuse, match=says):
        federation.fit(rounds=1)


@pytest.mark.parametrize(
    "start", [{"w": np.zeros(2), "b": 0}, {"w": np.zeros(2), "b": np.zeros((), int)}, [np.zeros(2), False]]
)
def test_weights_that_begin_as_integers_and_are_trained_are_refused(start: Any) -> None:
    def train(weights: Any, data: Any) -> Any:
        named = weights.items() if isinstance(weights, dict) else enumerate(weights)
        moved = {name: value + 0.5 for name, value in named}
        return moved if isinstance(weights, dict) else list(moved.values())

    with pytest.raises(
        Misuse, match=r"client 'a'.*[b1]: it began as (int64|bool) and would lose what float64"
    ):
        from_numpy(start, train, CLIENTS).fit(rounds=1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"clients": {"a": (np.zeros(2), np.zeros(3))}}, "first dimensions agree"),
        ({"clients": {"a": 3}}, "cannot tell how many examples int holds"),
        ({"weights": 3.0}, "expected a dict or list of arrays"),
        ({"weights": {"w": "text"}}, "w: expected an array of numbers"),
        ({"train": lambda weights: weights}, r"train\(weights, data\["),
        ({"test": CLIENTS["a"]}, "test, evaluate: give both"),
        ({"evaluate": lambda weights, data: {}}, "test, evaluate: give both"),
        ({"evaluation": object()}, "evaluation: it measures the outputs of a torch module"),
    ],
)
def test_what_cannot_work_is_refused_before_round_one(given: dict[str, Any], says: str) -> None:
    usual = {"weights": {"w": np.zeros(2)}, "train": towards, "clients": CLIENTS}
    with pytest.raises(Misuse, match=says):
        from_numpy(**{**usual, **given})


def test_what_must_own_the_steps_is_refused_by_name_with_what_works_instead() -> None:
    for make in (
        partial(from_numpy, {"w": np.zeros(2)}, towards, CLIENTS),
        partial(from_sklearn, SGDClassifier(), CLIENTS, classes=[0, 1]),
    ):
        with pytest.raises(Misuse, match=r"SampleDP must own the optimizer.*takes its own steps.*ClientDP"):
            make(privacy=[SampleDP(epsilon=1, delta=1e-5)])
        with pytest.raises(Misuse, match="FedProx must own the optimizer"):
            make(strategy=FedProx())


@pytest.mark.parametrize("name", ["numpy", "sklearn"])
def test_the_examples_run_and_five_lines_change(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert Pair(f"examples/adapters/{name}").changed <= 5
    found = {}
    for when in ("before", "after"):
        runpy.run_module(f"examples.adapters.{name}_{when}")
        found[when] = float(capsys.readouterr().out.split()[-1])
    assert found["after"] > 0.9  # follows a seed


def test_weighted_by_examples_as_any_federation() -> None:
    federation = from_numpy(
        {"w": np.zeros(2), "n": np.array(0)}, towards, CLIENTS, strategy=FedAvg(weighted=False), range=16.0
    )
    assert federation.fit(rounds=1).model.weights()["w"] == pytest.approx([5.0, 5.0], abs=1e-3)
