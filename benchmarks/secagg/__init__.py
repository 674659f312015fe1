"""Suite `secagg`: a masked sum measured alone, beside a peer, and over ranges of its sizes.

``python -m benchmarks secagg --clients N --dim M --neighbours K --threshold T --dropout D [--peer flower] --json``
measures one round. Modules: `work` (a round, and ours), `flower` (the peer's), `masks` (the cipher's limit),
`report` (figures of a result), `cases` (those of the docs), `sweeps` (over sizes, with plots), `splits` (an adversary
that plans), `scale` and `plans` (on paper).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from benchmarks import harness
from benchmarks.secagg import cases, plans, scale, splits, sweeps

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Masked sums: time, bytes and memory of a round.",
)

cases.register(app)
sweeps.register(app)
scale.register(app)
plans.register(app)
splits.register(app)


class Peer(StrEnum):
    """Another implementation to run in the same process."""

    FLOWER = "flower"


class Clock(StrEnum):
    """What seconds are read from."""

    WALL = "wall"
    CPU = "cpu"


@app.callback(invoke_without_command=True)
def one_round(
    context: typer.Context,
    clients: Annotated[int, typer.Option(help="Clients in the roster.")] = 100,
    dim: Annotated[int, typer.Option(help="Coordinates of the vector.")] = 100_000,
    neighbours: Annotated[
        int | None, typer.Option(help="Neighbours of a client; planned if not given.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(help="Shares that open a secret; planned if not given.")
    ] = None,
    dropout: Annotated[float, typer.Option(help="Share of clients that leave before sending.")] = 0.1,
    collusion: Annotated[float, typer.Option(help="Share of corrupt clients to plan for.")] = 0.0,
    bits: Annotated[int, typer.Option(help="Bits of an input value.")] = 16,
    threat: Annotated[
        str, typer.Option(help="semi-honest (what the peer offers), semi-malicious, malicious or default.")
    ] = "semi-honest",
    peer: Annotated[Peer | None, typer.Option(help="Run the same work through a peer too.")] = None,
    repeats: Annotated[int, typer.Option(help="Rounds of ours; medians are reported.", min=1)] = 3,
    peer_repeats: Annotated[int, typer.Option(help="Rounds of the peer's.", min=1)] = 1,
    clock: Annotated[
        Clock, typer.Option(help="wall, or cpu: processor time, on a machine that is busy with other work.")
    ] = Clock.WALL,
    seed: Annotated[int, typer.Option(help="Of the inputs and of who leaves.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Also keep the result under docs/results.")] = False,
    case: Annotated[str, typer.Option(help="The result's name; made from the arguments if not given.")] = "",
) -> None:
    """Measure one round."""
    if context.invoked_subcommand is not None:
        return
    from benchmarks.secagg.report import arguments, measured
    from benchmarks.secagg.work import Work

    work = Work(
        clients,
        dim,
        neighbours,
        threshold,
        dropout,
        bits,
        None if threat == "default" else threat,
        collusion,
        seed,
        str(clock),
    )
    figures = measured(work, peer=peer, repeats=repeats, peer_repeats=peer_repeats)
    name = case or _name(work.clients, work.dim, figures["degree"], dropout, figures["threat"], peer)
    outcome = harness.result(
        "secagg",
        name,
        arguments={**arguments(work), "peer": peer, "repeats": repeats},
        figures=figures,
        seed=seed,
    )
    harness.finish(outcome, as_json=as_json, save=save)


def _name(clients: int, dim: int, degree: int, dropout: float, threat: str, peer: str | None) -> str:
    whole = f"{peer or 'round'}-n{clients}-m{dim}-k{degree}-d{round(100 * dropout)}-{threat}"
    return re.sub(r"[^a-z0-9_+-]", "-", whole)
