"""`niid`: NIID-Bench's Fashion-MNIST (Li, Diao, Chen and He, ICDE 2022) over 10 parties, algorithm by algorithm.

Its CNN (two 5x5 convolutions of 6 and 16 channels, hidden layers of 120 and 84) and settings: SGD of 0.01, momentum
0.9, weight decay 1e-5, batches of 64, 10 local epochs, updates weighted by examples, everybody in every round. A full
run of 50 rounds takes hours: every arm keeps its rounds in `--work`, goes on from there, and a row says how many rounds
are left. Small arms (6,000 images, one hidden layer, two classes per party in equal parts) take seconds. The data are
read from SECAGG_DATA.
"""

from __future__ import annotations

import hashlib
import math
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import nn

from benchmarks.fl import arms

PARTIES, BATCH, RATE, MOMENTUM, DECAY = 10, 64, 0.01, 0.9, 1e-5
METHODS = ("fedavg", "fedprox", "fednova", "feddyn", "scaffold")
SPLITS = {
    "dirichlet(.5)": "dirichlet:alpha=0.5",
    "two classes": "class i and another at random",
    "small, two classes": "classes:per_client=2",
}
TWO = {"fedavg": (1.0, 0.1), "scaffold": (1.0, 0.3, 0.1), "scaffold, as published": (1.0,)}
"""Methods over two classes per party, with the factors on the local step size."""
STEPS = {1.0: "", 0.3: ", steps of a third", 0.1: ", small steps"}
SMALL_EXAMPLES, SMALL_RATE = 6000, 0.1


class Cell(NamedTuple):
    """An arm. steps: factor on the local step size."""

    split: str
    method: str
    rounds: int
    seed: int
    steps: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.split}, {self.method}{STEPS[self.steps]}, {self.rounds} rounds, seed {self.seed}"

    @property
    def small(self) -> bool:
        return self.split.startswith("small")


def cells() -> dict[str, Cell]:
    """Return every arm by its name."""
    found = {Cell("dirichlet(.5)", method, 50, 0) for method in ("fedavg", "scaffold")}
    found |= {Cell("dirichlet(.5)", method, 5, seed) for method in METHODS for seed in range(3)}
    found |= {
        Cell(split, method, 15, seed, steps)
        for split in ("two classes", "small, two classes")
        for method, factors in TWO.items()
        for steps in factors
        for seed in range(2)
    }
    return {cell.name: cell for cell in sorted(found)}


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("niid")(niid)


def niid(
    cell: Annotated[str, typer.Option(help="pattern of the arms to run")] = "*",
    minutes: Annotated[
        float, typer.Option(min=0, help="of processor time, after which rounds stop")
    ] = math.inf,
    rounds: Annotated[int, typer.Option(min=0, help="at most so many rounds of an arm (0: all)")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="local epochs")] = 10,
    examples: Annotated[int, typer.Option(min=0, help="training examples in all (0: every one)")] = 0,
    data: Annotated[str, typer.Option(help="data set of images")] = "fashion-mnist",
    work: Annotated[Path | None, typer.Option(help="folder of the arms' runs, to go on from")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """FedAvg, FedProx, FedNova, FedDyn and SCAFFOLD on NIID-Bench's Fashion-MNIST: accuracy, seed by seed."""
    torch.set_num_threads(1)
    limits = Limits(rounds, epochs, examples, time.process_time() + 60 * minutes, work)
    arguments: dict[str, Any] = {"data": data, "parties": PARTIES, "epochs": epochs, "examples": examples}
    arguments |= {"batch": BATCH, "learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY}
    arguments |= {"splits": SPLITS, "small_examples": SMALL_EXAMPLES, "small_learning_rate": SMALL_RATE}
    made = {name: partial(limits.play, data, of) for name, of in cells().items()}
    arms.play("niid", arguments, made, 0, as_json=as_json, save=save, only=cell)


class Limits:
    """What bounds a call of the case: rounds of an arm, local epochs, examples, processor time; where runs are kept."""

    def __init__(self, rounds: int, epochs: int, examples: int, until: float, work: Path | None) -> None:
        self.rounds, self.epochs, self.examples, self.until, self.work = rounds, epochs, examples, until, work

    def play(self, data: str, cell: Cell) -> dict[str, Any]:
        """Play an arm as far as the limits allow, on from its folder; nothing where no time is left."""
        if time.process_time() >= self.until:
            return {}
        federation, sizes = self._federation(data, cell)
        folder = federation.setup.output
        resume = folder is not None and (folder / "checkpoint.npz").exists()
        wanted, began = min(cell.rounds, self.rounds or cell.rounds), time.process_time()
        result = federation.fit(wanted, resume=resume, on_round=lambda _: time.process_time() < self.until)
        if lost := [played.abandoned for played in result.history if played.abandoned]:
            raise RuntimeError(f"{cell.name}: a round was abandoned: {lost[0]}")
        curve = [100 * played.metrics["accuracy"] for played in result.history]
        return {
            "split": cell.split,
            "method": cell.method,
            "seed": cell.seed,
            "rounds": len(curve),
            "left": cell.rounds - len(curve),
            "learning_rate": self._rate(cell),
            "accuracy": curve[-1],
            "best": max(curve),
            "curve": [round(value, 2) for value in curve],
            "sizes": sizes,
            "processor_s": time.process_time() - began,
        }

    @staticmethod
    def _rate(cell: Cell) -> float:
        return (SMALL_RATE if cell.small else RATE) * cell.steps

    def _federation(self, data: str, cell: Cell) -> tuple[Any, list[int]]:
        from benchmarks.fl import published
        from fl import Federation
        from fl.data import load
        from fl.data.partition import partition

        examples = load(data)
        rule = published.TwoClasses() if cell.split == "two classes" else SPLITS[cell.split]
        parts = partition(examples, rule, PARTIES, cell.seed)
        x, rate = images(examples.x_train), self._rate(cell)
        if most := self.examples or SMALL_EXAMPLES * cell.small:
            drawn = np.random.default_rng(cell.seed)
            parts = {who: drawn.permutation(rows)[: most // PARTIES] for who, rows in parts.items()}
        folder = (
            None if self.work is None else self.work / hashlib.sha256(cell.name.encode()).hexdigest()[:16]
        )
        made = Federation(
            partial(perceptron if cell.small else published.network, x.shape[-1], examples.classes),
            {
                who: arms.loader(x[own], examples.y_train[own], BATCH, shuffle=True)
                for who, own in parts.items()
            },
            strategy=strategy(cell.method),
            optimizer=lambda p: torch.optim.SGD(p, lr=rate, momentum=MOMENTUM, weight_decay=DECAY),
            local_epochs=self.epochs,
            test=arms.loader(images(examples.x_test), examples.y_test, 1000, shuffle=False),
            seed=cell.seed,
            bits=24,
            range=8.0,
            output=folder,
        )
        return made, [len(rows) for rows in parts.values()]


def strategy(method: str) -> Any:
    """Return a method as it is compared: updates weighted by examples, but FedDyn's, which has no such form."""
    from benchmarks.fl import published
    from fl import FedAvg, FedDyn, FedNova, FedProx, Scaffold

    if "as published" in method:
        return published.AsPublished()
    made = {
        "fedavg": FedAvg(),
        "fedprox": FedProx(0.01),
        "fednova": FedNova(usual=900),
        "feddyn": FedDyn(0.01),
    }
    return made.get(method) or Scaffold(option=2, control_clip=4.0, weighted=True)


def images(x: np.ndarray) -> np.ndarray:
    """Return images as float32 [n, 1, side, side], enlarged to 24 pixels and more where they are tiny (the digits)."""
    side = math.isqrt(x[0].size)
    times = max(1, 24 // side)
    found: np.ndarray = x.reshape(-1, 1, side, side).astype(np.float32).repeat(times, 2).repeat(times, 3)
    return found


def perceptron(side: int, classes: int) -> nn.Module:
    """Return a network of one hidden layer for images of one channel: an example costs a twentieth of the CNN's."""
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 64), nn.ReLU(), nn.Linear(64, classes))
