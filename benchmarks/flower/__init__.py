"""Suite `flower`: a protected round on a real deployment, beside the same app unprotected and Flower's own SecAgg+, on
the same nodes and model.

The apps that are submitted lie in `ours`, `plain` and `peer`; nobody trains, so that a round is the protocol, the
transport and the start of a process per message; ours and the plain one import torch to train, as apps do. All run on
one deployment, one after the other.
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
    nodes: Annotated[int, typer.Option(min=3, help="SuperNodes.")] = 4,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of ours and of the unprotected app.")] = 10,
    dim: Annotated[int, typer.Option(help="Values of the model.")] = 100_000,
    peer: Annotated[int, typer.Option(min=0, help="Rounds of Flower's own SecAgg+; 0: none.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    save: Annotated[bool, typer.Option(help="Also write it under docs/results.")] = False,
) -> None:
    """Wall seconds of a round: ours with the default layers, unprotected, and Flower's SecAgg+."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Loopback(folder, nodes) as deployment:
            for node in deployment.files.nodes:  # names are node ids here: both sides know no roster
                (node.identity.parent / "site.toml").unlink()
            for who, count in (("ours", rounds), ("plain", rounds), ("peer", peer)):
                rows[who] = _run(deployment, folder, who, nodes, count, dim) if count else []
    kept = [r for r in rows["ours"] if r["abandoned"] is None]
    seconds = {who: statistics.mean(r["seconds"] for r in found) for who, found in rows.items() if found}
    figures: dict[str, Any] = {
        "ours_abandoned": rounds - len(kept),
        "ours_trips_per_round": statistics.mean(r["trips"] for r in kept),
        **{
            f"ours_{part}_s": statistics.mean(r[part] for r in kept) for part in ("node", "server", "waiting")
        },
        **{f"{who}_round_s": found for who, found in seconds.items()},
        **{f"ours_over_{who}": seconds["ours"] / found for who, found in seconds.items() if who != "ours"},
        "rows": [{"who": who, **row} for who, found in rows.items() for row in found],
    }
    arguments = {"nodes": nodes, "rounds": rounds, "dim": dim, "peer": peer}
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
