"""`secagg tradeoff`: a sweep over layers, epsilons, sums and seeds. What does not belong here: cells and their rows."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from fl.cli import output as printed
from fl.cli.output import JsonOption
from fl.tradeoff.sweep import Sweep, coarse_to_fine, read
from protocols.errors import Misuse, SecAggError


def tradeoff(
    configs: Annotated[list[Path], Argument(help="TOML files: the keys of a run, and a table [tradeoff].")],
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="The sweep's folder; of several files, a folder for each in it."),
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the sweep in --output.")] = False,
    minutes: Annotated[
        float | None, Option(min=0, help="Begin no cell after so many; cells come coarse to fine.")
    ] = None,
    processes: Annotated[int | None, Option(min=1, help="Cells at a time (default: one per core).")] = None,
    search: Annotated[
        bool,
        Option("--search", help="Play nothing: search clip, rate and rounds on data apart (extra search)."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run every combination of layers, epsilons, sums, compression, strategies, drop-outs and seeds that the table
    tradeoff of a file names: a run folder for each, a row in cells.jsonl. `secagg report` makes a page of the folder.
    """
    from fl.tradeoff.processes import play

    sweeps = [read(path) for path in configs]
    if search == (output is not None):
        raise Misuse(
            "name the sweep's folder by --output, or search by --search, which writes beside its file"
        )
    if output is None:
        _search(sweeps, processes, as_json)
        return
    folders = [output] if len(configs) == 1 else [output / path.stem for path in configs]
    if len(set(folders)) < len(folders):
        raise Misuse("two files have one name, and each has a folder of its own: rename one")
    with _progress(as_json, sum(len(group) for _, group in coarse_to_fine(sweeps))) as told:
        made = play(
            dict(zip(folders, sweeps, strict=True)),
            minutes=minutes,
            resume=resume,
            processes=processes,
            on_cell=told,
        )
    rows, left = [row for sweep in made for row in sweep.rows], sum(sweep.left for sweep in made)
    done = sum(row["status"] == "done" for row in rows)
    without = f", {len(rows) - done} have a reason in place of one" if len(rows) > done else ""
    again = shlex.join(["secagg", "tradeoff", *map(str, configs), "--output", str(output), "--resume"])
    printed.tell(
        {"output": output, "rows": rows, "left": left},
        as_json,
        f"{done} of {len(rows) + left} cells have a result{without}, {left} are left",
        *([f"To go on: {again}"] if left else []),
        f"As a page: secagg report {shlex.join(map(str, folders))}",
    )
    if not done:
        raise SecAggError(f"no cell has a result: {rows[-1].get('reason') if rows else 'no time'}")


@contextmanager
def _progress(as_json: bool, total: int) -> Iterator[Callable[[int, int, dict[str, Any]], None]]:
    """A bar with an estimate, and what is called with (done, of, row)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = printed.stderr_console() if as_json else printed.stdout_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    began, played = time.monotonic(), 0
    with Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=console) as bar:
        task = bar.add_task("cells", total=total, left="")

        def told(done: int, of: int, row: dict[str, Any]) -> None:
            # Cells that share a training end in one instant, which would mislead an estimate by the last cells alone.
            nonlocal played
            played += 1
            seconds = (time.monotonic() - began) / played * (of - done)
            bar.update(task, completed=done, left=f"about {timedelta(seconds=round(seconds))} left")
            bar.console.print(_line(row), highlight=False, markup=False)

        yield told


def _search(sweeps: Sequence[Sweep], processes: int | None, as_json: bool) -> None:
    from fl.tradeoff.search import search

    def told(study: dict[str, Any]) -> None:
        found = ", ".join(f"{key} {value}" for key, value in study.items() if key not in ("search", "layer"))
        value = f": {study['search']['value']:.4g}" if "search" in study else ""
        print(f"{study['layer']}: {found}{value}", file=sys.stderr, flush=True)

    found = {str(sweep.tuned): search(sweep, processes, told) for sweep in sweeps}
    printed.tell({"written": found}, as_json, *(f"Written: {path}, which the sweep reads" for path in found))


def _line(row: dict[str, Any]) -> str:
    """A cell in one line: what it is, what came out."""
    if row["status"] in ("refused", "failed"):
        return f"{row['cell']}: {row['status']}: {row['reason']}"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in row["metrics"].items())
    return f"{row['cell']}: {numbers or row['status']}"
