"""Flower's simulation (Ray) as an engine of `secagg run`: the same apps, virtual nodes in this machine's processes.

What does not belong here: apps, rounds.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.simulation import run_simulation as run_flower_simulation

from fl.checkpoint import begun, rounds_in
from fl.flower.mod import SIMULATION
from fl.network.server_party import helpers_of
from fl.round import RoundResult
from fl.run_result import Result
from protocols.errors import Misuse, SecAggError


def simulate_federation(
    federation: Any,
    rounds: int,
    *,
    on_round: Callable[[RoundResult], Any] | None = None,
    processes: int | None = None,
) -> Result:
    """Run a Federation on Flower's simulation engine, one virtual node per client (and per helper of its secure sum).

    processes: nodes that compute at once (default: this machine's cores). Raises SecAggError if the run failed.
    """
    results: list[Result] = []
    share_simulated_keys(federation.setup.stack)
    server = federation.server_app(rounds, on_round=on_round, on_result=results.append)
    ray: dict[str, Any] = {
        "num_cpus": processes or os.cpu_count() or 1,
        "logging_level": 40,
        "log_to_driver": False,
    }
    helpers = len(helpers_of(federation.setup.stack.secure_sum))
    with tempfile.TemporaryDirectory(prefix="secagg-simulation-", ignore_cleanup_errors=True) as nodes:
        run_flower_simulation(
            server_app=server,
            client_app=federation.client_app(site=f"{SIMULATION}:{nodes}"),
            num_supernodes=len(federation.setup.names) + helpers,
            backend_config={"init_args": ray, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    if not results:
        raise SecAggError("Flower's simulation ended without a result; its log says why")
    return results[0]


def share_simulated_keys(stack: Any) -> None:
    """Make simulated Paillier keys here, once: else every process of the simulation would make its own."""
    if stack.secure_sum.name == "paillier":
        stack.secure_sum = stack.secure_sum.shared_keys()


def run_simulation(
    parts: Any, folder: Path, *, resume: bool = False, on_round: Callable[[RoundResult], Any] | None = None
) -> Result:
    """Run what `secagg run --engine flower-simulation` was told. Raises Misuse for a folder that holds rounds
    already; a run that was cut off in its first round may be started over or resumed.
    """
    if rounds_in(folder) and not resume:
        raise Misuse(f"{folder} holds a run already: resume it, or name another folder")
    if not begun(folder) and resume:
        raise Misuse(f"nothing to resume in {folder}: there is no checkpoint")
    for name, usual in (("dropout", 0), ("delays", 0), ("workers", 1)):
        if getattr(parts.config, name) != usual:
            raise Misuse(
                f"{name} is played by the engine in memory only: leave it out, or take --engine memory"
            )
    return simulate_federation(parts.federation(folder), parts.config.rounds, on_round=on_round)
