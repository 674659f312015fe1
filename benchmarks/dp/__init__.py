"""Suite `dp`: noise, private sums and private training. `python -m benchmarks dp --case NAME --json`.

A case is a module of this package; this file holds the command alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import harness
from protocols.errors import SecAggError

CASES = (
    "mean",
    "fashion-mnist",
    "fashion-search",
    "overhead",
    "femnist",
    "samplers",
    "audits",
    "federations",
    "banded",
    "banded-search",
)

app = typer.Typer(add_completion=False)


@app.command()
def measure(
    case: Annotated[str, typer.Option(help=", ".join(CASES))] = "mean",
    seeds: Annotated[int, typer.Option(min=1, help="fashion-mnist: how many; femnist: up to 3")] = 5,
    seed: Annotated[int, typer.Option(help="of inputs and initialisation; nothing secret follows it")] = 1,
    only: Annotated[
        str | None,
        typer.Option(
            help="fashion-mnist: a model, a place or MODEL/PLACE; banded, banded-search: fashion, femnist or CASE/ARM"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(envvar="SECAGG_DATA", help="where the data sets lie")
    ] = None,
    work: Annotated[
        Path,
        typer.Option(help="fashion-* and femnist: where finished runs are kept, so that a series can go on"),
    ] = Path("build/benchmarks-dp"),
    threads: Annotated[int, typer.Option(min=1, help="of torch")] = 1,
    trials: Annotated[int, typer.Option(min=1, help="banded-search: of each arm, in all")] = 40,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="also write it under docs/results")] = False,
    plots: Annotated[bool, typer.Option(help="measure nothing: draw the figures of kept results")] = False,
) -> None:
    """Measure one case of differential privacy."""
    if plots:
        from benchmarks.dp import figures as drawn

        drawn.draw()
        return
    if case not in CASES:
        raise typer.BadParameter(f"expected one of {', '.join(CASES)}, got {case!r}")
    import torch

    torch.set_num_threads(threads)
    try:
        figures = _measure(case, seeds, seed, only, data_dir, work, trials)
    except SecAggError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    arguments = {"seeds": seeds, "only": only} if case == "fashion-mnist" else {}
    harness.finish(
        harness.result("dp", case, arguments=arguments | {"threads": threads}, figures=figures, seed=seed),
        as_json=json,
        save=save,
    )


def _measure(
    case: str, seeds: int, seed: int, only: str | None, data_dir: Path | None, work: Path, trials: int
) -> dict[str, Any]:
    if case == "fashion-mnist":
        from benchmarks.dp import fashion

        return fashion.measure(seeds, data_dir, work, only, report)
    if case == "fashion-search":
        from benchmarks.dp import search

        return search.measure(seed, data_dir, work, report)
    if case == "femnist":
        from benchmarks.dp import femnist

        return femnist.measure(data_dir, work, seeds=min(seeds, 3), report=report)
    if case == "banded-search":
        from benchmarks.dp import banded_search

        return banded_search.measure(trials, data_dir, work, only, report)
    if case == "banded":
        from benchmarks.dp import banded

        return banded.measure(seeds, data_dir, work, only, report)
    if case == "overhead":
        from benchmarks.dp import overhead

        return overhead.measure(seed=seed)
    if case == "mean":
        from benchmarks.dp import mean

        return mean.measure(seed=seed)
    if case == "samplers":
        from benchmarks.dp import samplers

        return samplers.measure()
    if case == "federations":
        from benchmarks.dp import federations

        return federations.measure()
    from benchmarks.dp import audits

    return audits.measure()


def report(line: str) -> None:
    """Progress, on standard error: standard output is for the result."""
    print(line, file=sys.stderr, flush=True)
