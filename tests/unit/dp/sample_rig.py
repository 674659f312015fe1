"""A small model, its data and an honest loop for tests of private local training."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp.sample.engine import ClientEngine

EXAMPLES = 200


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, :3]).argmax(1)), batch_size=20)


def begin(engine: ClientEngine, net: nn.Module, lr: float = 0.1) -> Any:
    engine.size(EXAMPLES)
    return engine.begin(net, torch.optim.SGD(net.parameters(), lr=lr), loader(), nn.CrossEntropyLoss())


def honest(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def probed(engine: ClientEngine, at: Any) -> None:
    """Train as SampleDP does: without the probe, a Poisson batch as long as its sentences has two candidates for the
    examples' axis and is refused."""

    def loop() -> None:
        honest(at.model, at.loader, at.optimizer, at.criterion)

    engine.probe(loop)
    loop()
