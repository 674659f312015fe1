"""The table that `secagg choose` reads, fl/choose/measured.json, from kept results. Measuring does not belong here."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import harness
from benchmarks.machine import ROOT
from dp import suggest

PATH = ROOT / "fl" / "choose" / "measured.json"
SUMS = {"none": "none", "secagg+": "secagg+", "ckks-keyholder": "ckks", "paillier-keyholder": "paillier"}
WRITERS, PARAMETERS, DELTA = 207, 14 * 14 * 62 + 62, 1e-3
"""Of the case dp.femnist: clients, parameters, delta."""


def table() -> dict[str, Any]:
    """`sums`: bytes and seconds per value, trips. `layers`: noise over signal (or epsilon) and the accuracy that was
    kept, a row for each measured run."""
    (compared,), (femnist,) = harness.read_all("he.compare-100000x10"), harness.read_all("dp.femnist")
    values = compared.arguments["values"]
    sums = {
        SUMS[row["protocol"]]: {
            "upload_bytes_per_value": row["upload_bytes_per_value"],
            "client_s_per_value": row["client_s"] / values,
            "trips": row["trips"],
        }
        for row in compared.figures["rows"]
        if row["protocol"] in SUMS
    }
    rows = femnist.figures["rows"]
    best = next(row["accuracy"] for row in rows if row["epsilon"] is None)
    layers = [_client(row, best) for row in rows if row["epsilon"] is not None]
    for kept in harness.read_all("tradeoff.stacks"):
        layers += _examples(kept.figures["rows"])
    return {
        "sources": ["he.compare-100000x10", "dp.femnist", "tradeoff.stacks"],
        "sums": sums,
        "layers": layers,
    }


def _client(row: dict[str, Any], best: float) -> dict[str, Any]:
    found = suggest(
        population=WRITERS,
        cohort=WRITERS,
        rounds=row["rounds"],
        dimension=PARAMETERS,
        epsilon=row["epsilon"],
        delta=DELTA,
        layer=row["layer"],
    )
    noise = float(f"{found.ratio:.4g}")
    return {
        "layer": row["layer"],
        "epsilon": row["epsilon"],
        "ratio": noise,
        "kept": round(row["accuracy"] / best, 4),
    }


def _examples(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of example-level noise, over the accuracy without noise on the same data."""
    best = {row["data"]: row["accuracy"] for row in rows if row["epsilon"] is None}
    mine = [row for row in rows if row["layer"] == "sample-dp"]
    return [
        {
            "layer": "sample-dp",
            "epsilon": row["epsilon"],
            "kept": round(row["accuracy"] / best[row["data"]], 4),
        }
        for row in mine
    ]


def written() -> str:
    """The table as the file holds it."""
    return json.dumps(table(), indent=1, sort_keys=True) + "\n"
