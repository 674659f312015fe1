"""Loops over NumPy arrays and estimators of scikit-learn: what travels is the weights, through every layer that can."""

import re
import runpy
from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.diffs import Pair
from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import FedAvg, FedProx
from fl.adapters import fit_scaler, from_numpy, from_sklearn
from fl.adapters.arrays import examples_of
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
    ],
)
def test_what_a_loop_returns_wrongly_is_a_sentence(train: Any, says: str) -> None:
    federation = from_numpy({"w": np.zeros(2)}, train, CLIENTS)
    with pytest.raises(Misuse, match=says):
        federation.fit(rounds=1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"clients": {"a": (np.zeros(2), np.zeros(3))}}, "first dimensions agree"),
        ({"clients": {"a": 3}}, "cannot tell how many examples int holds"),
        ({"weights": 3.0}, "expected a dict or list of arrays"),
        ({"weights": {"w": "text"}}, "w: expected an array of numbers"),
        ({"train": lambda weights: weights}, r"train\(weights, data\["),
        ({"test": CLIENTS["a"]}, "evaluate"),
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


# -- scikit-learn --

ESTIMATORS = [
    SGDClassifier(loss="log_loss", random_state=0),
    SGDRegressor(random_state=0),
    LogisticRegression(C=0.1),
    MLPClassifier((3,), random_state=0),
    MLPRegressor(hidden_layer_sizes=(3,), random_state=0),
    Perceptron(random_state=0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
def test_coefficients_are_the_mean_of_what_each_client_learns(estimator: Any) -> None:
    rng = np.random.default_rng(0)
    clients = {name: (rng.normal(size=(20, 3)), np.arange(20) % 2) for name in "abc"}
    federation = from_sklearn(estimator, clients, classes=[0, 1], privacy=[SecAggPlus()], test=clients["a"])
    begins = federation.coordinator.model.estimator()
    result = federation.fit(rounds=1)
    own = []
    for x, y in clients.values():
        alone = federation.coordinator.model.__class__(begins).estimator()
        (alone.partial_fit if hasattr(alone, "partial_fit") else alone.fit)(x, y)
        own.append(alone)
    for name in ("coef_", "intercept_", "coefs_", "intercepts_"):
        if hasattr(begins, name):
            wanted = getattr(own[0], name)
            got = getattr(result.model.estimator(), name)
            for at in range(len(wanted)):
                mean = np.mean([getattr(each, name)[at] for each in own], axis=0)
                assert got[at] == pytest.approx(mean, abs=1e-3)
    assert result.model.estimator().predict(clients["a"][0]).shape == (20,)
    assert set(result.history[-1].metrics) == {
        "r2" if "Regressor" in type(estimator).__name__ else "accuracy"
    }


def test_a_schedule_by_steps_goes_on_and_a_fitted_estimator_is_where_it_begins() -> None:
    seen: list[float] = []

    class Watched(SGDClassifier):
        def partial_fit(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.__dict__.get("t_", 0))
            return super().partial_fit(*args, **kwargs)

    x, y = np.eye(4), np.array(["no", "yes"] * 2)
    fitted = Watched().partial_fit(x, y, classes=["no", "yes"])
    seen.clear()
    federation = from_sklearn(fitted, {"a": (x, y), "b": (x, y[:4])}, local_epochs=2)
    assert np.array_equal(federation.coordinator.model.estimator().coef_, fitted.coef_)
    result = federation.fit(rounds=2)
    assert seen == [5, 9] * 2 + [13, 17] * 2  # it had taken four steps
    assert set(result.model.estimator().predict(x)) <= {"no", "yes"}


@pytest.mark.parametrize(
    ("estimator", "options", "says"),
    [
        (RandomForestClassifier(n_estimators=1), {"classes": [0, 1]}, "learns no coef_"),
        (StandardScaler(), {}, "expected a classifier or regressor"),
        (SGDClassifier(), {}, "classes: SGDClassifier needs all labels"),
        (SGDClassifier(average=True), {"classes": [0, 1]}, "leave out average="),
    ],
)
def test_estimators_that_cannot_be_averaged_are_refused_by_name(
    estimator: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(Misuse, match=says):
        from_sklearn(estimator, CLIENTS, **options)


def test_a_client_that_lacks_a_class_needs_partial_fit() -> None:
    clients = {"a": (np.eye(4), np.array([0, 1, 0, 1])), "b": (np.eye(4), np.array([0, 0, 1, 2]))}
    federation = from_sklearn(LogisticRegression(), clients, classes=[0, 1, 2])
    (entry,) = federation.fit(rounds=1).history
    assert entry.survivors == ("b",)  # the other one is left out, with its reason
    assert re.search(
        r"client 'a', round 1: .*labels are .* of .*, and fit\(\) needs all", entry.refusals["a"]
    )
    assert from_sklearn(SGDClassifier(), clients, classes=[0, 1, 2]).fit(rounds=1).survivors == [("a", "b")]


@pytest.mark.parametrize("name", ["plain", "masks", "ckks"])
def test_a_scaler_has_the_statistics_of_all_examples_together(name: str) -> None:
    rng = np.random.default_rng(1)
    inputs = [rng.normal([1, -300, 5], [1, 40, 0], size=(size, 3)) for size in (10, 30, 70)]
    bounds = np.array([10, 1000, 10])
    scaler = fit_scaler(StandardScaler(), inputs, bounds=bounds, privacy=LAYERS[name](), **({"bits": 24}))
    central = StandardScaler().fit(np.concatenate(inputs))
    assert scaler.mean_ == pytest.approx(central.mean_, abs=1e-3)
    assert scaler.transform(inputs[0])[:, :2] == pytest.approx(central.transform(inputs[0])[:, :2], abs=1e-2)
    assert scaler.result_.survivors == [("0", "1", "2")]


def test_statistics_beside_noise_are_priced_and_bad_bounds_refused() -> None:
    layers = [ClientDP(noise_multiplier=1.0, clip=1.0, delta=1e-5), SecAgg()]
    scaler = fit_scaler(StandardScaler(), CLIENTS, bounds=10.0, privacy=layers)
    assert scaler.result_.epsilon > 0
    with pytest.raises(Misuse, match="bounds: expected finite numbers > 0"):
        fit_scaler(StandardScaler(), CLIENTS, bounds=0.0)
    with pytest.raises(Misuse, match=r"\(examples, 3\)"):
        fit_scaler(StandardScaler(), CLIENTS, bounds=np.ones(3)).fit()


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


def test_weights_that_begin_as_integers_are_never_lost_silently() -> None:
    def learn(weights: dict[str, Any], data: Any) -> dict[str, Any]:
        return {"b": weights["b"] + 0.5}

    with pytest.raises(
        Misuse, match=r"b: it began as torch.int64 and became torch.float64: begin with floats"
    ):
        from_numpy({"b": 0, "w": np.zeros(1)}, lambda w, d: learn(w, d) | {"w": w["w"]}, CLIENTS).fit(1)
    assert from_numpy({"b": 0.0}, learn, CLIENTS).fit(1).model.weights()["b"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    "data, count",
    [
        ([([1.0], 0), ([2.0], 1), ([3.0], 0)], 3),
        ([{"x": 1}, {"x": 2}, {"x": 3}], 3),
        (([1, 2, 3, 4], [0, 1, 0, 1]), 4),
        ([np.zeros((5, 2)), np.zeros(5)], 5),
        ({"x": [1, 2], "y": [0, 1]}, 2),
    ],
)
def test_examples_are_counted_as_the_data_holds_them(data: Any, count: int) -> None:
    assert examples_of(data) == count


@pytest.mark.parametrize("kind", [SGDClassifier, SGDRegressor, Perceptron, MLPRegressor, LogisticRegression])
def test_narrow_floats_train_as_in_the_bare_loop(kind: Any) -> None:
    x, y = np.eye(8, dtype=np.float32), np.arange(8) % 2
    federation = from_sklearn(kind(), {"a": (x, y), "b": (x, y)}, classes=[0, 1])
    assert federation.fit(rounds=1).survivors == [("a", "b")]


def test_a_perceptron_of_two_outputs_learns_both() -> None:
    x = np.eye(8)
    model = from_sklearn(MLPRegressor(), {"a": (x, np.ones((8, 2)))}).fit(rounds=1).model.estimator()
    assert model.predict(x).shape == (8, 2)


@pytest.mark.parametrize(
    "estimator, data, says",
    [
        (SGDClassifier, CLIENTS["a"], r"got the class SGDClassifier: write SGDClassifier\(...\)"),
        (SGDClassifier(), np.zeros((2, 2)), r"client 'odd': expected \(x, y\), got ndarray"),
        (SGDClassifier(), (np.zeros((2, 3)), np.zeros(2)), r"client 'odd': .*\(examples, 2\), got \(2, 3\)"),
        (
            SGDClassifier(),
            (np.zeros((2, 2)), [0] * 3),
            "client 'odd': expected as many labels as examples, 2, got 3",
        ),
        (SGDClassifier(), (np.full((2, 2), np.nan), np.zeros(2)), "client 'odd': x holds NaN or infinity"),
        (
            SGDClassifier(),
            (np.zeros((2, 2)), [0, 7]),
            r"client 'odd': .*labels out of \[0, 1\], got \[0, 7\]",
        ),
    ],
)
def test_what_an_estimator_cannot_learn_from_names_the_client(estimator: Any, data: Any, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        from_sklearn(estimator, {**CLIENTS, "odd": data}, classes=[0, 1])


def test_a_constant_column_has_no_scale() -> None:
    inputs = [np.column_stack([np.arange(9.0), np.full(9, 0.3)]) for _ in range(3)]
    scaler = fit_scaler(StandardScaler(), inputs, bounds=10.0, privacy=[SecAgg()])
    assert scaler.scale_ == pytest.approx(StandardScaler().fit(np.concatenate(inputs)).scale_, abs=1e-3)
