"""Case `overhead`: an epoch of the 26,010-parameter CNN without privacy, with bare Opacus and with
`SampleDP`'s engine.

One run, in turn, so that a busy machine slows all alike; processor seconds are reported beside wall
seconds.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.dp import models
from dp.sample import remade
from dp.sample.engine import ClientEngine
from dp.sample.options import Clipping

Epoch = Callable[[], None]


def measure(examples: int = 5120, batch: int = 512, repeats: int = 5, seed: int = 1) -> dict[str, Any]:
    """Median seconds of an epoch of each, and ratios to bare Opacus and to no privacy."""
    torch.manual_seed(seed)
    data = TensorDataset(torch.rand(examples, 1, 28, 28), torch.randint(0, 10, (examples,)))
    epochs = {"plain": _plain(data, batch), "opacus": _opacus(data, batch)}
    epochs |= {f"sample_dp_{mode}": _ours(data, batch, mode) for mode in ("hooks", "ghost")}
    epochs["sample_dp_ghost_again"] = _keeping_nothing(_ours(data, batch, "ghost"))
    wall: dict[str, list[float]] = {name: [] for name in epochs}
    processor: dict[str, list[float]] = {name: [] for name in epochs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that inputs need no gradients; they do not
        for epoch in epochs.values():
            epoch()
        for _ in range(repeats):
            for name, epoch in epochs.items():
                began, worked = time.perf_counter(), time.process_time()
                epoch()
                wall[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - worked)
    cpu = {name: statistics.median(taken) for name, taken in processor.items()}
    figures: dict[str, Any] = {f"{name}_cpu_s": taken for name, taken in cpu.items()}
    figures |= {f"{name}_wall_s": statistics.median(taken) for name, taken in wall.items()}
    for mode in ("hooks", "ghost", "ghost_again"):
        figures[f"{mode}_to_opacus"] = cpu[f"sample_dp_{mode}"] / cpu["opacus"]
        figures[f"{mode}_to_plain"] = cpu[f"sample_dp_{mode}"] / cpu["plain"]
    return figures


def _loop(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for images, labels in loader:
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


def _plain(data: TensorDataset, batch: int) -> Epoch:
    model = models.tempered_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(data, batch_size=batch, shuffle=True)
    return lambda: _loop(model, loader, optimizer, nn.CrossEntropyLoss())


def _opacus(data: TensorDataset, batch: int) -> Epoch:
    model = models.tempered_cnn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its noise follows torch's generator
        private, optimizer, loader = PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=DataLoader(data, batch_size=batch),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
    return lambda: _loop(private, loader, optimizer, nn.CrossEntropyLoss())


def _keeping_nothing(epoch: Epoch) -> Epoch:
    """As for a model whose rows are far beyond what ghost clipping keeps: all of them are made twice."""

    def again() -> None:
        kept, remade.KEPT = remade.KEPT, 0
        try:
            epoch()
        finally:
            remade.KEPT = kept

    return again


def _ours(data: TensorDataset, batch: int, mode: str) -> Epoch:
    model = models.tempered_cnn()
    steps = len(data) // batch
    engine = ClientEngine(Clipping(1.0, gradients=mode), 1.0, 1 / steps, steps)
    engine.size(len(data))

    def epoch() -> None:
        given = torch.optim.SGD(model.parameters(), lr=0.1)
        attached = engine.begin(model, given, DataLoader(data, batch_size=batch), nn.CrossEntropyLoss())
        whole = partial(_loop, attached.model, attached.loader, attached.optimizer, attached.criterion)
        with engine.watched():  # as the layer trains
            engine.probe(whole)  # once per run, in the epoch that warms up
            whole()
        engine.finish()

    return epoch
