"""The cells of a sweep, from a run's configuration and its table [tradeoff], in the order in which they are played.

What does not belong here: playing them.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fl.run_config import RunConfig, make_config, read_toml
from protocols.errors import Misuse

NONE = "none"


@dataclass(frozen=True)
class Axes:
    """What is varied; every combination that its layers allow is a cell.

    layers: of differential privacy, by name with options; "none" for runs without. epsilons: numbers above 0, which
    each layer is calibrated for; "none" for a run without a layer. sums: secure sums; those that are exact share one
    training. compression: layers before the sum, "none" for none. strategies, dropouts: as keys of a run. seeds: how
    many, counted up from the run's own.
    """

    layers: tuple[str, ...] = (NONE, "sample-dp", "client-dp", "distributed-dp", "local-dp")
    epsilons: tuple[float | str, ...] = (NONE, 8.0, 1.0, 4.0, 2.0)
    sums: tuple[str, ...] = ("none", "secagg+")
    compression: tuple[str, ...] = (NONE,)
    strategies: tuple[str, ...] = ("fedavg",)
    dropouts: tuple[float, ...] = (0.0,)
    seeds: int = 3

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "seeds":
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    raise Misuse(f"seeds: expected a whole number from 1, got {value!r}")
            elif not isinstance(value, tuple) or not value or len(set(value)) < len(value):
                raise Misuse(f"{item.name}: expected a list of different values, at least one, got {value!r}")
        for epsilon in self.epsilons:
            if epsilon != NONE and (
                isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not epsilon > 0
            ):
                raise Misuse(f'epsilons: expected numbers above 0 or "none", got {epsilon!r}')


@dataclass(frozen=True)
class Cell:
    """One combination. config: the run's, without its folder."""

    layer: str
    epsilon: float | str
    sum: str
    compression: str
    strategy: str
    dropout: float
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """The folder's name: what a reader knows it by, and a digest of the whole configuration."""
        parts = [self.layer.partition(":")[0], f"eps-{self.epsilon}", self.sum.partition(":")[0]]
        digest = hashlib.sha256(json.dumps(self.config.to_toml(), sort_keys=True).encode()).hexdigest()[:8]
        return "_".join([*parts, f"seed-{self.seed}", digest])

    @property
    def noisy(self) -> bool:
        return self.layer != NONE

    @property
    def facts(self) -> dict[str, Any]:
        """The axes' values, for the row."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "config"}


def read(path: Path) -> tuple[RunConfig, Axes]:
    """Read a run's TOML file with a table [tradeoff]. Raises Misuse for keys that nobody knows."""
    values = read_toml(path, beside=("tradeoff",))
    told = values.pop("tradeoff", {})
    return make_config(None, values), axes(told)


def axes(given: Mapping[str, Any]) -> Axes:
    """Return the axes of a table [tradeoff]; what it leaves out is as usual."""
    known = [item.name for item in fields(Axes)]
    if unknown := sorted(set(given) - set(known)):
        raise Misuse(f"[tradeoff]: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return Axes(**listed)


def groups(config: RunConfig, chosen: Axes) -> list[list[Cell]]:
    """Every cell, in groups that share one training (the first of each plays it), coarse to fine: sums are exact, and
    everybody is in every round.

    One seed of everything comes before the next seed; within a seed the epsilons come as they were named, so that a
    stop at any time leaves whole fronts.
    """
    found: list[list[Cell]] = []
    kinds = [(layer, e) for e in chosen.epsilons for layer in chosen.layers if (layer == NONE) == (e == NONE)]
    outer = itertools.product(
        range(chosen.seeds), kinds, chosen.dropouts, chosen.strategies, chosen.compression
    )
    for offset, (layer, epsilon), dropout, strategy, compression in outer:
        cells = []
        for total in chosen.sums:
            seed = config.seed + offset
            made = replace(
                config,
                seed=seed,
                dropout=dropout,
                strategy=strategy,
                privacy=_stack(config.privacy, layer, epsilon, compression, total),
                output=None,
            )
            cells.append(Cell(layer, epsilon, total, compression, strategy, dropout, seed, made))
        # Where clients are left out a sum's own least of survivors decides which rounds there are.
        whole = layer == NONE and not dropout and config.fraction == 1 and config.sampling == "fixed"
        found += [cells] if whole else [[cell] for cell in cells]
    return found


def _stack(
    own: Sequence[Any], layer: str, epsilon: float | str, compression: str, total: str
) -> tuple[Any, ...]:
    """The run's layers: the user's own ones that are no sum first, then what the cell adds."""
    priced = NONE if layer == NONE else f"{layer}{',' if ':' in layer else ':'}epsilon={epsilon}"
    return tuple(item for item in (*own, compression, priced, total) if item != NONE) or (NONE,)
