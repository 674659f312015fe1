"""Suite `flower`: a protected round on a real deployment, beside Flower's own SecAgg+ on the same nodes and
model.

The apps that are submitted lie in `ours` and `peer`; nobody trains, so that a round is the protocol, the
transport and the start of a process per message. Both run on one deployment, one after the other.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import harness
from examples.flower.loopback import Loopback

app = typer.Typer(add_completion=False, help="A protected round on a real deployment.")
HERE = Path(__file__).parent


@app.command()
def latency(
    nodes: Annotated[int, typer.Option(min=3, help="SuperNodes.")] = 3,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each; ours makes its keys in the first.")] = 3,
    dim: Annotated[int, typer.Option(help="Values of the model.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Also write it under docs/results.")] = False,
) -> None:
    """Wall seconds of a round: ours (two trips after the first round) and Flower's SecAgg+ (four)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Loopback(folder, nodes) as deployment:
            for node in deployment.files.nodes:  # names are node ids here: both sides know no roster
                (node.identity.parent / "site.toml").unlink()
            ours = _run(deployment, folder, "ours", nodes, rounds, dim)
            peer = _run(deployment, folder, "peer", nodes, rounds, dim)
    later = [r for r in ours[1:] if r["abandoned"] is None]
    mine, theirs = (statistics.median(r["seconds"] for r in rows) for rows in (later, peer))
    figures: dict[str, Any] = {
        "ours_round_s": mine,
        "ours_first_round_s": ours[0]["seconds"],
        "ours_trips": later[0]["trips"],
        "ours_node_s": statistics.median(r["node"] for r in later),
        "ours_server_s": statistics.median(r["server"] for r in later),
        "ours_waiting_s": statistics.median(r["waiting"] for r in later),
        "peer_round_s": theirs,
        "peer_trips": 4,
        "ours_over_peer": mine / theirs,
        "rows": [{"who": who, **row} for who, rows in (("ours", ours), ("peer", peer)) for row in rows],
    }
    arguments = {"nodes": nodes, "rounds": rounds, "dim": dim}
    outcome = harness.result("flower", "latency", arguments=arguments, figures=figures)
    harness.finish(outcome, as_json=as_json, save=save)


def _run(
    deployment: Loopback, folder: Path, name: str, nodes: int, rounds: int, dim: int
) -> list[dict[str, Any]]:
    times = folder / f"{name}.json"
    config = {"nodes": nodes, "rounds": rounds, "size": dim, "times": str(times)}
    run_id = deployment.submit(HERE / name, config)
    status = deployment.wait(run_id, 1800)
    if not times.exists():
        raise RuntimeError(f"{name}: {status}\n{deployment.logs(run_id)[-3000:]}")
    return list(json.loads(times.read_text()))
