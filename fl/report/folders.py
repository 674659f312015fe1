"""What a report is made from: folders of runs, sweeps of them, results of benchmarks, reports of audits.

What does not belong here: how seeds of one cell are put together, and the page.
"""

import contextlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl.round.run_files import CONFIG, METRICS, STATEMENT
from protocols.errors import Misuse, RecordError
from protocols.record import FILE_NAME, check_files, verify_record

Json = dict[str, Any]
CELLS = "cells.jsonl"
"""Of a sweep: a row per cell (`fl.tradeoff.rows`)."""
AUDIT = "audit.json"
"""What `secagg audit sample-dp ... --json` printed, beside the run whose layer it measured."""
SEARCHED = (
    "Clip, learning rate and rounds were searched on other data. Where a row names what they are apart from, no "
    "example of theirs was in those when the search began: it cost the people there nothing. The data of the "
    "search are taken to be public, or their people to have agreed. All trials: the epsilon that the search spent "
    "on its own data, at the run's delta, by RDP: every trial that the settings follow, those of larger epsilons "
    "that it began from too, as they were played (composition: it covers a search that looks at earlier trials); "
    "done on the sweep's own data instead it is what the layers calibrated for these epsilons would spend. The "
    "best of a random number of trials: another search, with that mean, each trial spending what this run does, "
    "settings drawn beforehand (Papernot and Steinke 2022, Theorem 2, logarithmic distribution). Unknown: the "
    "file of settings does not say it."
)
NOT_OF_A_CELL = ("seed", "output", "data_dir", "threads", "workers", "device", "resume")
"""Keys of a configuration that runs of one cell may differ in."""


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it.

    name: the folder's. config: its keys; text: the file. rounds: metrics.jsonl, a dict per round. statement: see
    `protocols.Statement`. verdict: what checking the record said. audit: a measured lower bound, or None.
    """

    name: str
    config: Json
    text: str
    rounds: list[Json]
    statement: Json
    verdict: str
    audit: Json | None = None

    @property
    def layers(self) -> str:
        """The layers' names in the client's order."""
        listed = [item if isinstance(item, str) else item["name"] for item in self.config.get("privacy", [])]
        if not self.config:  # started from Python: what its statement says
            listed = [*self.statement["layers"], self.statement["protection"]["mechanism"]]
        return " + ".join(name.partition(":")[0] for name in listed) or "none"

    @property
    def cell(self) -> str:
        """What runs of one cell share: everything but the seed and the machine's matters."""
        kept = {key: value for key, value in self.config.items() if key not in NOT_OF_A_CELL}
        return json.dumps([kept or self.name, len(self.rounds)], sort_keys=True)

    @property
    def played(self) -> list[Json]:
        """The rounds that were not abandoned."""
        return [entry for entry in self.rounds if entry["abandoned"] is None]

    @property
    def measured(self) -> list[str]:
        """Names of the test metrics that the last played round has, in the run's order."""
        entry = self.played[-1] if self.played else {}
        told = list(entry)[1 : list(entry).index("train")] if "train" in entry else []
        return [name for name in told if isinstance(entry[name], int | float)]

    @property
    def guarantees(self) -> list[Json]:
        """A line per unit, relation, adversary and delta; none without differential privacy."""
        return list(self.statement.get("guarantees", []))


@dataclass(frozen=True)
class Table:
    """Anything else that is shown as it is: a benchmark's rows, an audit's properties.

    title: its name. about: a sentence. rows: dicts of text and numbers.
    """

    title: str
    about: str
    rows: list[Json]

    @property
    def columns(self) -> list[str]:
        """Every key of the rows, those of text first."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return sorted(names, key=lambda name: not any(isinstance(row.get(name), str) for row in self.rows))


@dataclass
class Found:
    """All that was read."""

    runs: list[RunFolder] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def read(paths: list[Path]) -> Found:
    """Read folders of runs, folders of such folders, benchmark results and audits (JSON).

    Raises Misuse where a path holds none of them, naming what was expected.
    """
    found, seen = Found(), set[Path]()
    for path in paths:
        if path.is_dir() and path.resolve() not in seen:
            seen.add(path.resolve())
            runs = list(_runs(path))
            refused = [row for row in cells_of(path) if "reason" in row]
            if not runs and not refused:
                raise Misuse(
                    f"{path}: expected a run's folder (with {METRICS}), or a folder of such folders; give what "
                    "`secagg run` or `secagg tradeoff` wrote"
                )
            found.runs += runs
            found.tables += _searched(path)
            if refused:
                rows = [
                    {"cell": row["cell"], "status": row["status"], "why": row["reason"]} for row in refused
                ]
                found.tables.append(Table("Combinations without a run", f"of {path.name}", rows))
        elif path.is_dir():
            continue  # named twice
        elif path.is_file():
            found.tables.append(_table(path))
        else:
            raise Misuse(f"{path}: no such file or folder")
    return found


def _searched(folder: Path) -> Iterator[Table]:
    """What a search of clip, rate and rounds would have cost a sweep's own people, and where it was done in place."""
    rows: dict[str, Json] = {}
    for row in cells_of(folder):
        if row.get("search") and len(row["guarantees"]) == 1:
            told, (held,) = row["search"], row["guarantees"]
            rows.setdefault(
                f"{row['layer']} {row['epsilon']}",
                {
                    "layer": row["layer"],
                    "searched on": told["data"],
                    "apart from": str(told.get("apart_from", "unknown")),
                    "trials": told.get("played", "unknown"),
                    "epsilon of a run": held["epsilon"],
                    "all trials": "unknown" if told["all"] is None else told["all"],
                    "the best of a random number of trials": "unknown"
                    if told["best"] is None
                    else told["best"],
                },
            )
    if rows:
        yield Table(
            f"What the search of hyperparameters would have cost, {folder.name}",
            SEARCHED,
            list(rows.values()),
        )


def _runs(folder: Path) -> Iterator[RunFolder]:
    if (folder / METRICS).is_file():
        yield read_run(folder)
        return
    shared = {row["cell"]: row.get("shared") for row in cells_of(folder)}
    for path in sorted(folder.glob(f"*/{METRICS}")):
        if shared and path.parent.name not in shared:
            continue  # a cell of a sweep that is at work, or was cut off
        run = read_run(path.parent, f"{folder.name}/{path.parent.name}")
        trained = shared.get(path.parent.name)
        yield run if trained is None else _sharing(run, read_run(folder / trained))


def cells_of(folder: Path) -> list[Json]:
    """The rows of a sweep's folder; a line that a kill cut off is left out."""
    return list(_lines(folder / CELLS)) if (folder / CELLS).is_file() else []


def _lines(path: Path) -> Iterator[Json]:
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last one may be at work
            yield json.loads(line)


def _sharing(run: RunFolder, trained: RunFolder) -> RunFolder:
    """A cell of a sweep that shares another's training: that one's metrics, at its own cost in each round."""
    cost = ("bytes_up_per_client", "bytes_down_per_client", "seconds")
    own = {key: run.rounds[0][key] for key in cost}
    return replace(run, rounds=[{**entry, **own} for entry in trained.rounds])


def read_run(folder: Path, name: str = "") -> RunFolder:
    """Read a run's folder; `name` unless it is the folder's. Raises Misuse where files are missing or broken."""
    name = name or folder.name
    try:
        text = (folder / CONFIG).read_text() if (folder / CONFIG).is_file() else ""
        return RunFolder(
            name,
            tomllib.loads(text),
            text,
            list(_lines(folder / METRICS)),
            json.loads((folder / STATEMENT).read_text()),
            _verdict(folder),
            json.loads((folder / AUDIT).read_text()) if (folder / AUDIT).is_file() else None,
        )
    except (OSError, ValueError) as error:
        raise Misuse(f"{folder}: expected the files that a run writes; {error}") from error


def _verdict(folder: Path) -> str:
    """What `secagg verify` says of the run's record, without keys or heads that somebody kept."""
    try:
        verdict = verify_record(folder / FILE_NAME, None, None)
        return f"{verdict.level}; {len(verdict.entries)} entries, {len(check_files(verdict, folder))} files match"
    except (OSError, RecordError) as error:
        return f"does not hold: {error}"


def _table(path: Path) -> Table:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: expected JSON of a benchmark or an audit; {error}") from error
    if isinstance(told, dict) and str(told.get("schema", "")).startswith("secagg-benchmark/"):
        about = f"{told['timestamp'][:10]}, {told['machine']['processor']}, commit {told['commit'][:12]}"
        return Table(f"Benchmark {told['suite']} {told['case']}", about, _rows(told["figures"]))
    if isinstance(told, dict) and isinstance(told.get("properties"), list):
        rows = [
            {"property": one["name"], "verdict": one["status"], "claim": one.get("claim", "")}
            for one in told["properties"]
        ]
        return Table(f"Audit of {told['protocol']}", f"threat model {told['threat']}", rows)
    raise Misuse(f"{path}: expected a result of `python -m benchmarks` or `secagg audit --report FILE.json`")


def _rows(figures: Json) -> list[Json]:
    """The rows of a benchmark, without what is no text or number; figures without rows as one row."""
    rows = figures.get("rows")
    listed = rows if isinstance(rows, list) else list(rows.values()) if isinstance(rows, dict) else [figures]
    kept = [{k: v for k, v in row.items() if isinstance(v, str | int | float)} for row in listed]
    return [row for row in kept if row]
