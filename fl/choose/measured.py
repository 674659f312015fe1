"""What was measured of sums and layers, from `measured.json`, which `python -m benchmarks tradeoff --table` makes of
docs/results. What does not belong here: rules.
"""

import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from dp.layering import DEFAULT_DELTA
from fl.choose.case import Case


@cache
def table() -> dict[str, Any]:
    """The packaged table: `sums`, a row for each, and `layers`, rows of a layer's noise and what it left."""
    loaded: dict[str, Any] = json.loads((files("fl.choose") / "measured.json").read_text())
    return loaded


def kept(layer: str, case: Case) -> float:
    """The share of the accuracy without noise that a layer is expected to keep, from rows that were measured.

    At client level the noise on the mean update over the longest mean update says it, whatever clients, parameters and
    rounds made it (`dp.suggest`); at example level epsilon alone does. Between rows, on a log scale.
    """
    if layer == "none" or case.epsilon is None:
        return 1.0
    if layer == "sample-dp":
        rows = [(1 / row["epsilon"], row["kept"]) for row in table()["layers"] if row["layer"] == layer]
        return _between(rows, 1 / case.epsilon)
    rows = [(row["ratio"], row["kept"]) for row in table()["layers"] if row["layer"] != "sample-dp"]
    return _between(rows, ratio(layer, case))


def ratio(layer: str, case: Case) -> float:
    """Noise over signal of a client-level layer in a case (`dp.suggest`)."""
    from dp import suggest

    found = suggest(
        population=case.clients,
        cohort=case.survivors,
        rounds=case.rounds,
        dimension=case.parameters,
        epsilon=case.epsilon or math.inf,
        delta=DEFAULT_DELTA,
        layer=layer,
    )
    return found.ratio


def _between(rows: list[tuple[float, float]], noise: float) -> float:
    """What is kept at a noise, between rows of (noise, kept) by its logarithm: more noise never keeps more, and outside
    the rows the nearest one holds.
    """
    ordered = sorted(rows)
    least = np.minimum.accumulate([value for _, value in ordered])
    return float(np.interp(math.log(noise), [math.log(at) for at, _ in ordered], least))
