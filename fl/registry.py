"""One registry of names for the command line and TOML: privacy layers, strategies, data sets, models.

Belongs here: which names exist and how a name becomes an object. Nothing is imported before it is asked
for. Other distributions add names through entry points of the groups below, and users through
`package.module:factory`. A built-in name cannot be replaced by an entry point. How options are written
and typed is in `fl/specs.py`.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from fl.refused import refusal
from fl.specs import Spec, bind, closest, parse_spec, spec_of_table
from protocols.errors import Misuse, SecAggError


@dataclass(frozen=True)
class Registry:
    """Names of one kind. `kind` reads well in a sentence; `group` is the entry-point group; `builtin`
    maps a name to `package.module:factory`. `refused` says why a name that people know cannot be had, None for others.
    """

    kind: str
    group: str
    builtin: Mapping[str, str]
    refused: Callable[[str], str | None] = lambda name: None

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        found = {point.name: point for point in entry_points(group=self.group)}
        return {name: point for name, point in found.items() if name not in self.builtin}

    def names(self) -> list[str]:
        """Every registered name: the built-in ones in their order, then those of entry points."""
        return [*self.builtin, *sorted(self._plugins)]

    def parse(self, written: str | Mapping[str, object] | Spec) -> Spec:
        """A name with options, from text, a TOML table or as it is. Raises Misuse."""
        if isinstance(written, str):
            spec = parse_spec(written, self.names())
        elif isinstance(written, Spec):
            spec = written
        else:
            spec = spec_of_table(written, f"A {self.kind} in TOML")
        hyphenated = spec.name.replace("_", "-")
        return replace(spec, name=hyphenated) if hyphenated in self.names() else spec

    def factory(self, name: str) -> Callable[..., object]:
        """What `name` builds with: a registered name or `package.module:factory`.

        Raises Misuse for a name that is neither, and MissingExtra where an optional dependency is not
        installed.
        """
        if name in self._plugins:
            reference = f"{self._plugins[name].module}:{self._plugins[name].attr}"
        elif name in self.builtin:
            reference = self.builtin[name]
        elif path := _path_in(name):
            raise Misuse(f"{name!r} is a path, and a module is asked for: {path}")
        elif ":" in name:
            reference = name
            _see_working_directory()
        elif (why := self.refused(name)) is not None:
            raise Misuse(why)
        else:
            raise Misuse(
                f"No {self.kind} is named {name!r}.{closest(name, self.names())} "
                f"Known: {', '.join(self.names())}; or package.module:factory."
            )
        return _load(reference, f"{self.kind} {name!r}")

    def build(self, written: str | Mapping[str, object] | Spec, **given: object) -> object:
        """Builds what is named, with its options; `given` is passed where the factory takes it.

        Raises Misuse for unknown names and wrong options, MissingExtra for a missing optional dependency.
        """
        spec = self.parse(written)
        factory = self.factory(spec.name)
        arguments = bind(spec, factory, given)
        try:
            return factory(**arguments)
        except SecAggError:
            raise
        except Exception as error:  # a user's own factory may raise anything
            if spec.name in self.builtin:
                raise
            raise _refused(f"{self.kind} {spec.name!r} could not be built", error) from error


PRIVACY = Registry(
    "privacy layer",
    "secagg_toolkit.privacy",
    {
        "none": "protocols:PlainSum",
        "secagg": "secagg:SecAgg",
        "secagg+": "secagg:SecAggPlus",
        "paillier": "he:PaillierSum",
        "ckks": "he:CKKSSum",
        "sample-dp": "dp:SampleDP",
        "client-dp": "dp:ClientDP",
        "distributed-dp": "dp:DistributedDP",
        "local-dp": "dp:LocalDP",
        "norm-bound": "dp:NormBound",
        "few-bits": "fl:FewBits",
        "random-k": "fl:RandomK",
        "low-rank": "fl:LowRank",
    },
)
STRATEGIES = Registry(
    "strategy",
    "secagg_toolkit.strategies",
    {
        "fedavg": "fl:FedAvg",
        "fedsgd": "fl:FedSGD",
        "fedprox": "fl:FedProx",
        "fedadam": "fl:FedAdam",
        "rfa": "fl:RFA",
        "ditto": "fl:Ditto",
        "ifca": "fl:IFCA",
        "group-median": "fl:GroupMedian",
        "fedadagrad": "fl:FedAdagrad",
        "fedyogi": "fl:FedYogi",
        "fedavgm": "fl:FedAvgM",
        "feddyn": "fl:FedDyn",
        "scaffold": "fl:Scaffold",
        "fednova": "fl:FedNova",
        "fedadp": "fl:FedAdp",
        "fedbuff": "fl:FedBuff",
    },
    refusal,
)
DATA = Registry(
    "data set",
    "secagg_toolkit.data",
    {
        "digits": "fl.data.bundled:digits",
        "breast-cancer": "fl.data.bundled:breast_cancer",
        "fashion-mnist": "fl.data.images:fashion_mnist",
        "mnist": "fl.data.images:mnist",
        "femnist": "fl.data.femnist:femnist",
        "heart-disease": "fl.data.tables:heart_disease",
        "adult": "fl.data.tables:adult",
        "credit-default": "fl.data.tables:credit_default",
        "dickens": "fl.data.text:dickens",
        "shakespeare": "fl.data.text:shakespeare",
        "csv": "fl.data.csv_file:csv_file",
        "part": "fl.data.part:part",
    },
)
MODELS = Registry(
    "model",
    "secagg_toolkit.models",
    {
        "logistic": "fl.models:logistic",
        "mlp": "fl.models:mlp",
        "cnn": "fl.models:cnn",
        "gru": "fl.models:gru",
    },
)


CALLBACKS = Registry(
    "callback",
    "secagg_toolkit.callbacks",
    {
        "keep-best": "fl.callbacks:KeepBest",
        "early-stopping": "fl.callbacks:EarlyStopping",
        "csv-log": "fl.callbacks:CSVLog",
        "tensorboard": "fl.callbacks:TensorBoard",
        "mlflow": "fl.callbacks:MLflow",
        "wandb": "fl.callbacks:WandB",
    },
)


def function(reference: str, key: str) -> Callable[..., object]:
    """Return the user's own function that `key` of a run names, `module:function`. Raises Misuse."""
    _see_working_directory()
    return _load(reference, key)


def privacy_layers(written: Sequence[str | Mapping[str, object] | Spec]) -> list[object]:
    """The layers that a user lists, in order; `none`, alone, stands for no layer at all. Raises as
    `Registry.build`.
    """
    specs = [PRIVACY.parse(item) for item in written]
    plain = [spec for spec in specs if spec.name == "none"]
    if plain and (len(specs) > 1 or plain[0].options):
        raise Misuse(
            "The privacy layer 'none' stands alone and takes no options: leave it out, or the others."
        )
    return [] if plain else [PRIVACY.build(spec) for spec in specs]


def _path_in(name: str) -> str:
    """How to name a module, where a path stands in its place; "" where none does."""
    path, _, attribute = name.partition(":")
    if not path.endswith(".py") and not any(mark in path for mark in "/\\"):
        return ""
    here = Path(path)
    folder = "" if str(here.parent) == "." else f", in the folder {here.parent}"
    return f"write {here.stem}:{attribute if attribute.isidentifier() else 'factory'}{folder}."


def layers_of(privacy: Any) -> Any:
    """The layers that a list holds, and those that it names as the command line does: `["secagg+:dropout=0.2"]`. What
    is no list comes back as it is, for `Stack` to refuse. Raises as `Registry.build`.
    """
    if isinstance(privacy, str) or not isinstance(privacy, Iterable):
        return privacy
    return tuple(PRIVACY.build(layer) if isinstance(layer, str) else layer for layer in privacy)


def _see_working_directory() -> None:
    """Lets `package.module` mean the user's own file here, before what a dependency may ship under its name, as
    `python -m` does.
    """
    here = str(Path.cwd())
    if sys.path[:1] not in ([""], [here]):
        sys.path.insert(0, here)


def _refused(what: str, error: Exception) -> Misuse:
    """A refusal, which a server may be told: what the user's own code says may quote data, and is a note for whoever
    reads the error here.
    """
    known = isinstance(error, ImportError | AttributeError)
    refused = Misuse(f"{what}: {error if known else type(error).__name__}")
    if not known:
        refused.add_note(str(error))
    return refused


def _load(reference: str, what: str) -> Callable[..., object]:
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute.isidentifier():
        raise Misuse(f"{what}: {reference!r} is not of the form package.module:factory.")
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute)
    except SecAggError:
        raise
    except Exception as error:  # importing a user's own module may raise anything
        raise _refused(f"{what}: {reference} cannot be loaded", error) from error
    if not callable(found):
        raise Misuse(f"{what}: {reference} is a {type(found).__name__}, not a function or class to call.")
    return found  # type: ignore[no-any-return]  # what a name stands for is known at run time only
