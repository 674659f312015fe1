"""`secagg plan`: degree, threshold, bytes and seconds of a masked sum, before anything runs.

Belongs here: options, and how the answer is shown. The arithmetic is in `secagg.parameters`.
"""

import math
from dataclasses import asdict
from typing import Annotated

import click
from typer import Option

from fl.cli.output import JsonOption, emit_json, stdout_console
from protocols.policy import THREATS
from secagg.parameters import Cohort
from secagg.parameters import plan as find


def plan(
    clients: Annotated[int, Option(help="Clients in the roster, up to 10^9.")],
    dropout: Annotated[float, Option(help="Share of clients that may leave, in [0, 1).")] = 0.0,
    collusion: Annotated[
        float, Option(help="Share of clients that may collude with the server, in [0, 1).")
    ] = 0.0,
    threat: Annotated[
        str, Option(click_type=click.Choice(THREATS[1:]), help="What the server may do.")
    ] = "semi-malicious",
    dim: Annotated[int, Option(help="Coordinates of the vector.")] = 100_000,
    bits: Annotated[int, Option(help="Bits of one signed input value, 2 to 64.")] = 16,
    security: Annotated[float, Option(help="A secret is lost with probability at most 2^-SECURITY.")] = 40,
    correctness: Annotated[float, Option(help="A round fails with probability at most 2^-CORRECTNESS.")] = 20,
    beacon: Annotated[
        bool, Option(help="Malicious: a public beacon fixes a sparse graph, over the whole roster.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Smallest safe degree and threshold for a cohort, and what a round costs on this machine.

    Exits with 2 where nothing is safe, and names the number to relax.
    """
    answer = _planned(Cohort(clients, dropout, collusion, threat, security, correctness, beacon), dim, bits)
    if as_json:
        emit_json(answer)
    else:
        _show(answer)


def _planned(cohort: Cohort, dim: int, bits: int) -> dict[str, object]:
    """The command's answer as a flat JSON object. Raises Infeasible, Misuse."""
    from secagg.parameters.calibration import calibrate, estimate
    from secagg.parameters.costs import costs
    from secagg.ring import Ring

    found = find(cohort)
    cost = costs(found, dim, bits)
    units = calibrate(found.degree, found.threshold, Ring(cost.ring_bits))
    client_s, server_s = estimate(found, cost, units)
    return {
        **asdict(found.cohort),
        "degree": found.degree,
        "threshold": found.threshold,
        "complete_graph": found.complete,
        "window": found.window,
        "committee": found.committee,
        "quorum": found.quorum,
        "least_survivors": found.survivors,
        **asdict(cost),
        "client_seconds": client_s,
        "server_seconds": server_s,
        "mask_gb_per_s": 1e-9 / units.mask_byte if units.mask_byte else math.inf,
    }


def _show(answer: dict[str, object]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in answer.items():
        shown = (
            f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
        )
        table.add_row(name.replace("_", " "), shown)
    stdout_console().print(table)
