"""What a report compares: runs that differ in their seeds alone are one cell, with a mean and an interval.

What does not belong here: files and the page.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fl.callbacks.choosing import mode_of
from fl.report.folders import Json, RunFolder
from protocols.errors import Misuse

LESS = {"loss", "error", "errors", "nll", "bits", "bpc", "brier", "wer", "ece", "perplexity", "false"}
"""Words in the name of a metric of which less is better."""
LEVEL = 0.95
"""Of a cell's interval, over seeds: Student's t."""


@dataclass(frozen=True)
class CellRuns:
    """Runs of one configuration. number: its place in the report; metric: what is compared; up: more is better."""

    number: int
    runs: list[RunFolder]
    metric: str
    up: bool = True

    @property
    def first(self) -> RunFolder:
        return self.runs[0]

    @property
    def label(self) -> str:
        """What tells it from the others on sight: layers with options, strategy unless usual, share of clients lost."""
        config = self.first.config
        listed = [item if isinstance(item, str) else _spec(item) for item in config.get("privacy", [])]
        parts = [" + ".join(listed) or "none"]
        parts += [str(config["strategy"])] if config.get("strategy", "fedavg") != "fedavg" else []
        parts += [f"{config['dropout']:.0%} leave"] if config.get("dropout") else []
        return ", ".join(parts)

    @property
    def guarantees(self) -> list[Json]:
        """The dearest of the runs, a line per unit, relation, adversary and delta."""
        found: dict[str, Json] = {}
        for line in (line for run in self.runs for line in run.guarantees):
            key = json.dumps([line[name] for name in ("unit", "relation", "adversary", "delta")])
            if key not in found or _size(line["epsilon"]) > _size(found[key]["epsilon"]):
                found[key] = line
        return list(found.values())

    @property
    def audits(self) -> list[Json]:
        """What `secagg audit sample-dp` measured beside the runs."""
        return [run.audit for run in self.runs if isinstance(run.audit, dict)]

    def mean(self) -> tuple[float, float]:
        """Mean of the metric over the runs, and half of its interval at `LEVEL` (nan for a single run)."""
        from scipy.stats import t

        values = [last(run, self.metric) for run in self.runs]
        if len(values) < 2:
            return values[0], math.nan
        half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
        return fmean(values), half

    def facts(self) -> list[Json]:
        """A row per guarantee, and one where there is none: what charts and tables show."""
        mean, half = self.mean()
        cost = {
            name: _mean([_spent(run, name) for run in self.runs])
            for name in ("bytes_up", "bytes_down", "seconds")
        }
        shared: Json = {
            "cell": self.number,
            "label": self.label,
            "data": _short(self.first.config.get("data", "")),
            "layers": self.first.layers,
            "value": mean,
            "low": None if math.isnan(half) else self._within(mean - half),
            "high": None if math.isnan(half) else self._within(mean + half),
            "runs": len(self.runs),
            **cost,
        }
        lines = self.guarantees or [{"epsilon": None, "unit": "", "adversary": "", "delta": None}]
        return [
            shared
            | {key: line[key] for key in ("epsilon", "unit", "adversary", "delta")}
            | {"holds": f"per {line['unit']}, against the {line['adversary']}" if line["unit"] else "none"}
            for line in lines
        ]

    def _within(self, bound: float) -> float:
        """An interval's end; of a share, such as an accuracy, between 0 and 1."""
        values = [last(run, self.metric) for run in self.runs]
        return min(1.0, max(0.0, bound)) if self.up and 0 <= min(values) <= max(values) <= 1 else bound

    def curve(self) -> list[Json]:
        """The metric round by round, of every run."""
        return [
            {
                "cell": self.number,
                "label": self.label,
                "layers": self.first.layers,
                "run": run.name,
                "round": entry["round"],
                "value": entry[self.metric],
            }
            for run in self.runs
            for entry in run.played
            if isinstance(entry.get(self.metric), int | float)
        ]


def _short(data: Any) -> str:
    """A data set's name to choose by: of `module:factory`, and of a part of it, the last word; of a table, its file."""
    name = str(data.get("of", data["name"])) if isinstance(data, dict) else str(data)
    if file := re.match(r"csv:(?:.*,)?file=([^,]+)", name):
        return Path(file[1]).name
    name = re.sub(r"^part:of=|,(share|which)=[^,]*", "", name)
    return re.sub(r"^[\w.]+:(?=[a-z_]\w*$)", "", name)


def _size(epsilon: float | str | None) -> float:
    """An epsilon to compare: one that no accountant bounds is text."""
    return epsilon if isinstance(epsilon, int | float) else math.inf


def _spec(table: Json) -> str:
    """A layer's table as the text that names it on the command line."""
    options = ",".join(f"{key}={value}" for key, value in table.items() if key != "name")
    return f"{table['name']}{':' if options else ''}{options}"


def cells(runs: Sequence[RunFolder], metric: str | None = None, lower: bool = False) -> list[CellRuns]:
    """Group runs by all but their seeds; `metric` is the accuracy, or the first that all of them measured. lower: less
    of it is better, whatever its name.

    Raises Misuse where runs have no metric in common, or lack the one that was named.
    """
    shown = metric or _common(runs)
    for run in runs:
        if shown not in run.measured:
            raise Misuse(f"{run.name} has no metric {shown!r}: it has {', '.join(run.measured) or 'none'}")
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        group = groups.setdefault(run.cell, [])
        if not any(run.rounds == other.rounds for other in group):  # a copy is no second draw
            group.append(run)
    up = not lower and upwards(shown)
    return [CellRuns(number, group, shown, up) for number, group in enumerate(groups.values())]


def upwards(metric: str) -> bool:
    """Whether more of a metric is better; taken as such where its name does not tell (`--lower-is-better` says so)."""
    return mode_of(metric) != "min" and not LESS & set(metric.lower().replace(".", "_").split("_"))


def last(run: RunFolder, metric: str) -> float:
    """The metric after the last round that measured it."""
    return float(next(entry[metric] for entry in reversed(run.played) if entry.get(metric) is not None))


def _common(runs: Sequence[RunFolder]) -> str:
    shared = [name for name in runs[0].measured if all(name in run.measured for run in runs)]
    if not shared:
        raise Misuse("the runs have no test metric in common: name one, or report them apart")
    return "accuracy" if "accuracy" in shared else shared[0]


def _spent(run: RunFolder, name: str) -> float | None:
    """Bytes per client and round, or seconds of the whole run; None where a layer withholds them."""
    if name == "seconds":
        told = [entry.get("seconds", {}) for entry in run.rounds]
        return sum(sum(each.values()) for each in told) if all("train" in each for each in told) else None
    return _mean([entry.get(f"{name}_per_client") for entry in run.played])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
