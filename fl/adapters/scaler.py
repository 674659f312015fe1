"""The scaling of inputs by federated statistics: one secure sum of means and mean squares.

What does not belong here: what is trained on the scaled inputs (`sklearn`).
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.preprocessing import StandardScaler

from fl.adapters.array_data import Array
from fl.adapters.numpy import from_numpy
from fl.adapters.pairs import first_of, inputs_of
from fl.adapters.wrapping import Clients, each
from protocols.errors import Misuse


def fit_scaler(scaler: Any, clients: Clients, *, bounds: float | Array, **options: Any) -> Any:
    """Fit a StandardScaler to the examples of all clients together, and return it; `scaler.result_` is the run's
    Result.

    One secure sum holds every client's mean and mean square, each counted by its examples.

    - scaler: a `sklearn.preprocessing.StandardScaler`.
    - clients: (x, y) or x by name, x float [n, features]; or a function `data_for(client, config)`, with
      names=[...].
    - bounds: public, > 0: the largest |x|, one number or one for each feature. A client's mean or mean square
      beyond it is clipped, and a warning says so. A second warning names features whose deviation is so small that
      rounding shows: at 32 bits, below 1/4000 of the bound it is known to a per cent or worse, and below 1/27000 it
      counts as none.
    - options: of `Federation`; layers of client-level noise noise the statistics and charge for them.

    Raises Misuse for another scaler, for bounds that are none, for a round without a total, and what `Federation`
    raises.

        clients = {"a": (xa, ya), "b": (xb, yb), "c": (xc, yc)}
        scaler = fit_scaler(StandardScaler(), clients, bounds=10.0, privacy=[SecAgg()])
    """
    if type(scaler) is not StandardScaler:
        raise Misuse(
            f"scaler: expected a StandardScaler, whose statistics are sums, got {type(scaler).__name__}"
        )
    most = np.atleast_1d(np.asarray(bounds, np.float64))
    if most.ndim != 1 or not (np.isfinite(most) & (most > 0)).all():
        raise Misuse(f"bounds: expected finite numbers > 0, one or one for each feature, got {bounds!r}")
    width = first_of(clients, most.size if most.size > 1 else None).features

    def statistics(weights: dict[str, Array], inputs: Any) -> dict[str, Array]:
        if not inputs.shape[0]:
            return weights
        sparse: bool = issparse(inputs)
        scaled = np.asarray(inputs.toarray() if sparse else inputs, np.float64) / most
        return {"mean": scaled.mean(axis=0), "square": (scaled**2).mean(axis=0)}

    zeros = {"mean": np.zeros(width), "square": np.zeros(width)}
    held = each(clients, lambda whose, data: inputs_of(whose, data, width))
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
