"""What a federation is made of, checked before round 1. What does not belong here: running it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl.loaders import examples_in
from fl.local import TrainFunction
from fl.strategies import FedAvg, Strategy
from fl.training import evaluate, train_one_epoch
from protocols.errors import Misuse, StackError
from protocols.policy import Policy
from protocols.stack import Numbers, Stack

Loaders = Mapping[str, Any] | Sequence[Any] | Callable[..., Any]


@dataclass(frozen=True)
class Plan:
    """How rounds are run.

    local_epochs >= 1. fraction of the clients asked per round, in (0, 1]. sampling: "fixed" (that share,
    without replacement) or "poisson" (each client by itself). dropout: share of the asked that leave at
    random, before or after their input, in [0, 1) (simulation). integers: "keep", "sum" or "refuse" for
    integer tensors. metrics: names of what `train` returns that are summed with the update. min_survivors:
    a round with fewer is abandoned.
    """

    local_epochs: int = 1
    fraction: float = 1.0
    sampling: str = "fixed"
    dropout: float = 0.0
    integers: str = "keep"
    metrics: tuple[str, ...] = ("loss", "accuracy")
    seed: int = 0
    device: str = "cpu"
    delta: float | None = None
    min_survivors: int = 1

    def __post_init__(self) -> None:
        if self.local_epochs < 1:
            raise Misuse(f"expected local_epochs >= 1, got {self.local_epochs}")
        if not 0 < self.fraction <= 1:
            raise Misuse(f"expected a client fraction in (0, 1], got {self.fraction}")
        if self.sampling not in ("fixed", "poisson"):
            raise Misuse(f'expected sampling "fixed" or "poisson", got {self.sampling!r}')
        if not 0 <= self.dropout < 1:
            raise Misuse(f"expected dropout in [0, 1), got {self.dropout}")
        if self.delta is not None and not 0 < self.delta < 1:
            raise Misuse(f"expected delta in (0, 1), got {self.delta}")
        if self.min_survivors < 1:
            raise Misuse(f"expected min_survivors >= 1, got {self.min_survivors}")


@dataclass
class Setup:
    """Everything a federation was given, normalised. Layers, strategy and train function are checked
    against each other.
    """

    model: Callable[[], Any]
    loader_for: Callable[[str], Any]
    names: tuple[str, ...]
    train: TrainFunction
    strategy: Strategy
    stack: Stack
    plan: Plan
    optimizer: Callable[[Any], Any]
    criterion: Callable[[], Any]
    loss: Callable[..., Any] | None = None
    test: Any = None
    evaluate: Callable[..., dict[str, float]] = evaluate
    policy: Policy | None = None
    ledger: Any = None
    output: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owned = dict.fromkeys(self.strategy.owns, type(self.strategy).__name__)
        for layer in self.stack.layers:
            for argument in layer.owns & owned.keys():
                raise StackError(f"{type(layer).__name__} and {owned[argument]} both must own the {argument}")
            owned |= dict.fromkeys(layer.owns, type(layer).__name__)
        self.train.demand(owned)


def sgd(learning_rate: float) -> Callable[[Any], Any]:
    """Return the default optimizer factory: plain SGD. Raises Misuse unless learning_rate > 0."""
    if not 0 < learning_rate < float("inf"):
        raise Misuse(f"expected learning_rate > 0, got {learning_rate}")

    def make(parameters: Any) -> Any:
        import torch

        return torch.optim.SGD(parameters, lr=learning_rate)

    return make


def cross_entropy() -> Any:
    """The default criterion."""
    import torch

    return torch.nn.CrossEntropyLoss()


def loaders_by_name(
    clients: Loaders, names: Sequence[str] | int | None
) -> tuple[tuple[str, ...], Callable[[str], Any]]:
    """Return the clients' names and what gives a client's loader, called only where that client lives.

    clients: a mapping, a sequence (names "0", "1", ...), or `loader_for(client_id, config)` together with `names`.
    """
    if isinstance(clients, Mapping):
        by_name = {str(k): v for k, v in clients.items()}
        return tuple(by_name), by_name.__getitem__
    if callable(clients):
        if names is None:
            raise Misuse("clients is a function: say which clients there are with names=[...] or names=COUNT")
        if not isinstance(names, int | Sequence) or isinstance(names, str):
            raise Misuse(f"names: expected a list of names or a count, got {names!r}")
        listed = tuple(str(n) for n in (range(names) if isinstance(names, int) else names))
        return listed, lambda name: clients(name, {"clients": listed})
    if not isinstance(clients, Sequence) or isinstance(clients, str):
        raise Misuse(
            "clients: expected loaders by name or in a list, or loader_for(client_id, config) with names=[...], "
            f"got {type(clients).__name__}"
        )
    by_index = {str(i): loader for i, loader in enumerate(clients)}
    return tuple(by_index), by_index.__getitem__


def _check_maker(name: str, maker: Any, does: str) -> None:
    """Raises Misuse for what is no factory: a finished module, optimizer or criterion among them."""
    finished = not isinstance(maker, type) and hasattr(maker, "state_dict")
    if finished or not callable(maker):
        raise Misuse(
            f"{name}: expected a function that {does}, got {type(maker).__name__}"
            f"{f': pass a factory such as lambda: {type(maker).__name__}(...)' if finished else ''}"
        )


def make_setup(
    *,
    model: Callable[[], Any],
    clients: Loaders,
    train: Callable[..., Any] | None,
    strategy: Strategy | None,
    privacy: Sequence[Any],
    plan: Plan,
    numbers: Numbers,
    names: Sequence[str] | int | None,
    optimizer: Callable[[Any], Any] | None,
    criterion: Callable[[], Any] | None,
    learning_rate: float,
    **rest: Any,
) -> Setup:
    """Return the checked setup. Raises Misuse or StackError."""
    listed, loader_for = loaders_by_name(clients, names)
    if not listed:
        raise Misuse("expected at least one client, got none")
    strategy = FedAvg() if strategy is None else strategy
    if not isinstance(strategy, Strategy):
        raise Misuse(f"strategy: expected a strategy such as FedAvg(), got {strategy!r}")
    makers = {
        "model": (model, "returns a new module"),
        "optimizer": (optimizer or sgd(learning_rate), "takes the parameters and returns an optimizer"),
        "criterion": (criterion or cross_entropy, "returns a criterion"),
    }
    for name, (maker, does) in makers.items():
        _check_maker(name, maker, does)
    if not strategy.weighted:
        numbers = replace(numbers, weight_cap=1)
    return Setup(
        model=model,
        loader_for=loader_for,
        names=listed,
        train=TrainFunction(train or train_one_epoch),
        strategy=strategy,
        # a function is called only where its client lives: sizes stay unknown here then
        sizes={} if callable(clients) else {name: examples_in(loader_for(name)) for name in listed},
        stack=Stack(privacy, numbers),
        plan=plan,
        optimizer=optimizer or sgd(learning_rate),
        criterion=criterion or cross_entropy,
        **rest,
    )
