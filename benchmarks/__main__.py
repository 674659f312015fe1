"""``python -m benchmarks SUITE [OPTIONS]``: find the suite, import it only then, hand it the rest of the
command line.

The convention for a suite: ``benchmarks/<suite>/__init__.py`` exposes ``app``, a ``typer.Typer``. With one
``@app.command()`` its options follow the suite's name directly (``python -m benchmarks secagg --clients 100
--json``); with several, the command's name follows (``python -m benchmarks dp accountants --json``). Every
command takes ``--json`` (one JSON object on standard output, everything else on standard error) and
``--save`` (also write it under docs/results), and ends in ``harness.finish``. No measuring code belongs in
this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

SUITES = {
    "secagg": "masked sums: time, bytes and memory of a round, alone or beside a peer",
    "dp": "noise, clipping, accountants and private training",
    "he": "Paillier and CKKS sums",
    "fl": "federated training end to end",
    "tradeoff": "what every stack costs in accuracy and bytes, from the sweeps of make tradeoff",
    "flower": "a protected round on a real deployment, beside Flower's own",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure this checkout, one suite at a time.",
)


def _register(suite: str, summary: str) -> None:
    """Add a command that forwards its whole command line, ``--help`` included, to the suite's own app."""

    @app.command(
        suite,
        help=summary,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def forward(context: typer.Context) -> None:
        suite_app: typer.Typer = import_module(f"benchmarks.{suite}").app
        suite_app(args=context.args, prog_name=f"python -m benchmarks {suite}")


for _suite, _summary in SUITES.items():
    _register(_suite, _summary)


@app.command()
def tables(
    check: Annotated[bool, typer.Option(help="change nothing; exit 1 if a page is out of date")] = False,
) -> None:
    """Rewrite the marked blocks of the docs pages from docs/results."""
    from benchmarks.tables import refresh_pages

    try:
        changed = refresh_pages(write=not check)
    except ValueError as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(1) from None
    for page in changed:
        typer.echo(f"{'out of date' if check else 'rewritten'}: {page}", err=True)
    raise typer.Exit(1 if check and changed else 0)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
