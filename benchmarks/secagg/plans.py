"""What the planner gives for small and middle cohorts: the table of docs/planning.md. Nothing is run."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any

import typer

from benchmarks import harness
from secagg.parameters import Cohort, Infeasible, plan
from secagg.parameters.costs import costs

CLIENTS = (20, 50, 100, 300, 1_000)
COLLUSION = (0.02, 0.1, 0.2)
DROPOUT = (0.1, 0.2, 0.4)


def register(app: typer.Typer) -> None:
    """Add the command to the suite."""
    app.command("plans")(plans)


def plans(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Also keep the results under docs/results.")] = False,
) -> None:
    """Plan malicious sessions without a beacon for 20 to 1,000 clients, collusion to .2 and drop-out to .4."""
    rows = [row(*case) for case in product(CLIENTS, COLLUSION, DROPOUT)]
    harness.finish(
        harness.result("secagg", "plans", arguments={}, figures={"rows": rows}), as_json=as_json, save=save
    )


def row(clients: int, collusion: float, dropout: float) -> dict[str, Any]:
    """One line: the plan, or in place of its numbers what would make one possible."""
    demand = {"clients": clients, "collusion": collusion, "dropout": dropout}
    try:
        found = plan(Cohort(clients, dropout, collusion, "malicious"))
    except Infeasible as refusal:
        none = dict.fromkeys(
            ("graph", "threshold", "window", "voters", "quorum", "survivors", "opening_kb"), "-"
        )
        return {**demand, **none, "relax": refusal.relax[0]}
    return {
        **demand,
        "graph": "complete" if found.complete else f"{found.degree} neighbours",
        "threshold": found.threshold,
        "window": "-" if found.complete else f"{found.window} of {found.degree // 2}",
        "voters": found.committee or "all",
        "quorum": found.quorum,
        "survivors": found.survivors,
        "opening_kb": f"{costs(found, 1_000, 16).opening_request_bytes / 1e3:.1f}",
        "relax": "",
    }
