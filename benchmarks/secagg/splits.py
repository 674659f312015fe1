"""An adversary that plans, against the smallest graph of each demand: the second table of docs/planning.md.

Per plan it draws a session's graph and as many corrupt clients as the plan withstands, cuts the ring into arcs that
decide alike, and searches lists, views, votes and answers, with one view, two and three (`protocols.audit.search`).
The same search without the window rule shows what it would find. Nothing is run but the solver.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from typing import Annotated, Any

import typer

from benchmarks import harness
from benchmarks.secagg.plans import CLIENTS, COLLUSION, DROPOUT
from protocols.audit.search.planning import arcs, corrupt_set, plan
from protocols.audit.search.program import Undecided
from protocols.errors import Misuse
from protocols.opening import Attack, Rule
from protocols.randomness import SystemRandom
from secagg import SecAggPlus
from secagg.audit_search import rule

SEARCHES = ((12, 1), (24, 1), (6, 2), (10, 2), (16, 2), (6, 3))
"""Arcs and views, in the order they are searched."""
CASE = "splits"


def register(app: typer.Typer) -> None:
    """Add the command to the suite."""
    app.command("splits")(splits)


def splits(
    minutes: Annotated[float, typer.Option(help="For one plan, at most.")] = 1.0,
    limit: Annotated[
        int, typer.Option(help="Plans to search now; what was searched before is kept.")
    ] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Keep the results under docs/results, one by one.")] = False,
) -> None:
    """Search a split in the smallest plan of each demand."""
    rows = _before(minutes) if save else []
    done = {(r["clients"], r["collusion"], r["dropout"]) for r in rows}
    for case in [c for c in product(CLIENTS, COLLUSION, DROPOUT) if c not in done][:limit]:
        rows.append(row(*case, seconds=60 * minutes))
        if save:
            harness.write(_result(minutes, rows))
    harness.finish(_result(minutes, rows), as_json=as_json, save=save)


def _result(minutes: float, rows: list[dict[str, Any]]) -> harness.Result:
    ordered = sorted(rows, key=lambda r: (r["clients"], r["collusion"], r["dropout"]))
    return harness.result("secagg", CASE, arguments={"minutes": minutes}, figures={"rows": ordered})


def _before(minutes: float) -> list[dict[str, Any]]:
    """What was searched before, for as long."""
    path = harness.RESULTS / f"secagg.{CASE}.json"
    kept = harness.read(path) if path.exists() else None
    return list(kept.figures["rows"]) if kept and kept.arguments == {"minutes": minutes} else []


def row(clients: int, collusion: float, dropout: float, seconds: float) -> dict[str, Any]:
    """One line: what was searched, and what came of it."""
    demand = {"clients": clients, "collusion": collusion, "dropout": dropout}
    protocol = SecAggPlus(dropout=dropout, collusion=collusion, threat="semi-malicious")
    try:
        session = protocol.session(
            [str(i) for i in range(clients)], 1, 1, random=SystemRandom(), simulated=True
        )
    except Misuse:
        return {**demand, "graph": "no plan", "found": "-", "searched": "-", "undecided": "-", "without": "-"}
    given = rule(session, ())
    degree = len(given.neighbours[0])
    found, tried, left = searched(given, 0.75 * seconds)
    if given.windows:
        bare = replace(given, checks=tuple(c for c in given.checks if c.among != "windows"))
        without = str(len(attack.target)) if (attack := searched(bare, 0.25 * seconds)[0]) else "none found"
    else:
        without = "-"
    return {
        **demand,
        "graph": "complete" if degree == clients - 1 else f"{degree} neighbours",
        "found": f"{len(found.target)} clients" if found else "none",
        "searched": tried - left,
        "undecided": left,
        "without": without,
    }


def searched(given: Rule, seconds: float) -> tuple[Attack | None, int, int]:
    """Return the first split, the searches begun, and those that ran out of time.

    That a client's own list of dealers fills every window is not demanded: a stronger adversary, quicker searched.
    """
    corrupt = corrupt_set(given)
    given = replace(given, checks=tuple(c for c in given.checks if (c.of, c.among) != ("list", "windows")))
    end, left = time.monotonic() + seconds, 0
    for number, (cells, views) in enumerate(SEARCHES):
        share = (end - time.monotonic()) / (len(SEARCHES) - number)
        try:
            found = plan(given, corrupt, max(share, 0.1), arcs(given, min(cells, given.clients)), views)
        except Undecided:
            left += 1
            continue
        if found is not None:
            return found, number + 1, left
    return None, len(SEARCHES), left
