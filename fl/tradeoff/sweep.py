"""The cells of a sweep, from a run's configuration and its table [tradeoff], in the order in which they are played.

What does not belong here: playing them.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fl.run_config import RunConfig, make_config, read_toml
from protocols.errors import Misuse

NONE = "none"
BESIDE = ("layer", "epsilon", "clip", "search")
"""Keys of a tuned table that are no keys of a run."""


@dataclass(frozen=True)
class Axes:
    """What is varied; every combination that its layers allow is a cell.

    layers: of differential privacy, by name with options; "none" for runs without. epsilons: numbers above 0, which
    each layer is calibrated for; "none" for a run without a layer. sums: secure sums; those that are exact share one
    training. private_sums: those behind a layer, where every sum is a run of its own; () for the same. compression:
    layers before the sum, "none" for none. strategies, dropouts: as keys of a run. seeds: how many, counted up from the
    run's own. tuned: tables with `layer`, `epsilon`, its `clip` and keys of a run, as a search found them (`search`).
    """

    layers: tuple[str, ...] = (NONE, "sample-dp", "client-dp", "distributed-dp", "local-dp")
    epsilons: tuple[float | str, ...] = (NONE, 8.0, 1.0, 4.0, 2.0)
    sums: tuple[str, ...] = ("none", "secagg+")
    private_sums: tuple[str, ...] = ()
    compression: tuple[str, ...] = (NONE,)
    strategies: tuple[str, ...] = ("fedavg",)
    dropouts: tuple[float, ...] = (0.0,)
    seeds: int = 3
    tuned: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int) or isinstance(self.seeds, bool) or self.seeds < 1:
            raise Misuse(f"seeds: expected a whole number from 1, got {self.seeds!r}")
        for name in ("layers", "epsilons", "sums", "compression", "strategies", "dropouts"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value or len(set(value)) < len(value):
                raise Misuse(f"{name}: expected a list of different values, at least one, got {value!r}")
        for epsilon in self.epsilons:
            if epsilon != NONE and (
                isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not epsilon > 0
            ):
                raise Misuse(f'epsilons: expected numbers above 0 or "none", got {epsilon!r}')
        known = {*BESIDE, *(item.name for item in fields(RunConfig))}
        for item in self.tuned:
            if not {"layer", "epsilon"} <= set(item) <= known:
                raise Misuse(f"tuned: expected layer, epsilon, clip and keys of a run, got {sorted(item)}")


@dataclass(frozen=True)
class Cell:
    """One combination. config: the run's, without its folder. search: how its settings were found, None where nobody
    searched.
    """

    layer: str
    epsilon: float | str
    sum: str
    compression: str
    strategy: str
    dropout: float
    seed: int
    config: RunConfig
    search: Mapping[str, Any] | None = None

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
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("config", "search")
        }


@dataclass(frozen=True)
class Sweep:
    """A configuration, what is varied, and what a search varies (the table [tradeoff.search]; None without one).

    tuned: the file that a search writes and a sweep reads, or None.
    """

    config: RunConfig
    axes: Axes
    search: Mapping[str, Any] | None = None
    tuned: Path | None = None


def read(path: Path) -> Sweep:
    """Read a run's TOML file with a table [tradeoff]. Raises Misuse for keys that nobody knows."""
    values = read_toml(path, beside=("tradeoff",))
    told = dict(values.pop("tradeoff", {}))
    search, named = told.pop("search", None), told.get("tuned")
    tuned = path.parent / named if isinstance(named, str) else None
    if tuned is not None:
        told["tuned"] = tomllib.loads(tuned.read_text())["tuned"] if tuned.is_file() else []
    return Sweep(make_config(None, values), axes(told), search, tuned)


def axes(given: Mapping[str, Any]) -> Axes:
    """Return the axes of a table [tradeoff]; what it leaves out is as usual."""
    known = [item.name for item in fields(Axes)]
    if unknown := sorted(set(given) - set(known)):
        raise Misuse(f"[tradeoff]: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return Axes(**listed)


def coarse_to_fine(sweeps: Sequence[Sweep]) -> list[tuple[int, list[Cell]]]:
    """The groups of several sweeps with their sweep's number: one seed of all of them comes before the next."""
    listed = [(at, group) for at, sweep in enumerate(sweeps) for group in groups(sweep.config, sweep.axes)]

    def fineness(entry: tuple[int, list[Cell]]) -> tuple[int, int]:
        sweep, cell = sweeps[entry[0]], entry[1][0]
        return cell.seed - sweep.config.seed, sweep.axes.epsilons.index(cell.epsilon)

    return sorted(listed, key=fineness)


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
        own = tuned(chosen, layer, epsilon)
        clip = {"clip": own["clip"]} if "clip" in own else {}
        keys = {key: value for key, value in own.items() if key not in BESIDE}
        for total in chosen.sums if layer == NONE else chosen.private_sums or chosen.sums:
            seed = config.seed + offset
            made = replace(
                config,
                **keys,
                seed=seed,
                dropout=dropout,
                strategy=strategy,
                privacy=stack(config.privacy, layer, epsilon, compression, total, clip),
                output=None,
            )
            facts = (layer, epsilon, total, compression, strategy, dropout, seed)
            cells.append(Cell(*facts, made, own.get("search")))
        # Where clients are left out a sum's own least of survivors decides which rounds there are.
        whole = layer == NONE and not dropout and config.fraction == 1 and config.sampling == "fixed"
        found += [cells] if whole else [[cell] for cell in cells]
    return found


def tuned(chosen: Axes, layer: str, epsilon: float | str) -> Mapping[str, Any]:
    """What a search found for a layer and epsilon; for one that was not searched the next larger epsilon's. Empty where
    there is none.
    """
    found = {item["epsilon"]: item for item in chosen.tuned if item["layer"] == layer}
    larger = [e for e in found if not isinstance(e, str) and not isinstance(epsilon, str) and e >= epsilon]
    own = found.get(epsilon) or found.get(min(larger, default=NONE)) or {}
    return {**own, "search": _whole(own["search"], found)} if "search" in own else own


def _whole(search: Mapping[str, Any], found: Mapping[float | str, Mapping[str, Any]]) -> dict[str, Any]:
    """A table's search with those of larger epsilons that it began from (`after`): what all of them spent, and how many
    trials they played; neither where one of them does not say what it spent.
    """
    came = [search]
    for _ in found:
        if "after" in came[-1]:
            came.append(found.get(came[-1]["after"], {}).get("search", {}))
    told = {key: value for key, value in search.items() if key not in ("spent", "after")}
    if all("spent" in each for each in came):
        told["spent"] = [entry for each in reversed(came) for entry in each["spent"]]
        told["played"] = sum(each["trials"] for each in came)
    return told


def stack(
    own: Sequence[Any],
    layer: str,
    epsilon: float | str,
    compression: str,
    total: str,
    options: Mapping[str, Any],
) -> tuple[Any, ...]:
    """The run's layers: the user's own ones that are no sum first, then what the cell adds, `options` to its layer."""
    told = ",".join(f"{key}={value}" for key, value in {"epsilon": epsilon, **options}.items())
    priced = NONE if layer == NONE else f"{layer}{',' if ':' in layer else ':'}{told}"
    return tuple(item for item in (*own, compression, priced, total) if item != NONE) or (NONE,)
