"""The keys of a run: config.toml and the options of `secagg run` are both read from `RunConfig`.

What does not belong here: what the keys become (`run_parts`), printing, files of a run.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fl import registry
from fl.run_options import RunOptions, option
from protocols import numbers
from protocols.errors import Misuse


def _names(kind: registry.Registry) -> str:
    return ", ".join(kind.names())


@dataclass(frozen=True)
class RunConfig(RunOptions):
    """The keys of config.toml, each also an option of `secagg run`. The metadata of a field holds its help text.

    data, model, strategy, privacy, callbacks: text ("secagg+:dropout=0.4") or a TOML table; privacy and callbacks are
    lists of them, in order. train, optimizer, scheduler, criterion, loss, evaluate, test: the user's own functions as
    `module:function`, arguments of `fl.Federation` by the same names. clients, partition: None for what the data has.
    """

    data: str | Mapping[str, Any] = option(
        "digits",
        f"{_names(registry.DATA)} (csv:file=...,target=...), or module:factory of a DataSet or loaders.",
    )
    clients: int | None = option(
        None, "How many clients (default 10; natural ones and own loaders: as many as there are)."
    )
    partition: str | None = option(
        None, "iid, dirichlet:alpha=0.5 (the default), classes:per_client=2 or natural."
    )
    model: str | Mapping[str, Any] = option("mlp", f"{_names(registry.MODELS)}, or package.module:factory.")
    strategy: str | Mapping[str, Any] = option(
        "fedavg", f"{_names(registry.STRATEGIES)}; options as name:key=value."
    )
    privacy: tuple[Any, ...] = option(
        ("none",),
        f"A layer, in order, such as secagg+:dropout=0.4; repeat to stack: {_names(registry.PRIVACY)}.",
    )
    train: str | None = option(
        None, "The clients' own loop, module:function (model, loader, optimizer, ...)."
    )
    optimizer: str | None = option(None, "module:function that makes an optimizer from parameters.")
    scheduler: str | None = option(None, "module:function that makes a scheduler from an optimizer.")
    scheduler_per: str = option("epoch", "The scheduler steps once per local epoch, round or step.")
    criterion: str | None = option(None, "module:function that makes a loss.")
    loss: str | None = option(None, "module:function (model, batch), for layers that clip every example.")
    evaluate: str | None = option(None, "module:function (model, loader, criterion, device).")
    callbacks: tuple[Any, ...] = option(
        (),
        f"{_names(registry.CALLBACKS)}, such as csv-log:path=..., or module:function; repeat.",
    )
    test: str | None = option(None, "module:factory of a test loader; data sets bring their own.")
    rounds: int = option(10, "Rounds.")
    learning_rate: float | None = option(
        None, "The clients' learning rate (default 0.1); an own optimizer has its own."
    )
    batch_size: int = option(32, "The clients' batch size.")
    budget: float | None = option(None, "Largest epsilon: a round that would exceed it is refused.")
    allow_resend: bool = option(False, "Clients let one update leave in several rounds (rfa).")
    threads: int = option(1, "Threads of torch; equal results need equal numbers.")
    engine: str = option("memory", "memory or flower-simulation.")
    data_dir: str | None = option(None, "Folder of data sets, searched and no other (or SECAGG_DATA).")
    output: str | None = option(None, "Folder of the run's files (default runs/TIME).")

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers.whole("seed", self.seed, 0)

    @classmethod
    def in_order(cls) -> "list[Field[Any]]":
        """Return the fields in the order of the help page: what is trained before how rounds go."""
        shared = RunOptions.__dataclass_fields__
        return sorted(fields(cls), key=lambda item: item.name in shared)

    def to_toml(self) -> dict[str, Any]:
        """Return the keys as TOML values; None is left out."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def read_toml(path: Path, beside: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the keys of a TOML file. Raises Misuse with file and line for one that does not parse or has
    unknown keys. beside: names of tables that are no keys of a run.
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
    known = [*(item.name for item in RunConfig.in_order()), *beside]
    written = [key.replace("-", "_") for key in values]
    if twice := [key for key in written if written.count(key) > 1]:
        raise Misuse(f"{path}: {twice[0]} is there twice, with - and with _")
    values = dict(zip(written, values.values(), strict=True))
    for key in values:
        if key not in known:
            line = next((i for i, t in enumerate(text.splitlines(), 1) if key in t.replace("-", "_")), 0)
            raise Misuse(f"{path}, line {line}: unknown key {key!r}; known: {', '.join(known)}")
    return values


def make_config(file: Path | None, options: Mapping[str, Any]) -> RunConfig:
    """Return the configuration: defaults, then the file's keys, then the options that were given."""
    values = {} if file is None else read_toml(file)
    values |= {key: value for key, value in options.items() if value is not None}
    for key in ("privacy", "callbacks"):
        if isinstance(values.get(key), str | Mapping):
            values[key] = [values[key]]
    return RunConfig(**values)
