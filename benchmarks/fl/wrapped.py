"""The loops that `wrap` measures: each bare, and as the federation that its adapter makes of it.

What does not belong here: clocks. Images are Fashion-MNIST's; texts are tokens drawn at random, for no figure of `wrap`
asks what was learned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CLIENTS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Loop:
    """federate: from layers to the federation. bare: the same steps for every client, without one. function: of
    `fl.adapters`, its name.
    """

    function: str
    federate: Callable[..., Any]
    bare: Callable[[], object]


def images(examples: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every client's own images, flat, and labels."""
    from fl.data import load

    data = load("fashion-mnist")
    x = data.x_train.reshape(len(data.x_train), -1)
    return {c: (x[i::4][:examples], data.y_train[i::4][:examples]) for i, c in enumerate(CLIENTS)}


def loaders(examples: int) -> dict[str, Any]:
    held = {name: map(torch.from_numpy, data) for name, data in images(examples).items()}
    return {name: DataLoader(TensorDataset(*data), 32, shuffle=True) for name, data in held.items()}


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def torch_loop(examples: int, width: int) -> Loop:
    from fl.adapters import from_torch

    def train(model: nn.Module, loader: Any, optimizer: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            loss: Any = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    model, data = network(width), loaders(examples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def bare() -> None:
        for loader in data.values():
            own = deepcopy(model)
            train(own, loader, torch.optim.AdamW(own.parameters(), lr=1e-3))

    return Loop("from_torch", partial(from_torch, model, train, data, optimizer), bare)


def trainer_loop(examples: int, width: int) -> Loop:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from fl.adapters import from_trainer

    words = torch.randint(0, 64, (4, examples, 64))
    rows = [
        [{"input_ids": text, "labels": text[0] % 2, "position_ids": torch.arange(64)} for text in own]
        for own in words
    ]
    data: dict[str, Any] = dict(zip(CLIENTS, rows, strict=True))
    config = BertConfig(
        vocab_size=64,
        hidden_size=width,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=64,
    )
    args = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=16,
        num_train_epochs=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        lr_scheduler_type="constant",
        logging_strategy="no",
    )
    template = BertForSequenceClassification(config)

    def bare() -> None:
        for dataset in data.values():
            Trainer(deepcopy(template), args, train_dataset=dataset).train()

    return Loop("from_trainer", partial(from_trainer, Trainer(template, args), data), bare)


def lightning_loop(examples: int, width: int) -> Loop:
    import lightning

    from fl.adapters import from_lightning

    class Net(lightning.LightningModule):  # type: ignore[misc, unused-ignore]  # without the extra it is Any
        def __init__(self) -> None:
            super().__init__()
            self.layers = network(width)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.layers(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = partial(lightning.Trainer, max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet)
    model, data = Net(), loaders(examples)

    def bare() -> None:
        for loader in data.values():
            trainer().fit(deepcopy(model), loader)

    return Loop("from_lightning", partial(from_lightning, model, trainer, data), bare)


def sklearn_loop(examples: int, width: int) -> Loop:
    from sklearn.neural_network import MLPClassifier

    from fl.adapters import from_sklearn

    data = images(examples)
    start = MLPClassifier((width,), batch_size=32).partial_fit(*data["a"], classes=np.arange(10))

    def bare() -> None:
        for x, y in data.values():
            deepcopy(start).partial_fit(x, y)

    return Loop("from_sklearn", partial(from_sklearn, start, data), bare)


def numpy_loop(examples: int, width: int) -> Loop:
    from fl.adapters import from_numpy

    rng, data = np.random.default_rng(0), images(examples)
    start = {
        "w1": rng.normal(0, 0.03, (784, width)).astype(np.float32),
        "w2": rng.normal(0, 0.03, (width, 10)).astype(np.float32),
    }

    def train(weights: dict[str, Any], data: Any) -> dict[str, Any]:
        for at in range(0, len(data[0]), 32):
            x, y = data[0][at : at + 32], data[1][at : at + 32]
            hidden = np.maximum(x @ weights["w1"], 0)
            scores = np.exp(hidden @ weights["w2"])
            wrong = scores / scores.sum(axis=1, keepdims=True)
            wrong[np.arange(len(y)), y] -= 1
            back = (wrong @ weights["w2"].T) * (hidden > 0)
            weights["w2"] -= np.float32(0.1 / len(y)) * hidden.T @ wrong
            weights["w1"] -= np.float32(0.1 / len(y)) * x.T @ back
        return weights

    def bare() -> None:
        for own in data.values():
            train({name: array.copy() for name, array in start.items()}, own)

    return Loop("from_numpy", partial(from_numpy, start, train, data), bare)


LOOPS: dict[str, tuple[Callable[[int, int], Loop], tuple[int, int], tuple[int, int]]] = {
    "torch": (torch_loop, (6000, 1300), (64, 4)),
    "trainer": (trainer_loop, (96, 128), (32, 8)),
    "lightning": (lightning_loop, (6000, 1300), (64, 4)),
    "sklearn": (sklearn_loop, (6000, 1300), (64, 4)),
    "numpy": (numpy_loop, (15000, 1300), (64, 4)),
}
"""Loop -> what makes it, (examples of a client, width) as timed, and as layers are tried."""
