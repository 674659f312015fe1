"""Small federations with callbacks, and an evaluation that measures what a script says."""

from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import Federation
from fl.callbacks import Callback


def federation(*privacy: Any, **options: Any) -> Federation:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(24, 4, generator=generator).split(6)
    loaders = [DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), 3, shuffle=True) for x in parts]
    return Federation(lambda: torch.nn.Linear(4, 2), loaders, privacy=privacy, **options)


def noise() -> ClientDP:
    return ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0)


class Scripted:
    """An `evaluate` that measures what a script says: one number per call."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self, model: Any, loader: Any, criterion: Any, device: Any) -> dict[str, float]:
        return {"score": self.values.pop(0)}


def scripted(*values: float, callback: Callback, **options: Any) -> Federation:
    return federation(test=[], evaluate=Scripted(*values), callbacks=[callback], **options)
