"""What a federation is made of, checked before round 1. What does not belong here: running it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl import arguments
from fl.loaders import examples_in
from fl.strategies import FedAvg, Strategy
from fl.train_function import TrainFunction
from fl.training import evaluate, train_one_epoch
from protocols.errors import Misuse, StackError
from protocols.policy import Policy
from protocols.stack import Numbers, Stack

if TYPE_CHECKING:
    from dp.ledger import Ledger

LEARNING_RATE = 0.1
"""Of the default optimizer."""

Loaders = Mapping[str, Any] | Sequence[Any] | Callable[..., Any]


@dataclass(frozen=True)
class Plan:
    """How rounds are run.

    local_epochs >= 1. fraction of the clients asked per round, in (0, 1]. sampling: "fixed" (that share,
    without replacement) or "poisson" (each client by itself). dropout: share of the asked that leave at
    random, before or after their input, in [0, 1) (simulation). integers: "keep", "sum" or "refuse" for
    integer tensors. parameters: what is sent: "trained" (what requires gradients), "all", or patterns of
    names ("head.*"). buffers: "sum" (running statistics travel with the update, and are refused beside layers that add
    noise) or "local" (they never leave a client, which goes on with its own; the server's stay as they were made).
    metrics: names of what `train` returns that are summed with the update. min_survivors:
    a round with fewer is abandoned. workers: processes that train beside this one, for the engine in memory on the CPU;
    the same model bit for bit, but what a training function changes outside its model stays in its process.
    stay_local: patterns (as of a shell) of names of the model's entries that never leave a client, which keeps its own.
    """

    local_epochs: int = 1
    fraction: float = 1.0
    sampling: str = "fixed"
    dropout: float = 0.0
    integers: str = "keep"
    parameters: str | tuple[str, ...] = "trained"
    buffers: str = "sum"
    metrics: tuple[str, ...] = ("loss", "accuracy")
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    delta: float | None = None
    min_survivors: int = 1
    stay_local: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked = {
            "local_epochs": arguments.whole("local_epochs", self.local_epochs, 1),
            "fraction": arguments.real("fraction", self.fraction, "in (0, 1]", lambda share: 0 < share <= 1),
            "dropout": arguments.real("dropout", self.dropout, "in [0, 1)", lambda share: 0 <= share < 1),
            "seed": arguments.whole("seed", self.seed),
            "delta": arguments.delta(self.delta),
            "workers": arguments.whole("workers", self.workers, 1),
            "min_survivors": arguments.whole("min_survivors", self.min_survivors, 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # NumPy's numbers become Python's: they are kept as JSON
        if self.sampling not in ("fixed", "poisson"):
            raise Misuse(f'expected sampling "fixed" or "poisson", got {self.sampling!r}')
        if self.integers not in ("keep", "sum", "refuse"):
            raise Misuse(f'expected integers to be "keep", "sum" or "refuse", got {self.integers!r}')
        if self.buffers not in ("sum", "local"):
            raise Misuse(f'expected buffers "sum" or "local", got {self.buffers!r}')
        object.__setattr__(self, "parameters", arguments.patterns("parameters", self.parameters))
        for name in ("metrics", "stay_local"):
            value = getattr(self, name)
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            if not listed or not all(isinstance(item, str) for item in value):
                raise Misuse(f"{name}: expected a list of names, got {value!r}")


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
    ledger: "Ledger | None" = None
    output: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def keeps_state(self) -> bool:
        """Whether clients keep arrays from round to round."""
        layers = any(layer.keeps_state for layer in self.stack.layers)
        return bool(self.plan.stay_local) or self.strategy.keeps_state or layers

    def __post_init__(self) -> None:
        owned = dict.fromkeys(self.strategy.owns, type(self.strategy).__name__)
        for layer in self.stack.layers:
            for argument in layer.owns & owned.keys():
                raise StackError(f"{type(layer).__name__} and {owned[argument]} both must own the {argument}")
            owned |= dict.fromkeys(layer.owns, type(layer).__name__)
            if self.plan.stay_local and layer.needs_local():
                raise StackError(
                    f"{type(layer).__name__} computes the update of the whole model itself: leave out stay_local"
                )
        self.train.demand(owned)
        if self.loss is not None:
            arguments.takes("loss", self.loss, "a function loss(model, batch)", 2)


def shared(state: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the entries of a model that leave a client."""
    return {
        name: value
        for name, value in state.items()
        if not any(fnmatchcase(name, pattern) for pattern in plan.stay_local)
    }


def sgd(learning_rate: float) -> Callable[[Any], Any]:
    """Return the default optimizer factory: plain SGD. Raises Misuse unless learning_rate > 0."""
    learning_rate = arguments.positive("learning_rate", learning_rate)

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
        if len(by_name) < len(clients):
            raise Misuse(f"clients: expected distinct names, got {list(clients)}")
        return tuple(by_name), by_name.__getitem__
    if callable(clients):
        if names is None:
            raise Misuse("clients is a function: say which clients there are with names=[...] or names=COUNT")
        arguments.takes("clients", clients, "loaders, or a function loader_for(client_id, config)", 2)
        listed = _listed(names)
        return listed, lambda name: clients(name, {"clients": listed})
    if not isinstance(clients, Sequence) or isinstance(clients, str):
        raise Misuse(
            "clients: expected loaders by name or in a list, or loader_for(client_id, config) with names=[...], "
            f"got {type(clients).__name__}"
        )
    by_index = {str(i): loader for i, loader in enumerate(clients)}
    return tuple(by_index), by_index.__getitem__


def _listed(names: Any) -> tuple[str, ...]:
    if isinstance(names, int) and not isinstance(names, bool) and names > 0:
        names = range(names)
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise Misuse(f"names: expected a list of names or a count, got {names!r}")
    listed = tuple(str(name) for name in names)
    if not listed or len(set(listed)) < len(listed):
        raise Misuse(f"names: expected distinct names of clients, got {list(names)}")
    return listed


def _check_maker(name: str, maker: Any, does: str, count: int) -> None:
    """Raises Misuse for what is no factory: a finished module, optimizer or criterion among them, or a function
    of other than `count` arguments, such as a loss.
    """
    finished = not isinstance(maker, type) and hasattr(maker, "state_dict")
    if finished or not callable(maker):
        raise Misuse(
            f"{name}: expected a function that {does}, got {type(maker).__name__}"
            f"{f': pass a factory such as lambda: {type(maker).__name__}(...)' if finished else ''}"
        )
    arguments.takes(name, maker, f"a function {'' if count else 'of no argument '}that {does}", count)


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
    learning_rate: float | None,
    **rest: Any,
) -> Setup:
    """Return the checked setup. Raises Misuse or StackError."""
    listed, loader_for = loaders_by_name(clients, names)
    if not listed:
        raise Misuse("clients: expected at least one, got none")
    strategy = FedAvg() if strategy is None else strategy
    if not isinstance(strategy, Strategy):
        raise Misuse(f"strategy: expected a strategy such as FedAvg(), got {strategy!r}")
    if optimizer is not None and learning_rate is not None:
        raise Misuse("learning_rate: it is the default optimizer's; the optimizer given here has its own")
    optimizer = (
        sgd(LEARNING_RATE if learning_rate is None else learning_rate) if optimizer is None else optimizer
    )
    criterion = cross_entropy if criterion is None else criterion
    _check_maker("model", model, "returns a new module", 0)
    _check_maker("optimizer", optimizer, "takes the parameters and returns an optimizer", 1)
    _check_maker("criterion", criterion, "returns a criterion", 0)
    if not callable(made := criterion()):
        raise Misuse(
            f"criterion: expected a function that returns a criterion, it returned {type(made).__name__}"
        )
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
        optimizer=optimizer,
        criterion=criterion,
        **rest,
    )
