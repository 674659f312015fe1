"""Models of the private figures: a small CNN for images and a linear map for scattering features. No
training here."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

CNN_CLASSES = 10


class Pool(nn.Module):
    """2x2 maximum at stride 1, computed channels-last, which is several times faster on CPUs."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, c, h - 1, w - 1)."""
        return functional.max_pool2d(images.contiguous(memory_format=torch.channels_last), 2, 1)


def tempered_cnn() -> nn.Module:
    """The CNN of Papernot et al. 2021 (table 1) for (1, 28, 28): two convolutions, tanh, 26,010
    parameters; normal weights of variance one over the inputs (LeCun et al. 1998)."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, padding=3),
        nn.Tanh(),
        Pool(),
        nn.Conv2d(16, 32, 4, 2),
        nn.Tanh(),
        Pool(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.Tanh(),
        nn.Linear(32, CNN_CLASSES),
    )
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, layer.weight[0].numel() ** -0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    made: Any = model  # whose `to` is not typed for a memory format
    whole: nn.Sequential = made.to(memory_format=torch.channels_last)
    return whole


def linear(inputs: int = 81 * 7 * 7) -> nn.Module:
    """A linear map from scattering features to 10 classes, starting at zero."""
    layer = nn.Linear(inputs, CNN_CLASSES)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def loss(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of one batch [images, labels]."""
    return functional.cross_entropy(model(batch[0]), batch[1])


@torch.no_grad()
def accuracy(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers, in per cent."""
    model.eval()
    right = 0
    for at in range(0, len(labels), 1000):
        right += int((model(inputs[at : at + 1000]).argmax(1) == labels[at : at + 1000]).sum())
    model.train()
    return 100.0 * right / len(labels)
