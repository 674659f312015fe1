"""Suite `tradeoff`: the sweeps of `make tradeoff`, as results and as the picture of the README.

Here lie the sweeps of three data sets (TOML), and what was searched for them on data apart. What does not belong here:
playing them, which `secagg tradeoff` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import harness

app = typer.Typer(add_completion=False)


@app.command()
def measure(
    sweeps: Annotated[Path, typer.Option(help="the folder that `make tradeoff` filled")] = Path(
        "build/tradeoff"
    ),
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="also write it under docs/results")] = False,
    plots: Annotated[bool, typer.Option(help="measure nothing: draw docs/figures/tradeoff.svg")] = False,
    table: Annotated[
        bool, typer.Option(help="measure nothing: write the table that secagg choose reads")
    ] = False,
) -> None:
    """Sum up the sweeps: a row for each data set, stack and epsilon, with its interval over seeds and its cost."""
    from benchmarks.tradeoff import choices, summary

    if plots or table:
        if table:
            choices.PATH.write_text(choices.written())
        print(f"written: {(summary.draw() if plots else choices.PATH).relative_to(Path.cwd())}")
        return
    figures = {"rows": summary.rows(sweeps)}
    harness.finish(
        harness.result("tradeoff", "stacks", arguments={}, figures=figures), as_json=json, save=save
    )
