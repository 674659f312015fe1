"""Training with correlated noise beside independent noise and none: FEMNIST's writers in turns, and Fashion-MNIST over
20 clients in a fixed order. Every run is one arm and one seed, kept in a folder of work, so that a series goes on;
seeds come before arms.

Learning rates, how they fall, clips and server steps were chosen on training images alone, with one seed: on 10,000
held-out ones of Fashion-MNIST (trained centrally on the other 50,000 with the same C' and noise multiplier, noise in
floats), and on a fifth of every FEMNIST writer's. FEMNIST's test images are of other writers too, and harder.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.dp import fashion, models
from dp import ClientDP, DistributedDP
from fl import FedAvg, Federation
from fl.data.femnist import femnist
from protocols.layers import PrivacyLayer
from secagg import SecAggPlus

SIDE, ROUNDS, TURNS, DELTA = 14, 100, 10, 1e-3


@dataclass(frozen=True)
class Arm:
    """One way to train. epochs, batches: of Fashion-MNIST. correlation: None for independent noise; private: False for
    none at all. bands: with amplification. dropout: share of the asked that leave (FEMNIST). power: 1 for a learning
    rate that falls linearly, 2 for 1 - t^2, which correlated noise likes better: it leaves what the rate falls by.
    """

    name: str
    correlation: str | None = "banded"
    private: bool = True
    epochs: int = 0
    batches: int = 0
    bands: int | None = None
    dropout: float = 0.0
    clip: float = 0.1
    rate: float = 1.0
    server: float = 1.0
    power: int = 1


FEMNIST = (
    Arm("none", private=False, rate=8.0),
    Arm("independent", correlation=None, clip=0.5, server=0.5),
    Arm("banded", clip=1.0, server=1.5),
    Arm("banded, a tenth leaves", clip=1.0, server=1.5, dropout=0.1),
)
FASHION = (
    Arm("banded, 40 epochs", epochs=40, batches=15, rate=10.0, power=2),
    Arm("banded, 10 epochs", epochs=10, batches=30, rate=26.0, power=2),
    Arm("amplified within 4 bands, 10 epochs", epochs=10, batches=30, bands=4, rate=12.0, power=6),
    Arm("independent, 10 epochs", correlation=None, epochs=10, batches=30, rate=4.0),
)
CASES = {"femnist": FEMNIST, "fashion": FASHION}


def measure(
    seeds: int, data_dir: Path | None, work: Path, only: str | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """Run what is missing of the arms that `only` names (a case, or CASE/ARM), and sum up what is there."""
    for case, arms in CASES.items():
        for seed in range(1, seeds + 1):
            for arm in arms if only == case else [arm for arm in arms if only == f"{case}/{arm.name}"]:
                path = work / f"banded.{case}.{arm.name}.{seed}.json"
                if not path.exists():
                    began = time.process_time()
                    found = {"femnist": _femnist, "fashion": _fashion}[case](arm, seed, data_dir, work)
                    found["processor_s"] = time.process_time() - began
                    work.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(found))
                    report(f"{path.name}: {found['accuracy']:.2f} %")
    return {case: [row for arm in arms if (row := _row(case, arm, work))] for case, arms in CASES.items()}


def _row(case: str, arm: Arm, work: Path) -> dict[str, Any] | None:
    runs = [
        json.loads(path.read_text()) for path in sorted(work.glob(f"banded.{case}.{arm.name}.[0-9]*.json"))
    ]
    if not runs:
        return None
    scores = [run["accuracy"] for run in runs]
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    common = {"arm": arm.name, "seeds": len(runs), "accuracy": statistics.mean(scores), "accuracy_sd": spread}
    return common | {
        "epsilon": runs[0]["epsilon"],
        "processor_s": statistics.median(r["processor_s"] for r in runs),
    }


def _femnist(arm: Arm, seed: int, data_dir: Path | None, work: Path) -> dict[str, Any]:
    """207 writers in ten turns, 100 rounds, a linear model on 14 x 14 pixels, epsilon 8 at delta 1e-3 per writer."""
    raw = femnist(data_dir, edition="leaf-sample")
    assert raw.clients_train is not None
    small = [
        nn.functional.adaptive_avg_pool2d(torch.from_numpy(images), SIDE)
        for images in (raw.x_train, raw.x_test)
    ]
    owner, labels = torch.from_numpy(raw.clients_train), torch.from_numpy(raw.y_train)
    loaders = {
        name: DataLoader(TensorDataset(small[0][owner == i], labels[owner == i]), batch_size=20, shuffle=True)
        for i, name in enumerate(raw.client_names)
        if bool((owner == i).any())
    }
    options: dict[str, Any] = {"epsilon": 8.0, "delta": DELTA, "clip": arm.clip}
    if arm.correlation:
        options |= {"correlation": "banded", "min_separation": TURNS}
    layers: list[PrivacyLayer] = [ClientDP(**options)] if arm.private else []
    federation = Federation(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 62)),
        clients=loaders,
        strategy=FedAvg(server_lr=arm.server, weighted=False),
        privacy=layers,
        learning_rate=arm.rate,
        sampling="cyclic",
        fraction=1 / TURNS,
        dropout=arm.dropout,
        metrics=(),
        seed=seed,
        delta=DELTA,
    )
    outcome = federation.fit(rounds=ROUNDS)
    accuracy = models.accuracy(outcome.model, small[1], torch.from_numpy(raw.y_test))
    return {"accuracy": accuracy, "epsilon": max((g.epsilon for g in outcome.guarantees), default=None)}


def _fashion(arm: Arm, seed: int, data_dir: Path | None, work: Path) -> dict[str, Any]:
    """Scattering features and a linear model over 20 clients with masks, (3, 1e-5) per example."""
    data = fashion.load(fashion.SCATTERING, data_dir, work)
    examples, rounds = len(data.train), arm.epochs * arm.batches
    parts = np.array_split(np.random.default_rng(seed).permutation(examples), fashion.CLIENTS)
    loaders = {f"client-{i:02d}": fashion._loader(data.train, part) for i, part in enumerate(parts)}
    options: dict[str, Any] = {
        "epsilon": fashion.EPSILON,
        "delta": fashion.DELTA,
        "clip": 0.1,
        "unit": "example",
        "accountant": "pld",
    }
    if arm.correlation:
        options |= {"correlation": "banded", "batches": arm.batches, "epochs": arm.epochs, "bands": arm.bands}
        options |= {"momentum": 0.9, "amplify": arm.bands is not None}
    else:  # every example in a round by a coin that nobody counts on
        options |= {"sample_rate": 1 / arm.batches}
        options |= {"epsilon": None, "noise_multiplier": _unsampled(arm)}
    recipe = fashion.Recipe("scattering-linear", examples // arm.batches, arm.epochs, arm.rate, 0.1)
    federation = Federation(
        model=lambda: fashion.build(fashion.SCATTERING),
        clients=loaders,
        strategy=fashion.Momentum(recipe, rounds, arm.power),
        privacy=[DistributedDP(examples=examples, **options), SecAggPlus(setup="reuse")],
        loss=models.loss,
        seed=seed,
        delta=fashion.DELTA,
    )
    outcome = federation.fit(rounds=rounds)
    accuracy = models.accuracy(outcome.model, data.inputs, data.labels)
    if any(abandoned := [result.abandoned for result in outcome.history]):
        raise RuntimeError(f"a round was abandoned: {abandoned}")
    return {"accuracy": accuracy, "epsilon": outcome.epsilon if arm.correlation else fashion.EPSILON}


def _unsampled(arm: Arm) -> float:
    """Independent noise for an example in each of `epochs` rounds, whoever knows which."""
    from dp.calibration import noise_multiplier

    return noise_multiplier(epsilon=fashion.EPSILON, delta=fashion.DELTA, steps=arm.epochs, accountant="pld")
