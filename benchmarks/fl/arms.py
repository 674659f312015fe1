"""Arms of a long case: each is a run of its own, and a case that is stopped goes on with the arms that are left.

What does not belong here: what an arm runs, tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from benchmarks import harness

Arm = Callable[[], dict[str, Any]]


def play(
    case: str,
    arguments: dict[str, Any],
    arms: Mapping[str, Arm],
    seed: int,
    *,
    as_json: bool,
    save: bool,
    only: str = "*",
) -> None:
    """Run the arms that are not kept yet, and end the command. With `save` each is kept as soon as it is over; rows
    of a run with the same arguments and seed are taken as they are, but for one that says how many rounds are `left`.
    only: a pattern (as of a shell) of the arms to run; an arm that returns nothing has no row.
    """
    rows = _kept(case, arguments, seed) if save else {}
    for name, arm in arms.items():
        if not fnmatchcase(name, only):
            continue
        if name in rows and not rows[name].get("left"):
            print(f"{case}: {name} is kept", file=sys.stderr)
            continue
        if not (found := arm()):
            continue
        rows[name] = {"arm": name, **found}
        print(f"{case}: {rows[name]}", file=sys.stderr)
        if save:  # another process may have kept others meanwhile
            rows |= _kept(case, arguments, seed)
            harness.write(_result(case, arguments, rows, seed))
    ordered = {name: rows[name] for name in arms if name in rows}
    harness.finish(_result(case, arguments, ordered, seed), as_json=as_json, save=save)


def _result(case: str, arguments: dict[str, Any], rows: Mapping[str, dict[str, Any]], seed: int) -> Any:
    figures = {"rows": [row | _over_seeds(name, rows) for name, row in rows.items()]}
    return harness.result("fl", case, arguments=arguments, figures=figures, seed=seed)


def _over_seeds(name: str, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return mean and extremes of the accuracy over the seeds of an arm, as far as these are played to their end."""
    arm, seeded, _ = name.rpartition(", seed ")
    beside = [row for other, row in rows.items() if other.rpartition(", seed ")[0] == arm]
    found = [row["accuracy"] for row in beside if not row.get("left")]
    extremes = {"mean": mean(found), "least": min(found), "most": max(found)} if found else {}
    return {"over_seeds": {"arm": arm, "seeds": len(found), **extremes}} if seeded else {}


def _kept(case: str, arguments: dict[str, Any], seed: int) -> dict[str, dict[str, Any]]:
    path = harness.RESULTS / f"fl.{case}.json"
    if not path.exists():
        return {}
    kept = harness.read(path)
    same = kept.arguments == arguments and kept.seed == seed
    return {row["arm"]: row for row in kept.figures["rows"]} if same else {}


def loader(x: np.ndarray, y: np.ndarray, size: int, *, shuffle: bool) -> DataLoader[Any]:
    """Return a loader of (float32 inputs, int64 labels) in batches of `size`."""
    rows = TensorDataset(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.array(y, np.int64)))
    order = RandomSampler(rows) if shuffle else SequentialSampler(rows)
    return DataLoader(rows, batch_size=None, sampler=BatchSampler(order, size, drop_last=False))
