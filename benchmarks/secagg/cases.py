"""The named cases of the docs, each in a process of its own so that its peak memory is its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from benchmarks.machine import ROOT

CASES = {
    "flower-100": "--clients 100 --dim 100000 --neighbours 20 --threshold 11 --dropout 0.1 --peer flower --repeats 5",
    "flower-20": "--clients 20 --dim 1000000 --neighbours 10 --threshold 6 --dropout 0.1 --peer flower --repeats 5",
    "default-100": "--clients 100 --dim 100000 --neighbours 20 --threshold 11 --dropout 0.1 --threat semi-malicious",
    "sparse-1000": "--clients 1000 --dim 100000 --neighbours 112 --threshold 57 --dropout 0.2 --repeats 1",
    "complete-1000": "--clients 1000 --dim 100000 --neighbours 999 --threshold 501 --dropout 0.3 --repeats 1",
    "cohort-10000": "--clients 10000 --dim 1000 --dropout 0.1 --collusion 0.05 --threat default --repeats 1",
}


def register(app: typer.Typer) -> None:
    """Add the command to the suite."""
    app.command("cases")(cases)


def cases(
    only: Annotated[list[str] | None, typer.Option(help=f"Some of {', '.join(CASES)}.")] = None,
    clock: Annotated[str, typer.Option(help="wall or cpu.")] = "wall",
) -> None:
    """Run the named cases and keep their results under docs/results."""
    unknown = set(only or ()) - set(CASES)
    if unknown:
        raise typer.BadParameter(f"no case {sorted(unknown)}; the cases are {sorted(CASES)}")
    for name in only or CASES:
        typer.echo(f"{name} ...", err=True)
        options = [*CASES[name].split(), "--case", name, "--clock", clock, "--save", "--json"]
        subprocess.run(
            [sys.executable, "-m", "benchmarks", "secagg", *options],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
