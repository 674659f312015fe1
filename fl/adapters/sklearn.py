"""Linear models and perceptrons of scikit-learn, and the scaling of their inputs by federated statistics.

What belongs here: estimators that go on from their coefficients, by `partial_fit` or a warm start. What does not:
trees, neighbours and whatever else no average is made of.
"""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.preprocessing import StandardScaler

from fl import arguments
from fl.adapters.arrays import Array, Arrays, ClientData, no_outputs
from fl.adapters.federated import Clients, each, federated
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
        self._dtype = next(iter(_coefficients(template).values())).dtype

    def __call__(self, model: Coefficients, loader: ClientData, epoch: int, round: int) -> None:
        if not len(loader):
            return
        estimator = model.estimator()
        x, y = loader.data
        # solvers take no other floats beside their coefficients
        sparse: bool = issparse(x)
        x = x.astype(self._dtype, copy=False) if sparse else np.asarray(x, self._dtype)
        if hasattr(estimator, "t_"):
            passes = (round - 1) * self.epochs + epoch
            estimator.t_ += passes * len(loader)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged after one pass is no news
            if hasattr(estimator, "partial_fit"):
                estimator.partial_fit(x, y)
            else:
                _require_every_class(estimator, y)
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
    first = _first(clients, features)
    template = _template(estimator, classes, first)
    measure = "accuracy" if is_classifier(template) else "r2"

    def measured(model: Coefficients, loader: ClientData, criterion: Any, device: Any) -> dict[str, float]:
        return {measure: model.estimator().score(*loader.data)}

    def checked(whose: str, data: Any) -> ClientData:
        x, y = _pair(whose, data, template, first.outputs)
        return ClientData(whose, (x, y), len(y))

    return federated(
        partial(Coefficients, template),
        each(clients, checked),
        EstimatorLoop(template, options.get("local_epochs", 1)),
        None if test is None else checked("test", test),
        measured,
        options,
        bits=24,
        range=RANGE,
    )


def fit_scaler(scaler: Any, clients: Clients, *, bounds: float | Array, **options: Any) -> Any:
    """Fit a StandardScaler to the examples of all clients together, and return it.

    One secure sum of every client's mean and mean square, each counted by its examples. clients: (x, y) or x by name,
    or `data_for(client_id, config)` with `names`. bounds: public, > 0: |x| is at most so much, one number or one for
    each feature; a client's mean or mean square beyond it is clipped, and a warning says so. Another one names features
    whose spread is so small beside it that rounding shows: at 32 bits a deviation below 1/4000 of the bound is known to
    a per cent or worse, and one below 1/27000 counts as none. options: of `Federation`; layers of client-level DP noise
    the statistics and charge for them. `scaler.result_` is the run's Result.

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
    width = _first(clients, most.size if most.size > 1 else None).features

    def statistics(weights: dict[str, Array], inputs: Any) -> dict[str, Array]:
        if not inputs.shape[0]:
            return weights
        sparse: bool = issparse(inputs)
        scaled = np.asarray(inputs.toarray() if sparse else inputs, np.float64) / most
        return {"mean": scaled.mean(axis=0), "square": (scaled**2).mean(axis=0)}

    zeros = {"mean": np.zeros(width), "square": np.zeros(width)}
    held = each(clients, lambda whose, data: _inputs(whose, data, width))
    settings = {"bits": 32, "range": 1.0, **options}
    result = from_numpy(zeros, statistics, held, **settings).fit(rounds=1)
    if abandoned := result.history[0].abandoned:
        raise Misuse(f"the round of statistics was abandoned: {abandoned}")
    summed = result.model.weights()
    scaler.mean_ = summed["mean"] * most
    variance = _variance(summed, settings) * most**2
    scaler.var_ = variance if scaler.with_std else None
    scaler.scale_ = np.where(variance > 0, np.sqrt(variance), 1.0) if scaler.with_std else None
    scaler.n_features_in_, scaler.result_ = width, result
    return scaler


def _variance(summed: Mapping[str, Array], settings: Mapping[str, Any]) -> Array:
    """Mean square less the square of the mean, in units of the bounds; 0 where rounding alone may have made it: of the
    mean square by a step, and of the mean, at most 1 and squared, by a step twice. Warns where that is not small.
    """
    rounding = 3 * 2 * settings["range"] / 2.0 ** settings["bits"]
    variance = np.maximum(summed["square"] - summed["mean"] ** 2, 0.0)
    if (near := np.flatnonzero((summed["square"] != 0) & (variance < 50 * rounding))).size:
        warnings.warn(
            f"features {near.tolist()}: their variance is below {50 * rounding:.1g} of squared bounds: rounding, or "
            f"a layer's noise, moves their scale by a per cent or more (below {rounding:.1g} they count as constant): "
            "subtract a public number first, and give narrower bounds",
            stacklevel=3,
        )
    return np.where(variance > rounding, variance, 0.0)


class Shown(NamedTuple):
    """What a client's data shows of all: how many features and outputs (none: one number each), and of which floats."""

    features: int
    outputs: tuple[int, ...] = ()
    dtype: Any = np.float64


def _first(clients: Clients, features: int | None) -> Shown:
    """Return what the first client shows. Raises Misuse where no data is here, and `features` is not given."""
    if not isinstance(clients, Mapping | Sequence) or not clients:
        if features is None:
            raise Misuse("features: say how many there are, for no client's data is here")
        return Shown(features)
    name, data = next(iter(clients.items() if isinstance(clients, Mapping) else enumerate(clients)))
    x = _inputs(f"client {str(name)!r}", data, features)
    y = _outputs(data[1]) if isinstance(data, tuple | list) and len(data) == 2 else np.zeros(0)
    dtype = np.float32 if getattr(x, "dtype", None) == np.float32 else np.float64
    return Shown(x.shape[1], y.shape[1:], dtype)


def _inputs(whose: str, data: Any, width: int | None = None) -> Any:
    """A client's inputs. Raises Misuse unless they have two dimensions, and `width` features where it is given."""
    x = data[0] if isinstance(data, tuple | list) and len(data) else data
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2 or width not in (None, shape[1]):
        raise Misuse(
            f"{whose}: expected (x, y) with x of shape (examples, {width or 'features'}), got "
            f"{type(x).__name__ if shape is None else tuple(shape)}"
        )
    _require_finite(whose, x)
    return x


def _outputs(y: Any) -> Array:
    """A client's labels or targets as an array; one column is none."""
    made = np.asarray(y)
    return made[:, 0] if made.ndim == 2 and made.shape[1] == 1 else made


def _pair(whose: str, data: Any, template: Any, outputs: tuple[int, ...]) -> tuple[Any, Array]:
    """A client's (x, y). Raises Misuse naming it for whatever the estimator would stumble over."""
    x = _inputs(whose, data, template.n_features_in_)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise Misuse(f"{whose}: expected (x, y), two parts: give the labels or targets beside x")
    y, wanted = _outputs(data[1]), (x.shape[0], *outputs)
    if y.shape != wanted:
        raise Misuse(f"{whose}: expected y of shape {wanted}, an entry for each row of x, got {y.shape}")
    if is_classifier(template) and not np.isin(y, template.classes_).all():
        raise Misuse(
            f"{whose}: holds labels that are not in classes={template.classes_.tolist()}: name all there are"
        )
    if not is_classifier(template):
        _require_finite(whose, y)
    return x, y


def _require_finite(whose: str, values: Any) -> None:
    """Raises Misuse, which quotes none of them, unless values are finite numbers."""
    sparse: bool = issparse(values)
    numbers = np.asarray(values.data if sparse else values)
    try:
        finite = bool(np.isfinite(numbers.astype(float) if numbers.dtype == object else numbers).all())
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise Misuse(
            f"{whose}: expected finite numbers, got NaN, infinity or text: fill the gaps or leave them out"
        )


def _template(estimator: Any, classes: Sequence[Any] | None, shown: Shown) -> Any:
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
    labels = np.unique(np.asarray(classes)) if is_classifier(made) else np.zeros((2, *shown.outputs))
    nothing = np.zeros((len(labels), shown.features), shown.dtype)
    learn = getattr(made, "partial_fit", made.fit)
    if hasattr(made, "partial_fit") and is_classifier(made):
        learn = partial(learn, classes=labels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            learn(nothing, labels)
    except ValueError as error:  # which quotes zeros, if anything
        raise Misuse(
            f"{name} cannot begin with {shown.features} features and y like {labels[0]}: {error}"
        ) from None
    if hasattr(made, "t_"):
        made.t_ -= len(labels)  # no step was taken yet
    if "coef_" in vars(made):
        made.coef_, made.intercept_ = np.zeros_like(made.coef_), np.zeros_like(made.intercept_)
    return made


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


def _require_every_class(template: Any, labels: Any) -> None:
    """Raises Misuse unless a client holds every class, which `fit` needs."""
    if is_classifier(template) and not np.array_equal(template.classes_, np.unique(labels)):
        raise Misuse(
            f"{type(template).__name__}: fit() needs examples of all of {template.classes_.tolist()} at every client, "
            "and this one lacks some; an estimator with partial_fit does not"
        )
