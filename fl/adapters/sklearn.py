"""Linear models and perceptrons of scikit-learn.

What belongs here: estimators that go on from their coefficients, by `partial_fit` or a warm start. What does not:
trees, neighbours and whatever else no average is made of.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.sparse import vstack as scipy_vstack
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils.validation import has_fit_parameter

from fl import arguments
from fl.adapters.array_data import Array, Arrays, ClientData, no_outputs
from fl.adapters.numpy import OWN_STEPS
from fl.adapters.pairs import Shown, first_of, pair_of
from fl.adapters.wrapping import Clients, each, federated
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
                estimator.fit(*_of_every_class(estimator, x, y))
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
    """Return a federation around a scikit-learn estimator; `result.model.estimator()` is the fitted one.

    - estimator: a classifier or regressor with `coef_` and `intercept_` (`coefs_`, `intercepts_`) that goes on from
      them: by `partial_fit` (SGDClassifier, SGDRegressor, Perceptron, MLPClassifier), or by `fit` with `warm_start`
      (LogisticRegression: few iterations, such as max_iter=5, where clients lack classes; no
      class_weight="balanced"). The run begins with what it learned, else linear models begin with zeros.
    - clients: (x, y) by name, x float [n, features], y [n]; or a function `data_for(client, config)`, with
      names=[...].
    - classes: all labels there are, public; a classifier needs them (default: None).
    - features: a public number, needed with `data_for` (default: None).
    - test: (x, y) for `score` (default: None).
    - options: of `Federation`; local_epochs are passes per round, bits is 24 and range 256 unless given.

    Raises Misuse for an estimator that is none of these, and what `Federation` raises.

        clients = {"a": (xa, ya), "b": (xb, yb), "c": (xc, yc)}
        federation = from_sklearn(SGDClassifier(), clients, classes=[0, 1], privacy=[SecAgg()])
        model = federation.fit(rounds=10).model.estimator()
    """
    arguments.no_class("estimator", estimator)
    no_outputs(options)
    first = first_of(clients, features)
    template = _template(estimator, classes, first)
    measure = "accuracy" if is_classifier(template) else "r2"

    def measured(model: Coefficients, loader: ClientData, criterion: Any, device: Any) -> dict[str, float]:
        return {measure: model.estimator().score(*loader.data)}

    def checked(whose: str, data: Any) -> ClientData:
        x, y = pair_of(whose, data, template, first.outputs)
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
    if not hasattr(estimator, "partial_fit") and is_classifier(estimator):
        _require_weights(estimator)
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


def _require_weights(estimator: Any) -> None:
    """Raises Misuse for a classifier whose `fit` could not stand a class that a client lacks."""
    if (
        not has_fit_parameter(estimator, "sample_weight")
        or getattr(estimator, "class_weight", None) == "balanced"
    ):
        raise Misuse(
            f'{type(estimator).__name__}: expected a fit() that takes sample_weight, and no class_weight="balanced", '
            "which has no number for a class that a client lacks: give class_weight as a dict, or take SGDClassifier"
        )


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


def _of_every_class(template: Any, x: Any, y: Array) -> tuple[Any, ...]:
    """Return examples, and of a classifier their weights with a row of zeros of no weight for each class that is not
    among them: `fit` knows those that it sees alone, and a client that failed for one it lacks would tell its labels.
    """
    if not is_classifier(template):
        return x, y
    missing = np.setdiff1d(template.classes_, y)
    stack: Any = scipy_vstack if issparse(x) else np.vstack
    rows = stack([x, np.zeros((len(missing), x.shape[1]), x.dtype)])
    return rows, np.append(y, missing), np.repeat([1.0, 0.0], [len(y), len(missing)])
