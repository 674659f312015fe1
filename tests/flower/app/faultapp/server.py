"""The server: FedAvg under PrivateStrategy, with everything it writes in the folder of the run configuration."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from faultapp.layers import layers
from fl.flower.arrays import arrays_of
from fl.flower.strategy import PrivateStrategy
from protocols.identity import Identity, SignedRoster

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    nodes, folder = int(config["nodes"]), Path(str(config["folder"]))
    options: dict[str, Any] = {"metrics": ["loss"]}
    if (
        config["privacy"] == "soak"
    ):  # noise covers no metric, and what it spends is in a ledger beside the run
        from dp import Ledger

        options = {
            "ledger": Ledger(folder.parent / "server.ledger", epsilon=1e6, delta=1e-5, accountant="rdp")
        }
    strategy = PrivateStrategy(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes),
        layers(str(config["privacy"])),
        folder=folder,
        roster=SignedRoster.load(Path(str(config["roster"]))),
        authority=bytes.fromhex(str(config["authority"])),
        identity=Identity.load(Path(str(config["identity"]))),
        stage_timeout=float(config["seconds"]),
        **options,
    )
    start = {"weight": np.zeros(int(config["size"]), np.float32)}
    try:
        strategy.start(grid, arrays_of(start), num_rounds=int(config["rounds"]))
    finally:
        reports = [
            {
                "asked": r.asked,
                "survivors": r.survivors,
                "refusals": r.refusals,
                "abandoned": r.abandoned,
                "seconds": r.seconds,
                "trips": [[t.stage, t.seconds, t.node, t.waiting] for t in r.trips],
            }
            for r in strategy.history
        ]
        (folder / "reports.json").write_text(json.dumps(reports))
