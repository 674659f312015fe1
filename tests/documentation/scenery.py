"""What examples on pages take for granted: a model, ten clients' data, a loop, vectors; small, to be quick."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Subset, TensorDataset

__all__ = ["DataLoader", "loaders", "loss", "make_model", "np", "test_loader", "torch", "train", "vectors"]

_images, _labels = load_digits(return_X_y=True)
_digits = TensorDataset(torch.tensor(_images / 16, dtype=torch.float32), torch.tensor(_labels))
loaders = {
    f"site-{i}": DataLoader(Subset(_digits, range(60 * i, 60 * i + 60)), batch_size=20) for i in range(10)
}
test_loader = DataLoader(Subset(_digits, range(1500, 1797)), batch_size=100)
vectors = np.arange(1000).reshape(10, 100)


def make_model() -> torch.nn.Module:
    return torch.nn.Linear(64, 10)


def train(model: torch.nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
