"""A client's inputs and outputs as tables of numbers: what they show of all, and what is wrong with them, by its name.

What does not belong here: estimators and statistics (`sklearn`, `scaler`). What is refused is never quoted: it may be
said to others than its owner.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier

from fl.adapters.array_data import Array
from fl.adapters.wrapping import Clients
from protocols.errors import Misuse, require


class Shown(NamedTuple):
    """What a client's data shows of all: how many features and outputs (none: one number each), and of which floats."""

    features: int
    outputs: tuple[int, ...] = ()
    dtype: Any = np.float64


def first_of(clients: Clients, features: int | None) -> Shown:
    """Return what the first client shows. Raises Misuse where no data is here, and `features` is not given."""
    if not isinstance(clients, Mapping | Sequence) or not clients:
        if features is None:
            raise Misuse("features: say how many there are, for no client's data is here")
        return Shown(features)
    name, data = next(iter(clients.items() if isinstance(clients, Mapping) else enumerate(clients)))
    x = inputs_of(f"client {str(name)!r}", data, features)
    y = _outputs(data[1]) if isinstance(data, tuple | list) and len(data) == 2 else np.zeros(0)
    dtype = np.float32 if getattr(x, "dtype", None) == np.float32 else np.float64
    return Shown(x.shape[1], y.shape[1:], dtype)


def inputs_of(whose: str, data: Any, width: int | None = None) -> Any:
    """A client's inputs. Raises Misuse unless they have two dimensions, and `width` features where it is given."""
    x = data[0] if isinstance(data, tuple | list) and len(data) else data
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2 or width not in (None, shape[1]):
        raise Misuse(
            f"{whose}: expected (x, y) with x of shape (examples, {width or 'features'}), got "
            f"{type(x).__name__ if shape is None else tuple(shape)}"
        )
    require_finite(whose, x)
    return x


def _outputs(y: Any) -> Array:
    """A client's labels or targets as an array; one column is none."""
    made = np.asarray(y)
    return made[:, 0] if made.ndim == 2 and made.shape[1] == 1 else made


def pair_of(whose: str, data: Any, template: Any, outputs: tuple[int, ...]) -> tuple[Any, Array]:
    """A client's (x, y). Raises Misuse naming it for whatever the estimator would stumble over."""
    x = inputs_of(whose, data, template.n_features_in_)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise Misuse(f"{whose}: expected (x, y), two parts: give the labels or targets beside x")
    y, wanted = _outputs(data[1]), (x.shape[0], *outputs)
    require(y.shape == wanted, f"y of shape {wanted}, an entry for each row of x", y.shape, whose)
    if is_classifier(template) and not np.isin(y, template.classes_).all():
        raise Misuse(
            f"{whose}: holds labels that are not in classes={template.classes_.tolist()}: name all there are"
        )
    if not is_classifier(template):
        require_finite(whose, y)
    return x, y


def require_finite(whose: str, values: Any) -> None:
    """Raises Misuse, which quotes none of them, unless values are finite numbers."""
    sparse: bool = issparse(values)
    numbers = np.asarray(values.data if sparse else values)
    try:
        finite = bool(np.isfinite(numbers.astype(float) if numbers.dtype == object else numbers).all())
    except (TypeError, ValueError):
        finite = False
    require(finite, "finite numbers", "NaN, infinity or text: fill the gaps or leave them out", whose)
