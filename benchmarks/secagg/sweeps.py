"""How a round grows with the number of clients, the length of the vector and the drop-outs; plots for the docs.

Each sweep is one result with a row per point; `plot` draws the figures from the kept results, without measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from benchmarks import harness, plots
from benchmarks.secagg.work import Round, Work, run

Row = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the commands to the suite."""
    app.command("sweep")(sweep)
    app.command("plot")(plot)


def sweep(
    name: Annotated[str, typer.Argument(help="clients, dim or dropout.")],
    clock: Annotated[str, typer.Option(help="wall or cpu.")] = "wall",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Also keep the result under docs/results.")] = False,
) -> None:
    """Measure one sweep."""
    if name not in SWEEPS:
        raise typer.BadParameter(f"no sweep {name!r}; the sweeps are {sorted(SWEEPS)}")
    run(Work(9, 20_000, 4, 3, 0.0, clock=clock))
    rows = []
    for row in SWEEPS[name](clock):
        typer.echo(f"{name}: {row}", err=True)
        rows.append(row)
    outcome = harness.result(
        "secagg",
        f"sweep-{name}",
        arguments={"clock": clock},
        figures={"rows": rows},
        seed=Work(3, 1, 2, 2, 0.0).seed,
    )
    harness.finish(outcome, as_json=as_json, save=save)


def by_clients(clock: str) -> Iterator[Row]:
    """Planned degree, 5 % corrupt, 10 % drop-out, 1,000 coordinates; two threat models."""
    for threat in ("semi-honest", "semi-malicious"):
        for clients in (50, 100, 200, 500, 1_000):
            work = Work(clients, 1_000, None, None, 0.1, threat=threat, collusion=0.05, clock=clock)
            yield _row(work, run(work))


def by_dim(clock: str) -> Iterator[Row]:
    """20 clients, 10 neighbours, 10 % drop-out; beside the peer."""
    for dim in (1_000, 10_000, 100_000, 1_000_000):
        yield from _beside_the_peer(Work(20, dim, 10, 6, 0.1, clock=clock))


def by_dropout(clock: str) -> Iterator[Row]:
    """20 clients, 10 neighbours, 100,000 coordinates; beside the peer."""
    for dropout in (0.0, 0.1, 0.2, 0.3):
        yield from _beside_the_peer(Work(20, 100_000, 10, 4, dropout, clock=clock))


SWEEPS: dict[str, Callable[[str], Iterator[Row]]] = {
    "clients": by_clients,
    "dim": by_dim,
    "dropout": by_dropout,
}


def _beside_the_peer(work: Work) -> Iterator[Row]:
    from benchmarks.secagg.flower import run_flower

    ours = min((run(work) for _ in range(3)), key=lambda r: r.server_s)
    yield _row(work, ours) | {"implementation": "secagg"}
    yield _row(work, run_flower(work)) | {"implementation": "Flower SecAgg+"}


def _row(work: Work, measured: Round) -> Row:
    return {
        "clients": work.clients,
        "dim": work.dim,
        "dropout": work.dropout,
        "threat": measured.facts.get("threat", "semi-honest"),
        "degree": measured.facts.get("degree", work.neighbours),
        "threshold": measured.facts.get("threshold", work.threshold),
        "client_mean_s": measured.client_mean_s,
        "server_s": measured.server_s,
        "bytes_up_per_client": measured.bytes_up_per_client,
        "bytes_down_per_client": measured.bytes_down_per_client,
        "peak_rss_mb": harness.peak_rss_mb(),
    }


def plot() -> None:
    """Draw the figures under docs/figures from the results kept under docs/results."""
    for outcome in harness.read_all("secagg.sweep-*"):
        variable = outcome.case.removeprefix("sweep-")
        group = "threat" if variable == "clients" else "implementation"
        for figure, fields in (("time", ("client_mean_s", "server_s")), ("bytes", _BYTES)):
            series: dict[str, plots.Line] = {}
            for label in dict.fromkeys(row[group] for row in outcome.figures["rows"]):
                rows = [row for row in outcome.figures["rows"] if row[group] == label]
                for name in fields:
                    series[f"{_LABELS[name]}, {label}"] = (
                        [r[variable] for r in rows],
                        [r[name] for r in rows],
                    )
            unit = "seconds" if figure == "time" else "bytes per client"
            log_x = variable != "dropout"
            path = plots.lines(
                f"secagg-{variable}-{figure}", series, x=_LABELS[variable], y=unit, log_x=log_x, log_y=True
            )
            typer.echo(f"written: {path.name}", err=True)


_BYTES = ("bytes_up_per_client", "bytes_down_per_client")
_LABELS = {
    "clients": "clients",
    "dim": "coordinates",
    "dropout": "share of clients that leave",
    "client_mean_s": "one client",
    "server_s": "server",
    "bytes_up_per_client": "up",
    "bytes_down_per_client": "down",
}
