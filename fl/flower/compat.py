"""What touches more of flwr than its documented names, in one place, so that a new minor version is read here first.

What belongs here: error replies, the node list, what tells a simulation, the allow-list of strategies and what these
keep, checking an app's bundle, and every name that flwr does not list in an `__all__`: the rest of `fl.flower` takes
those from here. What does not: anything else. Written against 1.41 and 1.42; the extra `flower` ends
there, and a slow test runs against the newest version that an index has.
"""

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.clientapp.typing import ClientAppCallable as ClientAppCallable
from flwr.clientapp.typing import Mod as Mod
from flwr.common.logger import log as log
from flwr.proto.node_pb2 import NodeInfo as NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from flwr.supercore.run import Run as Run
from numpy.typing import NDArray

from fl.network.messages import words_of
from protocols.errors import Misuse

MOD_FAILED_PRECONDITION = 6
"""`flwr.common.constant.ErrorCode.MOD_FAILED_PRECONDITION`: a mod refused the message."""

DECLARATION = "needs_only_the_mean"
ALLOWED: tuple[type[Strategy], ...] = (FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi)
_WHY_NOT: Mapping[str, str] = {
    "Bulyan": "it compares single updates",
    "FedMedian": "it takes a median over single updates",
    "FedTrimmedAvg": "it sorts single updates",
    "FedXgbBagging": "it collects each client's trees",
    "FedXgbCyclic": "it hands one client's model to the next",
    "Krum": "it compares single updates",
    "MultiKrum": "it compares single updates",
    "QFedAvg": "it weighs single updates by their losses",
}


def require_mean_only(strategy: Strategy) -> None:
    """Raises Misuse, with the reason, for a strategy that may need more of the updates than their weighted mean."""
    if isinstance(strategy, type):
        raise Misuse(
            f"strategy: expected a strategy, got the class {strategy.__name__}: write {strategy.__name__}(...)"
        )
    kind = type(strategy)
    declared = vars(kind).get(DECLARATION, False) is True
    if kind not in ALLOWED and not declared:
        why = _WHY_NOT.get(kind.__name__, "nobody has said that the weighted mean is all it needs")
        if kind.__name__.startswith("DifferentialPrivacyServerSide"):
            why = "it clips single updates on the server; stack ClientDP with a secure sum instead"
        elif kind.__name__.startswith("DifferentialPrivacyClientSide"):
            why = "a mod of its own clips at the clients, in front of ours; ClientDP does both, and keeps an account"
        elif kind.__module__.startswith("flwr.server."):
            why = "it is a class of the legacy flwr.server.strategy: import it from flwr.serverapp.strategy"
        raise Misuse(
            f"{kind.__name__} cannot run on a secure sum: {why}. Allowed are "
            f"{', '.join(k.__name__ for k in ALLOWED)}, by exact type; a subclass that needs only the weighted mean "
            f"says so with the class attribute {DECLARATION} = True"
        )
    if getattr(strategy, "train_metrics_aggr_fn", aggregate_metricrecords) is not aggregate_metricrecords:
        raise Misuse(
            "train_metrics_aggr_fn would need each client's metrics; name them in PrivateStrategy(metrics=...) "
            "and they are summed inside the vector"
        )


MOMENTA = ("m_t", "v_t", "momentum_vector", "current_arrays")
"""The public attributes in which strategies of the allow-list keep arrays from round to round."""

State = dict[str, NDArray[Any]]


def strategy_state(strategy: Strategy) -> State:
    """Return what a strategy keeps from round to round, by names that `restore_strategy` understands."""
    kept: State = dict(strategy.secagg_state()) if hasattr(strategy, "secagg_state") else {}
    for name in MOMENTA:
        value = getattr(strategy, name, None)
        if isinstance(value, ArrayRecord):
            kept |= {f"{name}/record/{key}": array.numpy() for key, array in value.items()}
        elif isinstance(value, dict):
            kept |= {f"{name}/dict/{key}": np.asarray(array) for key, array in value.items()}
        elif isinstance(value, list):
            kept |= {f"{name}/list/{i}": np.asarray(array) for i, array in enumerate(value)}
    return kept


def restore_strategy(strategy: Strategy, kept: State) -> None:
    """Give a strategy back what `strategy_state` returned. Raises Misuse for one whose own state nobody can see."""
    kind = type(strategy)
    if kind not in ALLOWED and not hasattr(kind, "secagg_restore"):
        raise Misuse(
            f"{kind.__name__} cannot go on with a run that was stopped: what it keeps from round to round is its own. "
            "Give it secagg_state() -> dict of arrays and secagg_restore(dict), or start anew in another folder"
        )
    for name in MOMENTA:
        parts = {k.removeprefix(f"{name}/"): v for k, v in kept.items() if k.startswith(f"{name}/")}
        form = next(iter(parts), "").partition("/")[0]
        found = {key.partition("/")[2]: array for key, array in parts.items()}
        if form == "record":
            setattr(strategy, name, ArrayRecord({key: Array(array) for key, array in found.items()}))
        elif form:
            setattr(strategy, name, found if form == "dict" else list(found.values()))
    if hasattr(strategy, "secagg_restore"):
        own = {k: v for k, v in kept.items() if k.partition("/")[0] not in MOMENTA}
        strategy.secagg_restore(own)


def has_own_loop(strategy: Strategy) -> bool:
    """Return whether a strategy replaces Flower's loop over rounds."""
    return type(strategy).start is not Strategy.start


def refusal(reason: str, message: Message) -> Message:
    """Return an error reply that carries a reason to the server's log."""
    return Message(Error(MOD_FAILED_PRECONDITION, reason), reply_to=message)


def failure_of(message: Message) -> str | None:
    """Return why a reply carries no content, or None if it does."""
    if not message.has_error():
        return None
    return f"error {message.error.code}: {words_of(message.error.reason or '')}"


def node_keys(grid: Grid) -> dict[int, bytes]:
    """Return node id -> the public key (PEM) by which the SuperLink authenticated it; empty bytes without."""
    return {int(node.node_id): bytes(getattr(node, "public_key", b"")) for node in grid.get_nodes()}


def in_simulation() -> bool:
    """Whether an app runs in a process of Flower's simulation, where one machine plays every node."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "flwr.simulation.ray_transport.ray_actor":
        frame = frame.f_back
    return frame is not None


def is_simulated(grid: Grid) -> bool:
    """Whether the nodes behind a grid are those of Flower's simulation."""
    return type(grid).__name__ == "InMemoryGrid"


def inner_names(strategy: Any) -> tuple[str, str, str]:
    """Return (arrays key, config key, weight key) of a strategy of the allow-list."""
    usual = {"arrayrecord_key": "arrays", "configrecord_key": "config", "weighted_by_key": "num-examples"}
    arrays, config, weight = (str(getattr(strategy, name, default)) for name, default in usual.items())
    return arrays, config, weight


def run_clientapp(check: Callable[[bytes], str]) -> None:
    """Run flwr's own `flwr-clientapp`, with `check` before a bundle is unpacked and any of its code is read.

    check: gets the bundle and returns its digest, or raises: the message is answered with that error. A version of
    flwr that unpacks or loads in another way finds nothing checked, and nothing is loaded.
    """
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp as runtime

    names = vars(runtime)
    install, loader = names["install_from_fab"], names["get_load_client_app_fn"]
    passed: set[str] = set()

    def checked_install(bundle: bytes, *rest: Any, **named: Any) -> Any:
        passed.add(check(bundle))
        return install(bundle, *rest, **named)

    def checked_loader(*rest: Any, **named: Any) -> Any:
        load = loader(*rest, **named)

        def checked_load(fab_id: str, version: str, digest: str) -> Any:
            if digest not in passed:
                raise Misuse("the bundle that is to be loaded is not the one that was checked")
            return load(fab_id, version, digest)

        return checked_load

    names.update(install_from_fab=checked_install, get_load_client_app_fn=checked_loader)
    flwr_clientapp()
