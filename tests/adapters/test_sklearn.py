"""Estimators of scikit-learn and the scaling of their inputs: coefficients become the mean; what cannot is named."""

import re
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from dp import ClientDP
from fl.adapters import fit_scaler, from_sklearn
from protocols.errors import Misuse
from secagg import SecAgg, SecAggPlus
from tests.adapters.test_arrays import CLIENTS, LAYERS

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


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
def test_a_client_that_lacks_a_class_takes_part_and_learns_what_its_own_examples_say(kind: Any) -> None:
    """It was left out by name: beside noise, that told its set of labels."""
    held, labels = np.random.default_rng(1).normal(size=(40, 4)), np.arange(40) % 2
    clients = {"a": (kind(held), labels), "b": (kind(np.eye(4)), np.array([0, 0, 1, 2]))}
    for estimator in (LogisticRegression(max_iter=5), SGDClassifier()):
        assert from_sklearn(estimator, clients, classes=[0, 1, 2]).fit(rounds=1).survivors == [("a", "b")]
    solved = LogisticRegression(max_iter=500, tol=1e-8)
    own = from_sklearn(solved, {"a": clients["a"]}, classes=[0, 1, 2], min_survivors=1).fit(rounds=1)
    weights = own.model.estimator().coef_
    # of both rows together
    two = LogisticRegression(max_iter=500, tol=1e-8, C=2.0).fit(held, labels).coef_[0]
    assert weights[1] - weights[0] == pytest.approx(two, abs=1e-4)
    assert weights[2] == pytest.approx(np.zeros(4), abs=1e-4)


def test_a_fit_that_could_not_stand_a_missing_class_is_refused() -> None:
    clients = {"a": (np.eye(4), np.array([0, 1, 0, 1]))}
    with pytest.raises(Misuse, match=r"LogisticRegression: expected .* no class_weight"):
        from_sklearn(LogisticRegression(class_weight="balanced"), clients, classes=[0, 1])


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
