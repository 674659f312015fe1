"""`workers`: how much of one process's time a round takes in several.

The federation of `scale` without layers, one thread per process. Blocks of rounds in one process and in several take
turns, so that a drifting machine slows both alike; the first round of a block is not counted. Seconds are wall time:
other work on the machine's cores shows.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Annotated, Any

import typer

from benchmarks import harness
from benchmarks.fl.scale import ASKED, federation_of


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("workers")(workers)


def workers(
    processes: Annotated[int, typer.Option(min=2, help="processes that train")] = 2,
    clients: Annotated[int, typer.Option(min=ASKED, help="clients of the federation")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="timed rounds of a block, after one untimed")] = 7,
    repeats: Annotated[int, typer.Option(min=1, help="blocks of each kind")] = 5,
    seed: Annotated[int, typer.Option(help="data split, initialisation, batches")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """A round's wall time in several processes over that in one."""
    import torch

    torch.set_num_threads(1)
    rows = []
    for _ in range(repeats):
        one, several = (_round_s(clients, rounds, seed, count) for count in (1, processes))
        rows.append({"one_s": one, "several_s": several, "over_one": several / one})
        typer.echo(f"{several:.2f} s over {one:.2f} s: {several / one:.2f}", err=True)
    arguments = {
        "processes": processes,
        "clients": clients,
        "asked": ASKED,
        "rounds": rounds,
        "repeats": repeats,
    }
    figures = {"over_one": statistics.median(row["over_one"] for row in rows), "rows": rows}
    outcome = harness.result("fl", "workers", arguments=arguments, figures=figures, seed=seed)
    harness.finish(outcome, as_json=as_json, save=save)


def _round_s(clients: int, rounds: int, seed: int, count: int) -> float:
    """Seconds of the median round of a block."""
    ends: list[float] = []

    def after(result: Any) -> None:
        ends.append(time.perf_counter())

    options = {"workers": count} if count > 1 else {}
    federation_of("none", clients, seed, **options).fit(rounds=rounds + 1, on_round=after)
    return statistics.median(b - a for a, b in itertools.pairwise(ends))
