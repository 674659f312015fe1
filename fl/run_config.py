"""The keys of a run: config.toml and the options of `secagg run` are both read from `RunConfig`.

What does not belong here: what the keys become (`run_parts`), printing, files of a run.
"""

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from protocols.errors import Misuse

T = TypeVar("T")


def _key(default: T, help: str) -> T:
    """Return a field of RunConfig: its default and the help text of its option."""
    made: T = field(default=default, metadata={"help": help})
    return made


@dataclass(frozen=True)
class RunConfig:
    """The keys of config.toml, each also an option of `secagg run`. The metadata of a field holds its help text.

    strategy, privacy: text ("secagg+:dropout=0.4") or a TOML table; privacy is a list of them, in order.
    """

    data: str = _key("digits", "Data set, or package.module:factory.")
    clients: int | None = _key(10, "How many clients.")
    partition: str = _key("dirichlet:alpha=0.5", "iid, dirichlet:alpha=0.5, classes:per_client=2 or natural.")
    model: str = _key("mlp", "logistic, mlp, cnn, or package.module:factory.")
    strategy: str | Mapping[str, Any] = _key(
        "fedavg", "fedavg, fedsgd, fedprox, fedadam; options as name:key=value."
    )
    privacy: tuple[Any, ...] = _key(
        ("none",), "A layer, in order; repeat to stack: none, secagg, secagg+:dropout=0.4, ..."
    )
    rounds: int = _key(10, "Rounds.")
    local_epochs: int = _key(1, "Local epochs per round.")
    learning_rate: float = _key(0.1, "The clients' learning rate.")
    batch_size: int = _key(32, "The clients' batch size.")
    fraction: float = _key(1.0, "Share of the clients asked per round.")
    sampling: str = _key("fixed", "How they are chosen: fixed or poisson.")
    dropout: float = _key(0.0, "Share of the asked clients that leave, at random stages.")
    seed: int = _key(0, "Equal seed, equal result, without DP layers.")
    bits: int = _key(16, "Bits per value of the quantiser.")
    range: float | None = _key(None, "Public range of an update's coordinates.")
    weight_cap: int = _key(10_000, "Public cap on a client's examples.")
    integers: str = _key("keep", "Integer tensors: keep, sum or refuse.")
    parameters: str = _key(
        "trained", "What is sent: trained (what requires gradients), all, or a pattern of names."
    )
    buffers: str = _key("sum", "Running statistics: sum, or local (they never leave a client).")
    min_survivors: int = _key(1, "A round with fewer is abandoned.")
    delta: float | None = _key(None, "Delta of the privacy account.")
    budget: float | None = _key(None, "Largest epsilon: a round that would exceed it is refused.")
    device: str = _key("cpu", "cpu or cuda.")
    threads: int = _key(1, "Threads of torch; equal results need equal numbers.")
    engine: str = _key("memory", "memory or flower-simulation.")
    data_dir: str | None = _key(None, "Folder of data sets (or SECAGG_DATA).")
    output: str | None = _key(None, "Folder of the run's files (default runs/TIME).")

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
