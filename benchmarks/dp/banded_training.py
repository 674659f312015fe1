"""Training with correlated noise beside independent noise and none: FEMNIST's writers in turns, and Fashion-MNIST over
20 clients in a fixed order. Every run is one arm and one seed, kept in a folder of work, so that a series goes on;
seeds come before arms. Independent noise is one band: the same turns, and the same price of a participation.

Settings were chosen on training images alone: FEMNIST's by `banded_search`, Fashion-MNIST's by hand before it.
FEMNIST's test images are of other writers too, and harder.
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
from fl import FedAvgM, Federation
from fl.data.femnist import femnist
from fl.strategies.base import Floats
from protocols.layers import PrivacyLayer
from secagg import SecAggPlus

SIDE, ROUNDS, TURNS, DELTA = 14, 100, 10, 1e-3


@dataclass(frozen=True)
class Arm:
    """One way to train. epochs, batches: of Fashion-MNIST. private: False for no noise. bands: of C', 1 for independent
    noise. amplify: sampled within bands. dropout: share of the asked that leave (FEMNIST). rate: learning rate;
    FEMNIST's clients have it, and the server `server`. The server's falls as 1 - t^power.
    """

    name: str
    private: bool = True
    epochs: int = 0
    batches: int = 0
    bands: int | None = None
    amplify: bool = False
    dropout: float = 0.0
    clip: float = 0.1
    rate: float = 1.0
    server: float = 1.0
    power: float = 2
    momentum: float = 0.9


FEMNIST = (
    Arm("none", private=False, rate=2.02, server=4.45),
    Arm("independent", bands=1, rate=3.36, clip=0.0782, server=23.7, momentum=0.0),
    Arm("banded", rate=7.62, clip=0.151, server=20.5, momentum=0.5),
    Arm("banded, a tenth leaves", rate=7.62, clip=0.151, server=20.5, momentum=0.5, dropout=0.1),
)
FASHION = (
    Arm("banded, 40 epochs", epochs=40, batches=15, rate=10.0),
    Arm("banded, 10 epochs", epochs=10, batches=30, rate=26.0),
    Arm(
        "amplified within 4 bands, 10 epochs",
        epochs=10,
        batches=30,
        bands=4,
        amplify=True,
        rate=12.0,
        power=6,
    ),
    Arm("independent, 10 epochs", epochs=10, batches=30, bands=1, rate=4.0),
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


def gap_closed(rows: list[dict[str, Any]]) -> float | None:
    """How much of the gap between independent noise and none correlated noise closes, in per cent."""
    scores = {row["arm"]: row["accuracy"] for row in rows}
    if not {"none", "independent", "banded"} <= scores.keys():
        return None
    return float(100 * (scores["banded"] - scores["independent"]) / (scores["none"] - scores["independent"]))


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


class Falling(FedAvgM):
    """FedAvg with momentum, whose server's learning rate falls to zero."""

    def __init__(self, arm: Arm) -> None:
        super().__init__(arm.momentum, arm.server, weighted=False)
        self.power, self.taken = arm.power, 0

    def step(self, mean: Floats) -> Floats:
        falling = 1 - (self.taken / ROUNDS) ** self.power
        self.taken += 1
        moved: Floats = falling * super().step(mean)
        return moved


def client_layer(arm: Arm) -> ClientDP:
    """FEMNIST's: epsilon 8 at delta 1e-3 per writer, in turns."""
    return ClientDP(
        epsilon=8.0,
        delta=DELTA,
        clip=arm.clip,
        correlation="banded",
        min_separation=TURNS,
        bands=arm.bands,
        momentum=arm.momentum,
    )


def example_layer(arm: Arm, examples: int) -> DistributedDP:
    """Fashion-MNIST's: (3, 1e-5) per example."""
    return DistributedDP(
        epsilon=fashion.EPSILON,
        delta=fashion.DELTA,
        clip=arm.clip,
        unit="example",
        examples=examples,
        accountant="pld",
        correlation="banded",
        batches=arm.batches,
        epochs=arm.epochs,
        bands=arm.bands,
        momentum=arm.momentum,
        amplify=arm.amplify,
    )


def writers(data_dir: Path | None) -> tuple[torch.Tensor, ...]:
    """FEMNIST at 14 x 14 pixels: training images, labels and writers, and test images and labels."""
    raw = femnist(data_dir, edition="leaf-sample")
    assert raw.clients_train is not None
    train, test = (
        nn.functional.adaptive_avg_pool2d(torch.from_numpy(images), SIDE)
        for images in (raw.x_train, raw.x_test)
    )
    train_y, owner, test_y = map(torch.from_numpy, (raw.y_train, raw.clients_train, raw.y_test))
    return train, train_y, owner, test, test_y


def _femnist(arm: Arm, seed: int, data_dir: Path | None, work: Path) -> dict[str, Any]:
    """207 writers in ten turns, 100 rounds, a linear model on 14 x 14 pixels."""
    images, labels, owner, tested, truth = writers(data_dir)
    loaders = {
        f"writer-{i}": DataLoader(
            TensorDataset(images[owner == i], labels[owner == i]), batch_size=20, shuffle=True
        )
        for i in sorted(set(owner.tolist()))
    }
    layers: list[PrivacyLayer] = [client_layer(arm)] if arm.private else []
    federation = Federation(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 62)),
        clients=loaders,
        strategy=Falling(arm),
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
    accuracy = models.accuracy(outcome.model, tested, truth)
    return {"accuracy": accuracy, "epsilon": max((g.epsilon for g in outcome.guarantees), default=None)}


def _fashion(arm: Arm, seed: int, data_dir: Path | None, work: Path) -> dict[str, Any]:
    """Scattering features and a linear model over 20 clients with masks."""
    data = fashion.load(fashion.SCATTERING, data_dir, work)
    examples, rounds = len(data.train), arm.epochs * arm.batches
    parts = np.array_split(np.random.default_rng(seed).permutation(examples), fashion.CLIENTS)
    loaders = {f"client-{i:02d}": fashion._loader(data.train, part) for i, part in enumerate(parts)}
    recipe = fashion.Recipe(
        "scattering-linear", examples // arm.batches, arm.epochs, arm.rate, arm.clip, arm.momentum
    )
    federation = Federation(
        model=lambda: fashion.build(fashion.SCATTERING),
        clients=loaders,
        strategy=fashion.Momentum(recipe, rounds, arm.power),
        privacy=[example_layer(arm, examples), SecAggPlus(setup="reuse")],
        loss=models.loss,
        seed=seed,
        delta=fashion.DELTA,
    )
    outcome = federation.fit(rounds=rounds)
    if any(abandoned := [result.abandoned for result in outcome.history]):
        raise RuntimeError(f"a round was abandoned: {abandoned}")
    return {"accuracy": models.accuracy(outcome.model, data.inputs, data.labels), "epsilon": outcome.epsilon}
