"""What every benchmark shares: one result schema, where results are kept, and fair timing.

A result is one JSON object (``SCHEMA`` names its version): suite, case, arguments, figures, machine,
versions, seed, commit, time. ``figures`` maps names to numbers or strings; a sweep puts its table under
``figures["rows"]``, a list of such maps. What a suite measures belongs in the suite; tables and plots made
from results are in ``tables`` and ``plots``.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, commit, describe_machine, library_versions

SCHEMA = "secagg-benchmark/1"
RESULTS = ROOT / "docs" / "results"
FIGURES = ROOT / "docs" / "figures"

_NAME = re.compile(r"[a-z0-9][a-z0-9_+-]*")


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of one thing: the median is reported, the extremes show the spread."""

    median_s: float
    min_s: float
    max_s: float
    repeats: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Summarise ``seconds``, which must not be empty."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def measure(work: Callable[[], object], *, repeats: int = 5, warmups: int = 1) -> Timing:
    """Time ``work`` ``repeats`` times after ``warmups`` untimed calls (compilation, caches)."""
    return measure_together({"work": work}, repeats=repeats, warmups=warmups)["work"]


def measure_together(
    works: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time several things in turn, round after round, so that a drifting machine slows all of them alike.

    Use this wherever a ratio is reported. ``clock`` may be `time.process_time` where other work keeps the machine busy.
    Raises ValueError for ``repeats`` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    for _ in range(warmups):
        for work in works.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: Timing.of(taken) for name, taken in seconds.items()}


def ratio(baseline: Timing | float, ours: Timing | float) -> float:
    """How many times faster (smaller) ``ours`` is than ``baseline``: medians divided, above 1 when ours is
    better.
    """
    top = baseline.median_s if isinstance(baseline, Timing) else baseline
    bottom = ours.median_s if isinstance(ours, Timing) else ours
    return top / bottom


def peak_rss_mb() -> float:
    """Largest resident set of this process since it started, in MiB (so: one case per process where this
    matters).
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class Result:
    """One measured case. Build it with :func:`result`, which fills in machine, versions, commit and time."""

    suite: str
    case: str
    arguments: dict[str, Any]
    figures: dict[str, Any]
    seed: int | None
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = "unknown"
    timestamp: str = ""
    schema: str = SCHEMA

    def to_json(self) -> str:
        """The result as one line of JSON. Raises ValueError for NaN and infinity, which JSON cannot say."""
        return json.dumps(asdict(self), allow_nan=False, sort_keys=True)


def result(
    suite: str,
    case: str,
    *,
    arguments: Mapping[str, Any],
    figures: Mapping[str, Any],
    seed: int | None = None,
) -> Result:
    """A result of this machine, now. ``case`` names the file: lower-case letters, digits and ``_ + -``.

    ``seed`` is what reproduces the inputs; None when nothing was drawn from a seed. Raises ValueError for a
    bad name.
    """
    for name in (suite, case):
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a suite or case is named by lower-case letters, digits and _ + -, got {name!r}"
            )
    return Result(
        suite=suite,
        case=case,
        arguments=dict(arguments),
        figures=dict(figures),
        seed=seed,
        machine=describe_machine(),
        versions=library_versions(),
        commit=commit(),
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def finish(outcome: Result, *, as_json: bool = False, save: bool = False) -> None:
    """End a command: print the result (``as_json``: one object on standard output) and, with ``save``, keep
    it.
    """
    if save:
        print(f"written: {write(outcome).relative_to(ROOT)}", file=sys.stderr)
    if as_json:
        print(outcome.to_json())
        return
    from benchmarks.tables import show

    show(outcome)


def write(outcome: Result, directory: Path = RESULTS) -> Path:
    """Write ``<suite>.<case>.json`` into ``directory``, replacing an older result of that case; return its
    path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{outcome.suite}.{outcome.case}.json"
    path.write_text(
        json.dumps(asdict(outcome), allow_nan=False, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return path


def read(path: Path) -> Result:
    """Read a result. Raises ValueError when the file is of another schema."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"{path.name}: expected schema {SCHEMA}, found {content.get('schema')!r}; run the case again"
        )
    return Result(**content)


def read_all(pattern: str = "*", directory: Path = RESULTS) -> list[Result]:
    """Every kept result whose ``suite.case`` matches the glob ``pattern``, ordered by name."""
    return [read(path) for path in sorted(directory.glob(f"{pattern}.json"))]
