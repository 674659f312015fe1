"""Loops over NumPy arrays and estimators of scikit-learn: what travels is the weights, through every layer that can."""

import re
import runpy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diffs import Pair
from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import FedAvg, FedProx
from fl.adapters import fit_scaler, from_numpy, from_sklearn
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
        (SGDClassifier, {"classes": [0, 1]}, r"got the class SGDClassifier: write SGDClassifier\(...\)"),
        (
            SGDClassifier(early_stopping=True),
            {"classes": [0, 1]},
            "SGDClassifier cannot begin.*early_stopping",
        ),
        (SGDClassifier(class_weight="balanced"), {"classes": [0, 1]}, "cannot begin.*class_weight"),
    ],
)
def test_estimators_that_cannot_be_averaged_are_refused_by_name(
    estimator: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(Misuse, match=says):
        from_sklearn(estimator, CLIENTS, **options)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
def test_floats_of_any_width_sparse_inputs_and_whole_numbers_are_learned_from(estimator: Any) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3)).round(1)
    y = np.arange(20) % 2
    for first, other in (
        (x.astype(np.float32), x.astype(np.float32)),
        (x.astype(np.float32), x),
        (x, x.astype(np.float32)),
        (csr_matrix(x), x),
        ((10 * x).astype(np.int8), x),
    ):
        clients = {"a": (first, y), "b": (other, y[:, None])}
        result = from_sklearn(estimator, clients, classes=[0, 1]).fit(rounds=1)
        assert result.survivors == [("a", "b")]
        learned = result.model.estimator()
        assert learned.predict(x).shape == (20,)
        coefficients = learned.coefs_[0] if hasattr(learned, "coefs_") else learned.coef_
        assert coefficients.any()
        if first.dtype == np.float32:  # as the bare estimator's
            alone = clone(estimator)
            (getattr(alone, "partial_fit", None) or alone.fit)(
                first,
                y,
                **({"classes": [0, 1]} if hasattr(alone, "partial_fit") and is_classifier(alone) else {}),
            )
            same = alone.coefs_[0] if hasattr(alone, "coefs_") else alone.coef_
            assert coefficients.dtype == same.dtype


def test_several_outputs_are_learned_by_what_learns_them() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    clients = {name: (x, np.stack([x[:, 0], x[:, 1]], axis=1)) for name in "abc"}
    estimator = MLPRegressor(hidden_layer_sizes=(3,), random_state=0)
    assert from_sklearn(estimator, clients).fit(rounds=1).model.estimator().predict(x).shape == (20, 2)
    with pytest.raises(Misuse, match="SGDRegressor cannot begin with 3 features and y like"):
        from_sklearn(SGDRegressor(), clients)
    with pytest.raises(Misuse, match=r"client 'd': expected y of shape \(20, 2\).*got \(20,\)"):
        from_sklearn(estimator, {**clients, "d": (x, x[:, 0])})


BAD = {
    "x alone": (np.eye(4), "two parts"),
    "other features": ((np.eye(3), [0, 1, 0]), r"\(examples, 4\), got \(3, 3\)"),
    "lists": ((np.eye(4).tolist(), [0, 1, 0, 1]), r"\(examples, 4\), got list"),
    "other lengths": ((np.eye(4), [0, 1, 0]), r"expected y of shape \(4,\), .*got \(3,\)"),
    "swapped": (([0, 1, 0, 1], np.eye(4)), r"\(examples, 4\), got list"),
    "a gap": ((np.where(np.eye(4), np.nan, 0.0), [0, 1, 0, 1]), "expected finite numbers, got NaN"),
    "text": ((np.full((4, 4), "much"), [0, 1, 0, 1]), "expected finite numbers"),
    "another class": ((np.eye(4), [0, 1, 0, 2]), r"labels that are not in classes=\[0, 1\]: name all"),
    "several outputs": ((np.eye(4), np.eye(4)), r"expected y of shape \(4,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_data_that_an_estimator_would_stumble_over_is_named_with_its_client(name: str) -> None:
    data, says = BAD[name]
    good = (np.eye(4), np.array([0, 1, 0, 1]))
    estimator = SGDClassifier()
    with pytest.raises(Misuse, match=f"client 'b': .*{says}"):
        from_sklearn(estimator, {"a": good, "b": data}, classes=[0, 1])
    with pytest.raises(Misuse, match=f"test: .*{says}"):
        from_sklearn(estimator, {"a": good}, classes=[0, 1], test=data)
    far = from_sklearn(
        estimator,
        lambda client, config: {"a": good, "b": data}[client],
        names=["a", "b"],
        classes=[0, 1],
        features=4,
    )
    (entry,) = far.fit(rounds=1).history
    assert entry.survivors == ("a",)  # where the data is elsewhere, its client is left out, with the reason
    assert re.search(says, entry.refusals["b"])


def test_a_client_that_lacks_a_class_needs_partial_fit() -> None:
    clients = {"a": (np.eye(4), np.array([0, 1, 0, 1])), "b": (np.eye(4), np.array([0, 0, 1, 2]))}
    federation = from_sklearn(LogisticRegression(), clients, classes=[0, 1, 2])
    (entry,) = federation.fit(rounds=1).history
    assert entry.survivors == ("b",)  # the other one is left out, with its reason
    assert re.search(
        r"client 'a', round 1: .*fit\(\) needs examples of all of \[0, 1, 2\]", entry.refusals["a"]
    )
    assert from_sklearn(SGDClassifier(), clients, classes=[0, 1, 2]).fit(rounds=1).survivors == [("a", "b")]


@pytest.mark.parametrize("name", ["plain", "masks", "ckks"])
def test_a_scaler_has_the_statistics_of_all_examples_together(name: str) -> None:
    rng = np.random.default_rng(1)
    inputs = [rng.normal([1, -300, 0], [1, 40, 0], size=(size, 3)) for size in (10, 30, 70)]
    bounds = np.array([10, 1000, 10])
    scaler = fit_scaler(StandardScaler(), inputs, bounds=bounds, privacy=LAYERS[name](), bits=24)
    central = StandardScaler().fit(np.concatenate(inputs))
    assert scaler.mean_ == pytest.approx(central.mean_, abs=1e-3)
    assert scaler.scale_ == pytest.approx(central.scale_, rel=1e-2)  # that of the constant one is 1
    assert scaler.transform(inputs[0]) == pytest.approx(central.transform(inputs[0]), abs=1e-2)
    assert scaler.result_.survivors == [("0", "1", "2")]


@pytest.mark.parametrize("name", ["plain", "masks", "ckks"])
def test_a_spread_that_rounding_may_have_made_is_none_and_one_near_it_is_named(name: str) -> None:
    rng = np.random.default_rng(2)
    constant = rng.uniform(-10, 10, size=20)
    inputs = [
        np.concatenate(
            [np.tile(constant, (size, 1)), rng.normal([10, 0], [0.02, 0.02], size=(size, 2))], axis=1
        )
        for size in (3, 30, 70)
    ]
    with pytest.warns(UserWarning, match=r"features \[0, 1, 2, .* 20, 21\]: their variance is below"):
        scaler = fit_scaler(StandardScaler(), inputs, bounds=10.0, privacy=LAYERS[name](), bits=20)
    assert (scaler.scale_[:20] == 1.0).all()
    assert not scaler.var_[:20].any()


def test_a_scaler_takes_sparse_inputs() -> None:
    inputs = {name: csr_matrix(np.eye(4)) for name in "ab"}
    scaler = fit_scaler(StandardScaler(with_mean=False), inputs, bounds=1.0)
    assert scaler.scale_ == pytest.approx(StandardScaler(with_mean=False).fit(np.eye(4)).scale_, abs=1e-6)


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
