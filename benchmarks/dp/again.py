"""Rows of docs/dp-layers.md measured again, beside what is kept: `python -m benchmarks.dp.again FILE.json ...`.

A row agrees if the two means differ by no more than their spread explains: Student's t over the seeds of both, at 1 in
10,000 false alarms a row, the variance pooled over rows of one layer or model. Of `mean`, 5,000 squared errors a row.
What does not belong here: measuring, and times, which follow the machine.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from scipy.stats import norm, t

from benchmarks import harness

ALARM = 1e-4
NAMES = ("model", "place", "layer", "clients", "epsilon")
SQUARES = 20 * 250
"""Errors in a row of `mean`: trials times coordinates."""


def compared(
    kept: list[dict[str, Any]], again: list[dict[str, Any]]
) -> list[tuple[str, float, float, float]]:
    """(row, kept mean, mean again, largest difference that agrees) for every row that is in both."""
    pairs = [(one, other) for one in kept for other in again if _key(one) == _key(other)]
    squares, freedom = defaultdict[str, float](float), defaultdict[str, int](int)
    for row in (row for pair in pairs for row in pair):
        scores = row.get("accuracies", [])
        if len(scores) > 1:
            squares[_group(row)] += statistics.variance(scores) * (len(scores) - 1)
            freedom[_group(row)] += len(scores) - 1
    found = []
    for one, other in pairs:
        if "ratio" in one:
            # sd of a root: half its square's
            most = float(norm.isf(ALARM / 2)) * one["ratio"] / math.sqrt(SQUARES)
            found.append((_key(one), one["ratio"], other["ratio"], most))
            continue
        degrees = freedom[_group(one)]
        error = math.sqrt(
            squares[_group(one)] / degrees * sum(1 / len(row["accuracies"]) for row in (one, other))
        )
        means = (statistics.mean(row["accuracies"]) for row in (one, other))
        found.append((_key(one), *means, float(t.isf(ALARM / 2, degrees)) * error))
    return found


def _key(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in NAMES if name in row)


def _group(row: dict[str, Any]) -> str:
    return str(row.get("layer", row.get("model")))


def main(files: list[str]) -> int:
    """Print every row with its verdict, then one sentence; 1 where a row differs or was not measured again."""
    agree, differ, missing = 0, list[str](), list[str]()
    for file in files:
        again = _measured(Path(file))
        (kept,) = harness.read_all(f"{again['suite']}.{again['case']}")
        found = compared(kept.figures["rows"], again["figures"]["rows"])
        for name, before, now, most in found:
            agrees = abs(before - now) <= most
            agree += agrees
            differ += [] if agrees else [f"{again['case']}: {name}"]
            print(
                f"{again['case']}: {name}: {before:.3f} then, {now:.3f} now, may differ by {most:.3f}: "
                f"{'agrees' if agrees else 'DIFFERS'}"
            )
        known = {name for name, *_ in found}
        missing += [
            f"{again['case']}: {name}" for row in kept.figures["rows"] if (name := _key(row)) not in known
        ]
    print(f"{agree} of {agree + len(differ) + len(missing)} rows of docs/dp-layers.md came out as kept.")
    for rows, why in (
        (differ, "differ by more than the spread over seeds explains"),
        (missing, "were not measured again"),
    ):
        if rows:
            print(f"{len(rows)} {why}: {'; '.join(rows)}.", file=sys.stderr)
    return 0 if agree and not differ and not missing else 1


def _measured(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except ValueError:
        raise SystemExit(
            f"{file} is no whole result of `python -m benchmarks dp --json`: measure again."
        ) from None
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
