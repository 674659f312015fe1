"""What `secagg run`'s configuration names, loaded: the data, its split, and the Federation that it becomes.

What does not belong here: the configuration itself (`run_config`), printing, files of a run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fl.registry import DATA, MODELS, STRATEGIES, privacy_layers
from fl.run_config import RunConfig
from fl.run_functions import own_functions
from fl.run_options import RunOptions
from protocols.errors import Misuse
from protocols.layers import PrivacyLayer
from protocols.stack import Stack


@dataclass
class Parts:
    """A configuration, and the arguments that it gives a federation: model, clients' loaders, own functions."""

    config: RunConfig
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
        given = {
            **self.arguments,
            **({} if privacy is None else {"callbacks": []}),  # they watch one run
            "strategy": strategy,
            "privacy": layers,
            "output": output,
            "ledger": ledger,
        }
        if self.config.allow_resend:
            given["policy"] = replace(Stack(layers).secure_sum.default_policy, allow_resend=True)
        return Federation(**given)

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
    return any(isinstance(layer, PrivacyLayer) and layer.adds_noise for layer in layers)


def load_parts(config: RunConfig) -> Parts:
    """Load the data, split it and return what a federation is made of. Raises Misuse, DataMissing, MissingExtra."""
    from protocols.extras import needs

    with needs("torch", "secagg run"):
        import torch
    torch.set_num_threads(config.threads)
    folder = None if config.data_dir is None else Path(config.data_dir)
    data: Any = DATA.build(config.data, data_dir=folder, batch_size=config.batch_size)
    config, given = (_of_loaders if isinstance(data, Mapping) else _of_data_set)(config, data)
    arguments = {
        "learning_rate": config.learning_rate,
        "scheduler_per": config.scheduler_per,
        **{item.name: getattr(config, item.name) for item in fields(RunOptions)},
        **given,
        **own_functions(config),
    }
    return Parts(config, arguments)


def _of_loaders(config: RunConfig, loaders: Mapping[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """Return the configuration with the clients that a user's own function gave, and what those bring: nothing is
    split, no shape is known. Raises Misuse for other clients.
    """
    if config.partition is not None:
        raise Misuse(f"partition: {config.data} gives every client's loader, nothing is split: leave it out")
    if config.clients not in (None, len(loaders)):
        raise Misuse(
            f"clients: {config.data} gives the loaders of {len(loaders)}, got {config.clients}: leave it out"
        )
    given = {"model": lambda: MODELS.build(config.model), "clients": dict(loaders)}
    return replace(config, clients=len(loaders)), given


def _of_data_set(config: RunConfig, data: Any) -> tuple[RunConfig, dict[str, Any]]:
    """Return the configuration with the split and the number of clients that hold unless given, and what a data set
    brings: its split, the model for its shape, the loss of a batch, its test part. Raises Misuse for another object.
    """
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from fl.data import DataSet
    from fl.data.partition import partition

    if not isinstance(data, DataSet):
        raise Misuse(
            f"data: {config.data} gave a {type(data).__name__}; expected an fl.data.DataSet, or a dict of "
            "DataLoaders by client's name"
        )

    def loader(x: np.ndarray, y: np.ndarray, size: int, shuffle: bool) -> Any:
        return DataLoader(
            TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=size, shuffle=shuffle
        )

    named = config.partition or "dirichlet:alpha=0.5"
    clients = config.clients or (None if named.startswith("natural") else 10)
    split = partition(data, named, clients, config.seed)
    return replace(config, partition=named, clients=clients), {
        "model": lambda: MODELS.build(config.model, input_shape=data.input_shape, classes=data.classes),
        "clients": {
            name: loader(data.x_train[rows], data.y_train[rows], config.batch_size, True)
            for name, rows in split.items()
        },
        "test": loader(data.x_test, data.y_test, 512, False),
        "loss": cross_entropy_of_batch,
    }


def cross_entropy_of_batch(model: Any, batch: Any) -> Any:
    """loss(model, batch) for classification: what layers that clip per example differentiate."""
    import torch

    inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(inputs), labels)


def begin(config: RunConfig, folder: Path, resume: bool) -> bool:
    """Write config.toml unless rounds were made by the one there; return whether a checkpoint is to go on from."""
    import tomli_w

    from fl.checkpoint import begun, rounds_in
    from fl.round.run_files import CONFIG
    from protocols.store import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    if not resume and not rounds_in(folder):
        write_atomic(folder / CONFIG, tomli_w.dumps(config.to_toml()).encode(), 0o644)
    return resume and begun(folder)
