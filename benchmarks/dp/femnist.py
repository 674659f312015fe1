"""Case `femnist`: what client-level privacy costs, with 377 natural writers as clients: ClientDP,
DistributedDP and LocalDP.

A linear model on images averaged down to 14 x 14. The sums are taken in clear: masks give the same integers
bit for bit.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP
from fl import FedAvg, Federation
from fl.data.femnist import femnist
from protocols.layers import PrivacyLayer

DELTA, CLIP, RATE, SIDE = 1e-3, 2.0, 5.0, 14
"""delta is below one over the number of clients; clip and learning rate were chosen on training images, once for all
layers."""


def measure(
    data_dir: Path | None,
    work: Path,
    epsilons: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0),
    rounds: int = 20,
    seeds: int = 3,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Rows of layer, epsilon stated and accuracy on the writers' own test images, over the seeds.

    A finished run is kept in `work` and not taken again.
    """
    raw = femnist(data_dir, edition="leaf-sample")
    if raw.clients_train is None:
        raise RuntimeError("expected writers")
    train, owner = _small(raw.x_train), torch.from_numpy(raw.clients_train)
    labels = torch.from_numpy(raw.y_train)
    loaders = {
        name: DataLoader(TensorDataset(train[owner == i], labels[owner == i]), batch_size=20, shuffle=True)
        for i, name in enumerate(raw.client_names)
        if bool((owner == i).any())
    }
    test = DataLoader(TensorDataset(_small(raw.x_test), torch.from_numpy(raw.y_test)), batch_size=2000)
    kinds: dict[str, Callable[[float], PrivacyLayer]] = {
        "client-dp": lambda e: ClientDP(epsilon=e, delta=DELTA, clip=CLIP),
        "distributed-dp": lambda e: DistributedDP(epsilon=e, delta=DELTA, clip=CLIP),
        "local-dp": lambda e: LocalDP(epsilon=e, delta=DELTA, clip=CLIP),
    }

    def once(name: str, epsilon: float | None, seed: int) -> dict[str, Any]:
        path = work / f"femnist.{name}.{epsilon}.{rounds}.{seed}.json"
        if not path.exists():
            layers = [] if epsilon is None else [kinds[name](epsilon)]
            found = _run(name, epsilon, layers, loaders, test, rounds, seed, report)
            work.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found))
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept

    def row(name: str, epsilon: float | None) -> dict[str, Any]:
        runs = [once(name, epsilon, seed) for seed in range(1, seeds + 1)]
        scores = [run["accuracy"] for run in runs]
        spread = {
            "accuracy": statistics.mean(scores),
            "accuracy_sd": statistics.stdev(scores) if seeds > 1 else None,
        }
        return runs[0] | spread | {"accuracies": scores, "seeds": seeds}

    rows = [row("none", None), *(row(name, epsilon) for epsilon in reversed(epsilons) for name in kinds)]
    return {"rows": rows, "clients": len(loaders)}


def _small(images: Any) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(torch.from_numpy(images), SIDE)


def _run(
    name: str,
    epsilon: float | None,
    layers: list[PrivacyLayer],
    loaders: dict[str, Any],
    test: Any,
    rounds: int,
    seed: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    federation = Federation(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 62)),
        clients=loaders,
        strategy=FedAvg(),
        privacy=layers,
        learning_rate=RATE,
        seed=seed,
        delta=DELTA,
    )
    outcome = federation.fit(rounds=rounds)
    from fl.training import evaluate

    accuracy = 100 * evaluate(outcome.model, test, nn.CrossEntropyLoss())["accuracy"]
    report(f"{name} epsilon {epsilon}: {accuracy:.2f} %")
    return {
        "layer": name,
        "epsilon": epsilon,
        "stated": outcome.epsilon,
        "accuracy": accuracy,
        "rounds": rounds,
    }
