"""`secagg tradeoff`: a sweep over layers, epsilons, sums and seeds. What does not belong here: cells and their rows."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from fl.cli import output as printed
from fl.cli.output import JsonOption
from protocols.errors import SecAggError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tradeoff")(tradeoff)


def tradeoff(
    config: Annotated[Path, Argument(help="TOML file: the keys of a run, and a table [tradeoff].")],
    output: Annotated[Path, Option("--output", "-o", help="The sweep's folder.")],
    resume: Annotated[bool, Option("--resume", help="Go on with the sweep in --output.")] = False,
    minutes: Annotated[
        float | None, Option(min=0, help="Begin no cell after so many; cells come coarse to fine.")
    ] = None,
    processes: Annotated[int | None, Option(min=1, help="Cells at a time (default: one per core).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run every combination of layers, epsilons, sums, compression, strategies, drop-outs and seeds that the table
    tradeoff of CONFIG names: a run folder for each, a row in cells.jsonl. `secagg report` makes a page of the folder.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from fl.tradeoff.plan import groups, read
    from fl.tradeoff.play import play

    base, chosen = read(config)
    console = printed.stderr_console() if as_json else printed.stdout_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("cells", total=sum(map(len, groups(base, chosen))))

        def on_cell(done: int, of: int, row: dict[str, Any]) -> None:
            bar.update(task, completed=done)
            bar.console.print(_line(row), highlight=False, markup=False)

        made = play(
            base, chosen, output, minutes=minutes, resume=resume, processes=processes, on_cell=on_cell
        )
    done = sum(row["status"] == "done" for row in made.rows)
    facts = {"output": output, "rows": made.rows, "left": made.left}
    told = f"{done} of {len(made.rows) + made.left} cells have a result, {made.left} are left"
    printed.tell(facts, as_json, told, f"As a page: secagg report {shlex.quote(str(output))}")
    if not done:
        raise SecAggError(f"no cell has a result: {made.rows[-1].get('reason') if made.rows else 'no time'}")


def _line(row: dict[str, Any]) -> str:
    """A cell in one line: what it is, what came out."""
    if row["status"] in ("refused", "failed"):
        return f"{row['cell']}: {row['status']}: {row['reason']}"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in row["metrics"].items())
    return f"{row['cell']}: {numbers or row['status']}"
