"""Case `fashion-mnist`: private training at example level, centrally and over 20 clients with distributed
noise and masks.

Every run is one model, one place and one seed; its result is kept beside the others, so that a broken-off
series goes on where it stopped. Hyperparameters were chosen on 10,000 held-out training images, never on
the test set.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.dp import models
from benchmarks.dp.scattering import features
from dp import DistributedDP
from dp.accountants import accountant
from dp.calibration import noise_multiplier, sampled_gaussian
from dp.events import Relation, Unit
from dp.layering import integer_sigma
from dp.mechanisms import discrete_gaussian
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.sample.gradients import clipped_sum
from fl import Federation, FedSGD
from fl.data.images import fashion_mnist
from protocols.randomness import SystemRandom
from secagg import SecAggPlus

EPSILON, DELTA, CLIENTS = 3.0, 1e-5, 20
FINE_BITS = 20


@dataclass(frozen=True)
class Recipe:
    """One model's hyperparameters. batch: expected examples in a step; the learning rate falls linearly to
    zero."""

    name: str
    batch: int
    epochs: int
    rate: float
    clip: float
    momentum: float = 0.9

    def steps(self, examples: int) -> int:
        return max(1, round(self.epochs * examples / self.batch))

    def multiplier(self, examples: int) -> float:
        """Noise for (EPSILON, DELTA) under RDP, so that the tighter PLD price lies below it too."""
        return noise_multiplier(
            epsilon=EPSILON,
            delta=DELTA,
            steps=self.steps(examples),
            rate=self.batch / examples,
            accountant="rdp",
            relation=Relation.ADD_REMOVE,
        )


SCATTERING = Recipe("scattering-linear", batch=8192, epochs=40, rate=24.0, clip=0.1)
CNN = Recipe("cnn", batch=2048, epochs=40, rate=8.0, clip=0.1)
RECIPES = {recipe.name: recipe for recipe in (SCATTERING, CNN)}


@dataclass(frozen=True)
class Data:
    """Inputs and labels, training and test."""

    train: TensorDataset
    inputs: torch.Tensor
    labels: torch.Tensor


def load(recipe: Recipe, data_dir: Path | None, cache: Path, *, standardised: bool = True) -> Data:
    """Images, each with mean 0 and deviation 1 by itself (else scaled by constants), or their scattering
    features (computed once, kept in `cache`)."""
    raw = fashion_mnist(data_dir)
    parts = []
    for split, images in (("train", raw.x_train), ("test", raw.x_test)):
        if recipe.name == SCATTERING.name:
            parts.append(_cached(cache / f"scattering-{split}.npy", images))
        else:
            parts.append(_scaled(torch.from_numpy(np.array(images, np.float32)), standardised))
    train_y, test_y = (torch.from_numpy(np.array(y, np.int64)) for y in (raw.y_train, raw.y_test))
    return Data(TensorDataset(parts[0], train_y), parts[1], test_y)


def _scaled(images: torch.Tensor, standardised: bool) -> torch.Tensor:
    """No image's values depend on another's, so that scaling costs no privacy."""
    if not standardised:
        return (images - 0.3) / 0.35
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    return centred / (images.std(dim=(1, 2, 3), keepdim=True) + 0.1)


def _cached(path: Path, images: NDArray[Any]) -> torch.Tensor:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = features(torch.from_numpy(np.array(images, np.float32)).squeeze(1))
        np.save(path, made.flatten(1).numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c"))  # runs beside each other share it


def build(recipe: Recipe) -> torch.nn.Module:
    return models.linear() if recipe.name == SCATTERING.name else models.tempered_cnn()


class Momentum(FedSGD):
    """FedSGD with momentum and a learning rate that falls to zero, linearly or as a higher `power` of time; both
    work on what is released already."""

    def __init__(self, recipe: Recipe, steps: int, power: float = 1) -> None:
        super().__init__(lr=recipe.rate, weighted=False)
        self.recipe, self.steps, self.taken, self.power = recipe, steps, 0, power
        self.velocity: NDArray[np.float64] = np.zeros(1)

    def step(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        self.velocity = np.asarray(self.recipe.momentum * self.velocity + mean, np.float64)
        falling = 1 - (self.taken / self.steps) ** self.power
        self.taken += 1
        moved: NDArray[np.float64] = self.recipe.rate * falling * self.velocity
        return moved


def central(recipe: Recipe, data: Data, seed: int, report: Callable[[str], None]) -> dict[str, float]:
    """DP-SGD by one trusted party, noise drawn on the integer grid."""
    torch.manual_seed(seed)
    model, random = build(recipe), SystemRandom()
    examples = len(data.train)
    steps, multiplier = recipe.steps(examples), recipe.multiplier(examples)
    parameters = dict(model.named_parameters())
    dims = sum(p.numel() for p in parameters.values())
    grid = noise_step(multiplier * recipe.clip, FINE_BITS)
    sigma = integer_sigma(multiplier, rounded_bound(recipe.clip, dims, grid))
    optimizer = Momentum(recipe, steps)
    loader = DataLoader(data.train, batch_size=recipe.batch)
    began = time.perf_counter()
    for step in range(steps):
        named, _ = clipped_sum(
            model,
            models.loss,
            loader,
            rate=recipe.batch / examples,
            clip=recipe.clip,
            step=grid,
            random=random,
        )
        total = np.concatenate([named[name].reshape(-1) for name in parameters])
        noised = (total + discrete_gaussian(random, sigma, dims)).astype(np.float64)
        _move(parameters, optimizer.step(noised * (-grid / recipe.batch)))
        if (step + 1) % max(1, steps // 8) == 0:
            report(f"{recipe.name} central seed {seed}: step {step + 1} of {steps}")
    figures = {
        "accuracy": models.accuracy(model, data.inputs, data.labels),
        "seconds": time.perf_counter() - began,
    }
    return figures | _prices(multiplier, recipe, examples)


def _move(parameters: dict[str, torch.nn.Parameter], difference: NDArray[np.float64]) -> None:
    at = 0
    with torch.no_grad():
        for p in parameters.values():
            p.add_(torch.from_numpy(difference[at : at + p.numel()]).reshape(p.shape).to(p.dtype))
            at += p.numel()


def _prices(multiplier: float, recipe: Recipe, examples: int) -> dict[str, float]:
    event = sampled_gaussian(multiplier, recipe.batch / examples, Unit.EXAMPLE, Relation.ADD_REMOVE)
    steps = recipe.steps(examples)
    return {f"epsilon_{name}": accountant(name).add(event, steps).epsilon(DELTA) for name in ("rdp", "pld")}


def federated(recipe: Recipe, data: Data, seed: int, report: Callable[[str], None]) -> dict[str, float]:
    """The same training over 20 clients: nobody ever sees a sum without noise."""
    examples = len(data.train)
    steps = recipe.steps(examples)
    parts = np.array_split(np.random.default_rng(seed).permutation(examples), CLIENTS)
    loaders = {f"client-{i:02d}": _loader(data.train, part) for i, part in enumerate(parts)}
    layer = DistributedDP(
        noise_multiplier=recipe.multiplier(examples),
        delta=DELTA,
        clip=recipe.clip,
        unit="example",
        sample_rate=recipe.batch / examples,
        examples=examples,
    )
    federation = Federation(
        model=lambda: build(recipe),
        clients=loaders,
        strategy=Momentum(recipe, steps),
        privacy=[layer, SecAggPlus(setup="reuse")],
        loss=models.loss,
        seed=seed,
        delta=DELTA,
    )
    began = time.perf_counter()

    def tell(result: Any) -> None:
        if result.number % max(1, steps // 8) == 0:
            report(f"{recipe.name} federated seed {seed}: round {result.number} of {steps}")

    outcome = federation.fit(rounds=steps, on_round=tell)
    abandoned = [result.abandoned for result in outcome.history if result.abandoned]
    if abandoned:
        raise RuntimeError(f"{len(abandoned)} rounds were abandoned: {abandoned[0]}")
    figures = {
        "accuracy": models.accuracy(outcome.model, data.inputs, data.labels),
        "seconds": time.perf_counter() - began,
    }
    figures["bytes_up_per_client_and_round"] = outcome.history[-1].bytes_up_per_client
    events = outcome.statement.events
    from dp.event_json import from_fact

    for name in ("rdp", "pld"):
        account = accountant(name)
        account.add(from_fact(events[0]), len(events))
        figures[f"epsilon_{name}"] = account.epsilon(DELTA)
    return figures


def _loader(data: TensorDataset, part: NDArray[np.int64]) -> DataLoader[Any]:
    index = torch.from_numpy(np.sort(part))
    return DataLoader(TensorDataset(*(t[index] for t in data.tensors)), batch_size=256)


PLACES: dict[str, Callable[..., dict[str, float]]] = {"central": central, "federated": federated}


def measure(
    seeds: int, data_dir: Path | None, work: Path, only: str | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """Run what is missing of recipes x places x seeds, and sum up what is there. only: "RECIPE", "PLACE" or
    "RECIPE/PLACE"."""
    loaded: dict[str, Data] = {}
    for seed in range(1, seeds + 1):
        for recipe in RECIPES.values():
            for place, run in PLACES.items():
                path = work / f"{recipe.name}.{place}.{seed}.json"
                if only not in (None, recipe.name, place, f"{recipe.name}/{place}") or _done(path, recipe):
                    continue
                if recipe.name not in loaded:
                    loaded[recipe.name] = load(recipe, data_dir, work)
                figures = run(recipe, loaded[recipe.name], seed, report)
                work.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"recipe": asdict(recipe), "figures": figures}))
                report(f"{path.name}: {figures['accuracy']:.2f} %")
    return {
        "rows": [row for recipe in RECIPES.values() for place in PLACES if (row := _row(recipe, place, work))]
    }


def _done(path: Path, recipe: Recipe) -> bool:
    return path.exists() and bool(json.loads(path.read_text())["recipe"] == asdict(recipe))


def _row(recipe: Recipe, place: str, work: Path) -> dict[str, Any] | None:
    runs = [json.loads(path.read_text()) for path in sorted(work.glob(f"{recipe.name}.{place}.*.json"))]
    figures = [run["figures"] for run in runs if run["recipe"] == asdict(recipe)]
    if not figures:
        return None
    scores = [run["accuracy"] for run in figures]
    return {
        "model": recipe.name,
        "place": place,
        "seeds": len(scores),
        "accuracy_mean": statistics.mean(scores),
        "accuracy_sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "accuracies": scores,
        "epsilon_rdp": max(run["epsilon_rdp"] for run in figures),
        "epsilon_pld": max(run["epsilon_pld"] for run in figures),
        "seconds_median": statistics.median(run["seconds"] for run in figures),
    }
