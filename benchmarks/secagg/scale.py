"""One round from 10^3 to 10^8 clients, on paper: the planner's counts and a calibration of this machine. Nothing is
run.

Two ways to grow: one session over everybody, whose server work is divided among coordinators; and sessions of at most
`COHORT` clients, one coordinator each, whose totals are added in clear.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

import typer

from benchmarks import harness
from secagg.parameters import Cohort, plan
from secagg.parameters.calibration import Units, calibrate, estimate
from secagg.parameters.costs import Costs, costs, ring_bits
from secagg.ring import Ring

COHORT = 10_000
TARGET_S = 60.0
"""Seconds that a coordinator may take: how many coordinators one session needs follows."""


def register(app: typer.Typer) -> None:
    """Add the command to the suite."""
    app.command("scale")(scale)


def scale(
    dropout: Annotated[float, typer.Option(help="Share of clients that leave.")] = 0.1,
    collusion: Annotated[float, typer.Option(help="Share of corrupt clients.")] = 0.05,
    dim: Annotated[int, typer.Option(help="Coordinates.")] = 100_000,
    bits: Annotated[int, typer.Option(help="Bits of an input value.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Also keep the results under docs/results.")] = False,
) -> None:
    """Work one round out for 10^3 to 10^8 clients (two results: one session, and sessions of 10,000)."""
    arguments = {"dropout": dropout, "collusion": collusion, "dim": dim, "bits": bits, "cohort": COHORT}
    sizes = [10**exponent for exponent in range(3, 9)]
    whole = [one_session(n, dropout, collusion, dim, bits) for n in sizes]
    sharded = [sessions(n, dropout, collusion, dim, bits) for n in sizes if n > COHORT]
    for name, rows in (("scale-one", whole), ("scale-sharded", sharded)):
        outcome = harness.result("secagg", name, arguments=arguments, figures={"rows": rows})
        harness.finish(outcome, as_json=as_json and name == "scale-one", save=save)


def one_session(clients: int, dropout: float, collusion: float, dim: int, bits: int) -> dict[str, Any]:
    """The round as one session, and how many coordinators share its server's work."""
    found = plan(Cohort(clients, dropout, collusion))
    cost = costs(found, dim, bits)
    client_s, server_s = estimate(found, cost, _units(found.degree, found.threshold, cost))
    coordinators = max(1, math.ceil(server_s / TARGET_S))
    return {
        **_common(clients, found.cohort.threat, found.degree, found.threshold, cost, client_s),
        "server_s": server_s,
        "server_received_gb": cost.server_received_bytes / 1e9,
        "coordinators": coordinators,
        "coordinator_s": server_s / coordinators,
        "coordinator_received_gb": cost.server_received_bytes / 1e9 / coordinators,
    }


def sessions(clients: int, dropout: float, collusion: float, dim: int, bits: int) -> dict[str, Any]:
    """The round as sessions of `COHORT` clients drawn at random; their totals are added in clear.

    Degree and threshold are those of the whole cohort: a client's neighbours are a random sample of everybody, and the
    failure bounds are for all sessions together.
    """
    whole = plan(Cohort(clients, dropout, collusion))
    found = replace(whole, cohort=replace(whole.cohort, clients=COHORT))
    cost = costs(found, dim, bits)
    client_s, server_s = estimate(found, cost, _units(found.degree, found.threshold, cost))
    shards = math.ceil(clients / COHORT)
    return {
        **_common(clients, found.cohort.threat, found.degree, found.threshold, cost, client_s),
        "coordinators": shards,
        "coordinator_s": server_s,
        "coordinator_received_gb": cost.server_received_bytes / 1e9,
        "total_mb": Ring(ring_bits(clients, bits)).packed_bytes(dim) / 1e6,
        "top_received_gb": shards * Ring(ring_bits(clients, bits)).packed_bytes(dim) / 1e9,
    }


def _units(degree: int, threshold: int, cost: Costs) -> Units:
    return calibrate(degree, threshold, Ring(cost.ring_bits))


def _common(
    clients: int, threat: str, degree: int, threshold: int, cost: Costs, client_s: float
) -> dict[str, Any]:
    return {
        "clients": clients,
        "threat": threat,
        "degree": degree,
        "threshold": threshold,
        "ring_bits": cost.ring_bits,
        "trips": cost.trips,
        "upload_kb": cost.upload_bytes / 1e3,
        "download_kb": cost.download_bytes / 1e3,
        "expansion": cost.expansion,
        "client_s": client_s,
    }
