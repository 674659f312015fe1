"""What `secagg run`'s configuration names, loaded: the data, its split, and the Federation that it becomes.

What does not belong here: the configuration itself (`run_config`), printing, files of a run.
"""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from fl.registry import MODELS, STRATEGIES, privacy_layers
from fl.run_config import RunConfig
from fl.run_options import RunOptions
from protocols.errors import Misuse
from protocols.layers import PrivacyLayer


@dataclass
class Parts:
    """What a configuration is made of, loaded: data and who holds it, and the federation."""

    config: RunConfig
    data: Any
    split: dict[str, np.ndarray]
    arguments: dict[str, Any] = field(repr=False)

    def federation(self, output: Path | None, privacy: list[Any] | None = None) -> Any:
        """Return a Federation; `privacy` replaces the configured layers (for the comparison without any)."""
        from fl.federation import Federation

        layers = privacy_layers(self.config.privacy) if privacy is None else privacy
        if privacy is None and self.config.budget is not None and not _private(layers):
            raise Misuse(
                "budget: it limits what a layer of differential privacy spends, and there is none here"
            )
        strategy: Any = STRATEGIES.build(self.config.strategy)
        ledger = self._ledger(output, layers)
        return Federation(**self.arguments, strategy=strategy, privacy=layers, output=output, ledger=ledger)

    def _ledger(self, output: Path | None, layers: list[Any]) -> Any:
        """The run's own ledger, ledger.db in its folder, where a layer spends privacy; `budget` limits it."""
        if output is None or not _private(layers):
            return None
        from dp import Ledger
        from fl.account import Account

        account = Account([layer for layer in layers if isinstance(layer, PrivacyLayer)], self.config.delta)
        limit = math.inf if self.config.budget is None else self.config.budget
        output.mkdir(parents=True, exist_ok=True)
        return Ledger(output / "ledger.db", epsilon=limit, delta=account.delta, accountant=account.accountant)


def _private(layers: list[Any]) -> bool:
    return any(isinstance(layer, PrivacyLayer) for layer in layers)


def load_parts(config: RunConfig) -> Parts:
    """Load the data, split it and return what a federation is made of. Raises Misuse, DataMissing, MissingExtra."""
    from fl.data import load
    from fl.data.partition import partition
    from protocols.extras import needs

    with needs("torch", "secagg run"):
        import torch
        from torch.utils.data import DataLoader, TensorDataset
    torch.set_num_threads(config.threads)
    data = load(config.data, config.data_dir)
    split = partition(data, config.partition, config.clients, config.seed)

    def loader(x: np.ndarray, y: np.ndarray, size: int, shuffle: bool) -> Any:
        return DataLoader(
            TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=size, shuffle=shuffle
        )

    clients = {
        name: loader(data.x_train[rows], data.y_train[rows], config.batch_size, True)
        for name, rows in split.items()
    }
    arguments = {
        "model": lambda: MODELS.build(config.model, input_shape=data.input_shape, classes=data.classes),
        "clients": clients,
        "test": loader(data.x_test, data.y_test, 512, False),
        "learning_rate": config.learning_rate,
        "loss": cross_entropy_of_batch,
        **{item.name: getattr(config, item.name) for item in fields(RunOptions)},
    }
    return Parts(config, data, split, arguments)


def cross_entropy_of_batch(model: Any, batch: Any) -> Any:
    """loss(model, batch) for classification: what layers that clip per example differentiate."""
    import torch

    inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(inputs), labels)
