"""Linear models and perceptrons of scikit-learn, and the scaling of their inputs by federated statistics.

What belongs here: estimators that go on from their coefficients, by `partial_fit` or a warm start. What does not:
trees, neighbours and whatever else no average is made of.
"""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.preprocessing import StandardScaler

from fl import arguments
from fl.adapters.arrays import Array, Arrays, ClientData, Clients, no_outputs, wrapped
from fl.adapters.numpy import OWN_STEPS, from_numpy
from fl.federation import Federation
from protocols.errors import Misuse

LEARNED = ("coef_", "intercept_", "coefs_", "intercepts_")
"""The attributes that travel: of linear models, and of perceptrons with hidden layers."""
RANGE = 256.0
"""What a coefficient moves by in a round, at most: the first steps of SGDClassifier's own schedule are long."""


class Coefficients(Arrays):
    """An estimator's coefficients. template: fitted, so that it knows its classes and shapes."""

    def __init__(self, template: Any) -> None:
        super().__init__(_coefficients(template))
        self._template = template

    def estimator(self) -> Any:
        """Return a fitted estimator of one's own with these coefficients."""
        made = deepcopy(self._template)
        for name, array in self.weights().items():
            attribute, _, place = name.partition(".")
            if place:
                getattr(made, attribute)[int(place)] = array
            else:
                setattr(made, attribute, array)
        return made


class EstimatorLoop:
    """One pass over a client's examples, from the broadcast coefficients. epochs: passes per round; a schedule by the
    number of steps (`t_`) goes on from round to round.
    """

    own_steps = OWN_STEPS

    def __init__(self, template: Any, epochs: int) -> None:
        self.func, self.epochs = template, epochs

    def __call__(self, model: Coefficients, loader: ClientData, epoch: int, round: int) -> None:
        if not len(loader):
            return
        estimator = model.estimator()
        x, y = _examples(loader.data, estimator)
        if hasattr(estimator, "t_"):
            passes = (round - 1) * self.epochs + epoch
            estimator.t_ += passes * len(loader)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged after one pass is no news
            if hasattr(estimator, "partial_fit"):
                estimator.partial_fit(x, y)
            else:
                _require_all_classes(estimator, y)
                estimator.fit(x, y)
        model.take(_coefficients(estimator), type(estimator).__name__)


def from_sklearn(
    estimator: Any,
    clients: Clients,
    *,
    classes: Sequence[Any] | None = None,
    features: int | None = None,
    test: Any = None,
    **options: Any,
) -> Federation:
    """Return a federation around an estimator; `result.model.estimator()` is the fitted one.

    estimator: a classifier or regressor with `coef_` and `intercept_` (`coefs_`, `intercepts_`) that goes on from them:
    by `partial_fit` (SGDClassifier, SGDRegressor, Perceptron, MLPClassifier), or by `fit` with `warm_start`
    (LogisticRegression; then every client needs examples of every class). One that is fitted already is where the run
    begins; else linear models begin with zeros. clients: (x, y) by name, or `data_for(client_id, config)` with `names`;
    x float [n, features], y [n]. classes: all labels there are, public; a classifier needs them. features: a public
    number, needed with `data_for`. test: (x, y) for `score`. options: of `Federation`; `local_epochs` are passes per
    round; bits is 24 and range 256 unless given.

    Raises Misuse for an estimator that is none of these, and as `Federation` does.

        federation = from_sklearn(SGDClassifier(), {"a": (xa, ya), "b": (xb, yb)}, classes=[0, 1], privacy=[SecAgg()])
        model = federation.fit(rounds=10).model.estimator()
    """
    arguments.no_class("estimator", estimator)
    no_outputs(options)
    pairs = _pairs(clients)
    template = _template(estimator, classes, features or _features(clients, None), pairs)
    for name, data in pairs.items():
        try:
            _examples(data, template)
        except Misuse as error:
            raise Misuse(f"client {name!r}: {error}") from None
    measure = "accuracy" if is_classifier(template) else "r2"

    def measured(model: Coefficients, loader: ClientData, criterion: Any, device: Any) -> dict[str, float]:
        return {measure: model.estimator().score(*loader.data)}

    given = {"metrics": (), "bits": 24, "range": RANGE, **options}
    return Federation(
        partial(Coefficients, template),
        wrapped(clients),
        EstimatorLoop(template, given.get("local_epochs", 1)),
        test=None if test is None else ClientData(test),
        evaluate=None if test is None else measured,
        **given,
    )


def fit_scaler(scaler: Any, clients: Clients, *, bounds: float | Array, **options: Any) -> Any:
    """Fit a StandardScaler to the examples of all clients together, and return it.

    One secure sum of every client's mean and mean square, each counted by its examples. clients: (x, y) or x by name,
    or `data_for(client_id, config)` with `names`. bounds: public, > 0: |x| is at most so much, one number or one for
    each feature; a client's mean or mean square beyond it is clipped, and a warning says so. A variance below
    bound^2 / 2^(bits - 2) counts as none, and is not exact not far above: give bounds near the values, and shift a
    feature whose mean is large beside its spread. options: of `Federation`;
    layers of client-level DP noise the statistics and charge for them. `scaler.result_` is the run's Result.

    Raises Misuse for another scaler, for bounds that are none, for a round without a total, and as `Federation` does.

        scaler = fit_scaler(StandardScaler(), {"a": (xa, ya), "b": (xb, yb)}, bounds=10.0, privacy=[SecAgg()])
    """
    if type(scaler) is not StandardScaler:
        raise Misuse(
            f"scaler: expected a StandardScaler, whose statistics are sums, got {type(scaler).__name__}"
        )
    most = np.atleast_1d(np.asarray(bounds, np.float64))
    if most.ndim != 1 or not (np.isfinite(most) & (most > 0)).all():
        raise Misuse(f"bounds: expected finite numbers > 0, one or one for each feature, got {bounds!r}")
    width = _features(clients, most.size if most.size > 1 else None)

    def statistics(weights: dict[str, Array], data: Any) -> dict[str, Array]:
        inputs = _inputs(data, width)
        if not len(inputs):
            return weights
        scaled = np.asarray(inputs, np.float64) / most
        return {"mean": scaled.mean(axis=0), "square": (scaled**2).mean(axis=0)}

    zeros = {"mean": np.zeros(width), "square": np.zeros(width)}
    given = {"bits": 32, "range": 1.0, **options}
    result = from_numpy(zeros, statistics, clients, **given).fit(rounds=1)
    if abandoned := result.history[0].abandoned:
        raise Misuse(f"the round of statistics was abandoned: {abandoned}")
    summed = result.model.weights()
    scaler.mean_ = summed["mean"] * most
    spread = summed["square"] - summed["mean"] ** 2
    step = 2.0 ** (2 - given["bits"])  # what the sum cannot tell from a constant column
    variance = np.where(spread > step, spread, 0.0) * most**2
    scaler.var_ = variance if scaler.with_std else None
    scaler.scale_ = np.where(variance > 0, np.sqrt(variance), 1.0) if scaler.with_std else None
    scaler.n_features_in_, scaler.result_ = width, result
    return scaler


def _features(clients: Clients, given: int | None) -> int:
    if given is not None:
        return given
    if not isinstance(clients, Mapping | Sequence) or not clients:
        raise Misuse("features: say how many there are, for no client's data is here")
    data = next(iter(clients.values() if isinstance(clients, Mapping) else clients))
    return int(_inputs(data).shape[1])


def _inputs(data: Any, width: int | None = None) -> Any:
    """A client's inputs. Raises Misuse unless they have two dimensions, and `width` features where it is given."""
    x = data[0] if isinstance(data, tuple | list) else data
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2 or width not in (None, shape[1]):
        raise Misuse(
            f"clients: expected (x, y) with x of shape (examples, {width or 'features'}), got "
            f"{type(x).__name__ if shape is None else shape}"
        )
    return x


def _pairs(clients: Clients) -> dict[Any, Any]:
    """Return the data of the clients that are here, by name."""
    if isinstance(clients, Mapping):
        return dict(clients)
    return dict(enumerate(clients)) if isinstance(clients, Sequence) and not isinstance(clients, str) else {}


def _examples(data: Any, template: Any) -> tuple[Any, Any]:
    """Return a client's x and y, x in the coefficients' type. Raises Misuse for what the estimator cannot learn from:
    it says no more of the data than shapes and labels.
    """
    if not _is_pair(data):
        raise Misuse(f"expected (x, y), got {type(data).__name__}")
    coefficients = _coefficients(template)
    first = coefficients.get("coefs_.0")
    width = coefficients["coef_"].shape[-1] if first is None else first.shape[0]
    x, y = _inputs(data, width), np.asarray(data[1])
    if x.shape[0] != len(y):
        raise Misuse(f"expected as many labels as examples, {x.shape[0]}, got {len(y)}")
    if isinstance(x, np.ndarray):
        x = x.astype(coefficients["coef_" if first is None else "coefs_.0"].dtype, copy=False)
        if not np.isfinite(x).all():
            raise Misuse("x holds NaN or infinity: remove or replace such values")
    if is_classifier(template) and not set(np.unique(y)) <= set(template.classes_):
        raise Misuse(
            f"classes: expected labels out of {template.classes_.tolist()}, got {np.unique(y).tolist()}"
        )
    return x, y


def _template(estimator: Any, classes: Sequence[Any] | None, features: int, pairs: Mapping[Any, Any]) -> Any:
    """Return a fitted estimator: the given one, or one of all classes that has learned nothing yet. Raises Misuse."""
    name = type(estimator).__name__
    goes_on = hasattr(estimator, "partial_fit") or "warm_start" in getattr(estimator, "get_params", dict)()
    if not (is_classifier(estimator) or is_regressor(estimator)) or not goes_on:
        raise Misuse(
            f"estimator: expected a classifier or regressor with partial_fit or warm_start, got {name}"
        )
    if getattr(estimator, "average", False):
        raise Misuse(
            f"{name}: leave out average=: the federation averages, and partial averages of steps do not travel"
        )
    if any(hasattr(estimator, attribute) for attribute in LEARNED):
        return _going_on(deepcopy(estimator))
    if is_classifier(estimator) and (classes is None or len(set(classes)) < 2):
        raise Misuse(f"classes: {name} needs all labels that there are, two or more, e.g. classes=[0, 1]")
    made = _going_on(clone(estimator))
    outputs = next((np.shape(data[1])[1:] for data in pairs.values() if _is_pair(data)), ())
    labels = np.unique(np.asarray(classes)) if is_classifier(made) else np.zeros((2, *outputs))
    nothing = np.zeros((len(labels), features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not hasattr(made, "partial_fit"):
            made.fit(nothing, labels)
        elif is_classifier(made):
            made.partial_fit(nothing, labels, classes=labels)
        else:
            made.partial_fit(nothing, labels)
    if hasattr(made, "t_"):
        made.t_ -= len(labels)  # no step was taken yet
    if "coef_" in vars(made):
        made.coef_, made.intercept_ = np.zeros_like(made.coef_), np.zeros_like(made.intercept_)
    return made


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2


def _going_on(estimator: Any) -> Any:
    return estimator if hasattr(estimator, "partial_fit") else estimator.set_params(warm_start=True)


def _coefficients(estimator: Any) -> dict[str, Array]:
    """Return the learned arrays by name; entry i of a list as "name.i". Raises Misuse where there are none."""
    found: dict[str, Array] = {}
    for name in LEARNED:
        value = vars(estimator).get(name)
        if isinstance(value, list):
            found |= {f"{name}.{place}": array for place, array in enumerate(value)}
        elif value is not None:
            found[name] = np.asarray(value)
    if not any(name.startswith("coef") for name in found):
        raise Misuse(f"{type(estimator).__name__} learns no coef_ or coefs_: there is nothing to average")
    return found


def _require_all_classes(template: Any, labels: Any) -> None:
    """Raises Misuse unless a client holds every class, which `fit` needs."""
    if is_classifier(template) and not np.array_equal(template.classes_, np.unique(labels)):
        raise Misuse(
            f"{type(template).__name__}: this client's labels are {np.unique(labels).tolist()} of "
            f"{template.classes_.tolist()}, and fit() needs all of them at every client; an estimator with partial_fit "
            "does not"
        )
