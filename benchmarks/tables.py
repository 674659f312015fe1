"""Docs pages from results: rewrite marked blocks, so that no figure in the docs is typed by hand.

A table block: one row per result (per entry of ``figures.rows`` if the result has them), a column per
``heading = path [format]``::

    <!-- results secagg.flower-* | clients = arguments.clients | client, s = figures.client_mean_s .3f -->
    ... rewritten ...
    <!-- /results -->

Behind ``where PATH in VALUE; VALUE``, before the first column, only rows with one of these values are shown; further
conditions stand behind ``and``.

A value in running text::

    <!-- value secagg.flower-100 figures.server_ratio .0f -->(rewritten)<!-- /value -->

The diff of a pair of examples, NAME_before.py and NAME_after.py::

    <!-- diff examples/adapters/numpy -->
    ... rewritten ...
    <!-- /diff -->

A whole file of the checkout::

    <!-- file examples/extending/per_step.py -->
    ... rewritten ...
    <!-- /file -->

A path is looked up in the result, or in the row if it begins with a dot (``.client_mean_s``). What is missing
stops the run, with page and path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.diffs import Pair
from benchmarks.harness import RESULTS, Result, read_all
from benchmarks.machine import ROOT

_TABLE = re.compile(r"(<!-- results (?P<spec>[^\n]*?) -->\n).*?(<!-- /results -->)", re.DOTALL)
_DIFF = re.compile(r"(<!-- diff (?P<pair>[^\n]*?) -->\n).*?(<!-- /diff -->)", re.DOTALL)
_FILE = re.compile(r"(<!-- file (?P<path>[^\n]*?) -->\n).*?(<!-- /file -->)", re.DOTALL)
_VALUE = re.compile(r"(<!-- value (?P<spec>[^\n]*?) -->).*?(<!-- /value -->)", re.DOTALL)


def refresh_pages(*, write: bool = True, docs: Path = ROOT / "docs", results: Path = RESULTS) -> list[Path]:
    """Rewrite every marked block under ``docs`` (and README.md beside it); return the pages that changed.

    Raises ValueError, naming each page with a block whose results or paths do not exist; the others are rewritten.
    """
    changed, problems = [], []
    for page in [docs.parent / "README.md", *sorted(docs.rglob("*.md"))]:
        if not page.exists():
            continue
        before = page.read_text(encoding="utf-8")
        try:
            after = refresh(before, results)
        except ValueError as problem:
            problems.append(f"{page.name}: {problem}")
            continue
        if after != before:
            changed.append(page)
            if write:
                page.write_text(after, encoding="utf-8")
    if problems:
        raise ValueError("; ".join(problems))
    return changed


def refresh(text: str, results: Path = RESULTS) -> str:
    """``text`` with its marked blocks filled from the results in the folder ``results``."""
    text = _TABLE.sub(lambda block: block[1] + _table(block["spec"], results) + block[3], text)
    text = _DIFF.sub(lambda block: block[1] + Pair(block["pair"]).markdown() + block[3], text)
    text = _FILE.sub(lambda block: block[1] + _file(ROOT / block["path"]) + block[3], text)
    return _VALUE.sub(lambda block: block[1] + _value(block["spec"], results) + block[3], text)


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; pipes inside cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def show(outcome: Result) -> None:
    """Print a result for a person."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{outcome.suite} {outcome.case}", show_header=False)
    for name, value in (outcome.arguments | outcome.figures).items():
        table.add_row(name, _shown(value, ""))
    Console().print(table)


def _table(spec: str, results: Path) -> str:
    asked, *columns = (part.strip() for part in spec.split("|"))
    pattern, _, condition = asked.partition(" where ")
    conditions = [_condition(part) for part in condition.split(" and ")] if condition else []
    parsed = [_column(column) for column in columns]
    rows = [
        [_shown(_look_up(row, whole, path), form) for _, path, form in parsed]
        for outcome in _matching(pattern, results)
        for row, whole in _rows(outcome)
        if all(str(_look_up(row, whole, path)) in wanted for path, wanted in conditions)
    ]
    if not rows:
        raise ValueError(f"no row of {pattern!r} has {condition}")
    return markdown_table([heading for heading, _, _ in parsed], rows)


def _condition(text: str) -> tuple[str, set[str]]:
    path, _, values = text.partition(" in ")
    return path.strip(), {value.strip() for value in values.split(";")}


def _column(text: str) -> tuple[str, str, str]:
    heading, equals, rest = text.partition("=")
    path, _, form = rest.strip().partition(" ")
    if not equals or not path:
        raise ValueError(f"a column reads 'heading = path [format]', got {text!r}")
    return heading.strip(), path, form


def _file(path: Path) -> str:
    if not path.exists():
        raise ValueError(f"no file {path.relative_to(ROOT)}")
    kind = {".py": "python", ".md": "markdown"}.get(path.suffix, path.suffix.lstrip("."))
    return f'```{kind} title="{path.name}"\n{path.read_text(encoding="utf-8")}```\n'


def _value(spec: str, results: Path) -> str:
    pattern, path, *form = spec.split()
    outcomes = _matching(pattern, results)
    if len(outcomes) != 1:
        raise ValueError(f"a value needs one result, {pattern!r} names {len(outcomes)}")
    return _shown(_look_up({}, asdict(outcomes[0]), path), form[0] if form else "")


def _matching(pattern: str, results: Path) -> list[Result]:
    found = read_all(pattern, results)
    if not found:
        raise ValueError(f"no result is named {pattern!r}")
    return found


def _rows(outcome: Result) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    whole = asdict(outcome)
    for row in outcome.figures.get("rows", [outcome.figures]):
        yield row, whole


def _look_up(row: dict[str, Any], whole: dict[str, Any], path: str) -> Any:
    place: Any = row if path.startswith(".") else whole
    for key in path.lstrip(".").split("."):
        if not isinstance(place, dict) or key not in place:
            raise ValueError(f"no {path!r} in {whole['suite']}.{whole['case']}")
        place = place[key]
    return place


def _shown(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if form:
        return format(value, form)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
