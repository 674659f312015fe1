"""What `secagg run` is told, from a TOML file and options with the same keys; what it becomes: a Federation.

What does not belong here: printing, files of a run.
"""

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fl.registry import MODELS, STRATEGIES, privacy_layers
from protocols.errors import Misuse
from protocols.layers import PrivacyLayer

PASSED_ON = (
    "local_epochs",
    "fraction",
    "sampling",
    "dropout",
    "seed",
    "integers",
    "min_survivors",
    "delta",
    "device",
)


@dataclass(frozen=True)
class RunConfig:
    """The keys of config.toml. partition: "iid", "dirichlet:alpha=0.5", "classes:per_client=2" or
    "natural". model, data: a name or package.module:factory. privacy: layers in order, each text
    ("secagg+:dropout=0.4") or a TOML table. dropout: share of the asked clients that leave (simulated).
    """

    data: str = "digits"
    clients: int | None = 10
    partition: str = "dirichlet:alpha=0.5"
    model: str = "mlp"
    strategy: str | Mapping[str, Any] = "fedavg"
    privacy: tuple[Any, ...] = ("none",)
    rounds: int = 10
    local_epochs: int = 1
    learning_rate: float = 0.1
    batch_size: int = 32
    fraction: float = 1.0
    sampling: str = "fixed"
    dropout: float = 0.0
    seed: int = 0
    bits: int = 16
    range: float | None = None
    weight_cap: int = 10_000
    integers: str = "keep"
    min_survivors: int = 1
    delta: float | None = None
    budget: float | None = None
    device: str = "cpu"
    threads: int = 1
    engine: str = "memory"
    data_dir: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        for name in ("rounds", "batch_size", "threads", "clients"):
            least(name, getattr(self, name), 1)
        least("seed", self.seed, 0)
        if self.budget is not None and self.budget <= 0:
            raise Misuse(f"budget: expected an epsilon > 0, got {self.budget}")

    def to_toml(self) -> dict[str, Any]:
        """Return the keys as TOML values; None is left out."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        values["privacy"] = list(values["privacy"])
        return values


WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
    Mapping: "a table with a name",
}
"""What a type is called in a sentence."""


def least(name: str, value: int | None, smallest: int) -> None:
    """Raises Misuse for a value below `smallest`; None is none."""
    if value is not None and value < smallest:
        raise Misuse(f"{name}: expected a whole number >= {smallest}, got {value}")


def _check_type(name: str, value: Any, hint: Any) -> None:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = tuple(typing.get_origin(member) or member for member in members)
    accepted = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, accepted) or isinstance(value, bool):
        words = " or ".join(WORDS[kind] for kind in kinds if kind in WORDS)
        raise Misuse(f"{name}: expected {words}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Misuse(f"{name}: expected a finite number, got {value!r}")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys of a TOML file. Raises Misuse with file and line for one that does not parse or has
    unknown keys.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Misuse(f"{path} cannot be read: {reason}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misuse(f"{path} is not TOML: {error}") from None
    known = [item.name for item in fields(RunConfig)]
    written = [key.replace("-", "_") for key in values]
    if twice := [key for key in written if written.count(key) > 1]:
        raise Misuse(f"{path}: {twice[0]} is there twice, with - and with _")
    values = dict(zip(written, values.values(), strict=True))
    for key in values:
        if key not in known:
            line = next((i for i, t in enumerate(text.splitlines(), 1) if key in t.replace("-", "_")), 0)
            raise Misuse(f"{path}, line {line}: unknown key {key!r}; known: {', '.join(known)}")
    return values


def make_config(file: Path | None, options: Mapping[str, Any], base: RunConfig | None = None) -> RunConfig:
    """Return the configuration: defaults (or base), then the file's keys, then the options that were given."""
    values = {} if file is None else read_toml(file)
    values |= {key: value for key, value in options.items() if value is not None}
    if "privacy" in values:
        given = values["privacy"]
        given = [given] if isinstance(given, str | Mapping) else given
        if not isinstance(given, list | tuple) or not all(isinstance(x, str | Mapping) for x in given):
            raise Misuse(f"privacy: expected names of layers or tables [[privacy]], got {given!r}")
        values["privacy"] = tuple(given)
    config = replace(base or RunConfig(), **values)
    if "clients" not in values and config.partition.startswith("natural"):
        config = replace(config, clients=None)
    return config


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
        "bits": config.bits,
        "range": config.range,
        "weight_cap": config.weight_cap,
        "loss": cross_entropy_of_batch,
        **{key: getattr(config, key) for key in PASSED_ON},
    }
    return Parts(config, data, split, arguments)


def cross_entropy_of_batch(model: Any, batch: Any) -> Any:
    """loss(model, batch) for classification: what layers that clip per example differentiate."""
    import torch

    inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(inputs), labels)
