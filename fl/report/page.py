"""The page: one HTML file with its style, its scripts and its data inline. What does not belong here: what is read
and compared. The form is `template/report.html.j2`; what a reader's filters do is `template/report.js`.
"""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from fl.report.cells import CellRuns, cells, last
from fl.report.folders import Found, Json, RunFolder, Table, read
from protocols.errors import Misuse
from protocols.guarantee import rounded_up
from protocols.store import write_atomic

SCRIPTS = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
MEASURE = "secagg audit sample-dp --model MODULE:FACTORY --data ... --json > RUN/audit.json"


def write(
    sources: Sequence[Path],
    output: Path,
    metric: str | None = None,
    figures: bool = False,
    lower_is_better: bool = False,
) -> list[Path]:
    """Write one report about run folders, sweeps, benchmark results and audits, and return the files written.

    sources: folders of runs or of such folders, JSON files of benchmarks and audits; at least one. output: the HTML
    file. metric: the test metric that is compared; unless given the accuracy, else the first that all runs have.
    lower_is_better: of that metric, where its name does not tell (a loss's or an error's does). figures: also write
    each chart as SVG and PNG beside it (extra `plots`). Raises Misuse for sources that hold nothing known, and for
    runs without a common metric.

    >>> write([Path("runs/plain"), Path("runs/private")], Path("report.html"))  # doctest: +SKIP
    """
    found = read(list(sources))
    silent = [run for run in found.runs if not run.measured or (metric and metric not in run.measured)]
    found.runs = [run for run in found.runs if run not in silent]
    if silent and not found.runs and metric:
        raise Misuse(
            f"no run has a metric {metric!r}: {silent[0].name} has {', '.join(silent[0].measured) or 'none'}"
        )
    if silent:
        why = "no round with a total, or the metric was never measured"
        found.tables.append(
            Table(
                "Runs without a result", why, [{"run": run.name, "rounds": len(run.rounds)} for run in silent]
            )
        )
    made = cells(found.runs, metric, lower_is_better) if found.runs else []
    write_atomic(output, html(found, made).encode(), 0o644)
    if not figures or not made:
        return [output]
    from fl.report.figures import draw

    return [output, *draw(made, output)]


def html(found: Found, made: Sequence[CellRuns]) -> str:
    """The page's text."""
    from jinja2 import Environment, StrictUndefined

    here = files("fl.report")
    page = here / "template"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=shown, price=price, line=line)
    metric = made[0].metric if made else ""
    data = {
        "metric": metric,
        "up": bool(made) and made[0].up,
        "cells": [row for cell in made for row in cell.facts()],
        "curves": [row for cell in made for row in cell.curve()],
    }
    return environment.from_string((page / "report.html.j2").read_text()).render(
        style=(page / "report.css").read_text(),
        code=(page / "report.js").read_text(),
        scripts=_scripts(here) if made else "",
        data=json.dumps(data).replace("<", "\\u003c"),
        cells=made,
        facts=data["cells"],
        metric=metric,
        up=data["up"],
        stacks=_stacks([cell.first for cell in made]),
        runs=found.runs,
        tables=found.tables,
        last=last,
        measure=MEASURE,
    )


def shown(value: Any) -> str:
    """A number with the digits that a reader needs, text as it is, a dash for what is not there."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def price(value: float | str | None) -> str:
    """An epsilon or a delta, rounded up: a printed price is never below the true one."""
    return shown(value) if value is None or isinstance(value, str) else rounded_up(value)


def line(guarantee: Json) -> str:
    """A guarantee in one line."""
    return (
        f"({price(guarantee['epsilon'])}, {price(guarantee['delta'])}) per {guarantee['unit']}, "
        f"{guarantee['relation']}, by {guarantee['accountant']}"
    )


def _scripts(here: Traversable) -> str:
    texts = [(here / "vendor" / name).read_text() for name in SCRIPTS]
    licences = [(here / "vendor" / name.replace(".min.js", ".LICENSE")).read_text() for name in SCRIPTS]
    return "\n".join(
        f"<script>/*\n{licence.strip()}\n*/\n{text}</script>"
        for licence, text in zip(licences, texts, strict=True)
    )


def _stacks(runs: Sequence[RunFolder]) -> list[Json]:
    """Who learns what: an entry per kind of protection, with the runs that it holds for."""
    found: dict[str, Json] = {}
    for run in runs:
        told = run.statement["protection"]
        key = json.dumps(
            [run.layers, run.statement["layers"], {k: v for k, v in told.items() if k != "parameters"}]
        )
        found.setdefault(key, {"layers": run.layers, "runs": [], "notes": run.statement["layers"], **told})
        found[key]["runs"].append(run.name)
    return list(found.values())
