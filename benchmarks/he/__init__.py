"""Suite `he`: what a homomorphic sum costs, beside its library's plain use in the same run.

python -m benchmarks he --scheme paillier --values 100000 --clients 10 --key-bits 2048 --arrangement
keyholder --json python -m benchmarks he --scheme ckks --values 1000000 --clients 10 --json

A scheme is a module of this package with `measure(Case) -> dict`; `compare` runs masks and both schemes
side by side. The command and what schemes share (`case`) are here; figures for the docs are drawn by
`--plots` from saved results (`figures`).
"""

from importlib import import_module
from typing import Annotated

import typer

from benchmarks import harness
from benchmarks.he.case import Case
from he.arrangements import arrangement as named
from protocols.errors import SecAggError

SCHEMES = ("paillier", "ckks", "compare")

app = typer.Typer(add_completion=False)


@app.command()
def measure(
    scheme: Annotated[
        str, typer.Option(help="paillier, ckks, or compare: masks and both schemes side by side")
    ] = "paillier",
    values: Annotated[int, typer.Option(min=1, help="coordinates per client")] = 100_000,
    clients: Annotated[int, typer.Option(min=1)] = 10,
    bits: Annotated[int, typer.Option(min=2, max=48, help="bits of a value, sign included")] = 24,
    key_bits: Annotated[int | None, typer.Option(help="Paillier only; 3072 unless given")] = None,
    arrangement: Annotated[
        str, typer.Option(help="keyholder, threshold, threshold-T-of-N or shared")
    ] = "keyholder",
    naive_sample: Annotated[
        int, typer.Option(min=1, help="values of the plain use; the rest is extrapolated")
    ] = 64,
    seed: Annotated[int, typer.Option(help="draws the clients' values, nothing secret")] = 1,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="also write it under docs/results")] = False,
    plots: Annotated[
        bool, typer.Option(help="measure nothing: draw the docs' figures from saved results")
    ] = False,
) -> None:
    """Measure one secure sum: encryption, addition, decryption, bytes, and the library's plain use."""
    if plots:
        import_module("benchmarks.he.figures").draw()
        return
    if scheme not in SCHEMES:
        raise typer.BadParameter(f"expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    try:
        case = Case(values, clients, bits, key_bits, named(arrangement), naive_sample, seed)
        figures = import_module(f"benchmarks.he.{scheme}").measure(case)
    except SecAggError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    figures["peak_rss_mb"] = harness.peak_rss_mb()
    outcome = harness.result(
        "he", case.name(scheme), arguments=case.arguments(scheme), figures=figures, seed=seed
    )
    harness.finish(outcome, as_json=json, save=save)


__all__ = ["app"]
