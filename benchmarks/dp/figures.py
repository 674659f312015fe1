"""Figures of the suite `dp` for the docs, from kept results only. Measuring does not belong here."""

from __future__ import annotations

from typing import Any

from benchmarks import harness
from benchmarks.plots import Line, lines


def draw() -> None:
    """Draw what there are results for: mean estimation, and the trade-off over natural writers."""
    for outcome in harness.read_all("dp.mean"):
        lines(
            "dp-mean",
            _mean(outcome.figures["rows"]),
            x="epsilon",
            y="RMSE of the mean",
            log_x=True,
            log_y=True,
        )
    for outcome in harness.read_all("dp.femnist"):
        series = _tradeoff(outcome.figures["rows"])
        lines("dp-femnist", series, x="epsilon (per client, delta 0.001)", y="accuracy, per cent", log_x=True)


def _mean(rows: list[dict[str, Any]]) -> dict[str, Line]:
    series: dict[str, Line] = {}
    for clients in sorted({row["clients"] for row in rows}):
        mine = [row for row in rows if row["clients"] == clients]
        epsilons = [row["epsilon"] for row in mine]
        series[f"distributed, n = {clients}"] = (epsilons, [row["rmse"] for row in mine])
        series[f"central, n = {clients}"] = (epsilons, [row["central_rmse"] for row in mine])
    return series


def _tradeoff(rows: list[dict[str, Any]]) -> dict[str, Line]:
    series: dict[str, Line] = {}
    private = [row for row in rows if row["epsilon"] is not None]
    epsilons = sorted({row["epsilon"] for row in private})
    for layer in dict.fromkeys(row["layer"] for row in private):
        mine = {row["epsilon"]: row["accuracy"] for row in private if row["layer"] == layer}
        series[layer] = ([e for e in epsilons if e in mine], [mine[e] for e in epsilons if e in mine])
    for row in rows:
        if row["epsilon"] is None:
            series["no privacy"] = (epsilons, [row["accuracy"]] * len(epsilons))
    return series
