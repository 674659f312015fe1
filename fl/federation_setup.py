"""What a federation is made of, checked before round 1. What does not belong here: running it."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from dp.ledger import Ledger
from fl import arguments
from fl.callbacks import Callback
from fl.disjoint import require_disjoint
from fl.loaders import checked_loader, examples_in
from fl.run_options import RunOptions
from fl.schedules import Schedule
from fl.strategies import FedAvg, FedSGD, Strategy
from fl.tensors.trained import require_matches
from fl.train_function import TrainFunction, by_name
from fl.training import Evaluate, evaluate
from protocols.errors import Misuse, StackError, require
from protocols.layers import PrivacyLayer, RunFacts
from protocols.policy import Policy
from protocols.stack import Stack
from protocols.statement import PrivacyEvent

T = TypeVar("T")
SHOWN = 5
LEARNING_RATE = 0.1
"""Of the default optimizer."""

Loaders = Mapping[str, Any] | Sequence[Any] | Callable[..., Any]


@runtime_checkable
class ClientEvaluates(Protocol):
    """What evaluates a model on the clients' data (`fl.client_evaluation`). kinds: the events of one evaluation, none
    where its sums are exact. hides_from_server: whether its noise holds against the server. told: what it releases, for
    the statement. names: of the metrics that it gives. `federation` is the round that evaluates a model, `charge` pays
    for one before anything is sent and says whether it is due, `after` returns the metrics of a federation's round.
    """

    kinds: tuple[PrivacyEvent, ...]
    hides_from_server: bool
    told: str
    names: tuple[str, ...]

    def federation(self, model: torch.nn.Module) -> Any: ...

    def charge(self, number: int, account: Any) -> bool: ...

    def after(self, number: int, run: Any) -> dict[str, float]: ...


@dataclass
class FederationSetup:
    """Everything a federation was given, normalised. Layers, strategy and train function are checked
    against each other.
    """

    model: Callable[[], Any]
    loader_for: Callable[[str], Any]
    names: tuple[str, ...]
    train: TrainFunction
    strategy: Strategy
    stack: Stack
    options: RunOptions
    optimizer: Callable[[Any], Any]
    criterion: Callable[[], Any]
    loss: Callable[..., Any] | None
    test: Any
    evaluate: Evaluate
    evaluation: ClientEvaluates | None
    policy: Policy | None
    ledger: Ledger | None
    output: Path | None
    sizes: dict[str, int]
    callbacks: tuple[Callback, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def measures(self) -> bool:
        """Whether the server measures the model: on test data, or by a function of the user's that has its own."""
        return self.test is not None or self.evaluate is not evaluate

    @property
    def keeps_state(self) -> bool:
        """Whether clients keep arrays from round to round."""
        layers = any(layer.keeps_state for layer in self.stack.layers)
        return bool(self.options.stay_local) or self.strategy.keeps_state or layers

    def optimizer_for(self, model: Any) -> Any:
        """Return what the optimizer factory makes for a model. Raises Misuse for what is no optimizer."""
        made = self.optimizer(model.parameters())
        if not all(callable(getattr(made, name, None)) for name in ("step", "zero_grad")):
            raise Misuse(
                f"optimizer: expected a function that returns an optimizer, it returned {type(made).__name__}"
            )
        return made

    def require_weights(self, most: int) -> None:
        """Raises StackError where the layers let clients count by less (at most `most`) than the strategy chooses."""
        strategy = self.strategy
        if strategy.weight_cap and most < strategy.weight_cap:
            raise StackError(
                f"{strategy.name} chooses weights up to {strategy.weight_cap}, and a client counts {most} at most: "
                "lower its weight_cap, raise the federation's, or let the layer take weights "
                '(ClientDP(weights="bounded", weight_cap=...))'
            )

    def require_recipients(self, everyone: bool) -> None:
        """Who is to be given every round's sum must be a client, and asked in every round. Raises Misuse."""
        recipients = self.stack.secure_sum.recipients
        if missing := [name for name in recipients if name not in self.names]:
            raise Misuse(
                f"{missing[0]!r} is to be given the sum and is no client of this federation: {list(self.names)}"
            )
        if recipients and not everyone:
            raise Misuse(f"{recipients[0]!r} is to be given every sum, and not every round asks every client")

    def require_secrecy(self) -> None:
        """Raises StackError for what tells, or counts on, who took part, which a layer counts on being secret."""
        if self.keeps_state:
            raise StackError(
                "clients that keep state are told which rounds closed with whom, and a layer's price counts on that "
                'nobody learns who took part: choose sampling="fixed" over everybody, or take amplify=False'
            )
        if self.stack.secure_sum.builds_on_earlier:
            raise StackError(
                "sessions with reused keys lack who left an earlier one, and a layer's price counts every round that "
                'fails by the number chosen in it alone: choose setup="fresh", or take amplify=False'
            )

    def over_network(self) -> None:
        """Take the stack as it is played where every trip costs seconds (`Stack.over_network`).

        With spare clients keys stay fresh: of reused ones, only the first who enrolled would be asked from then on.
        """
        if not self.options.spare:
            self.stack = self.stack.over_network()

    def notes(self, run: RunFacts) -> tuple[str, ...]:
        """What a statement says of the strategy, of what clients keep, and of their evaluation."""
        evaluation = self.evaluation
        told = (
            () if evaluation is None else (evaluation.told, *covered_apart(evaluation, self.stack.kinds(run)))
        )
        return (*self.strategy.notes(), *self.kept_note, *told)

    @property
    def kept_note(self) -> tuple[str, ...]:
        """What a statement says of what clients keep from round to round."""
        names = [*self.options.stay_local, *([self.strategy.name] if self.strategy.keeps_state else [])]
        names += [layer.name for layer in self.stack.layers if layer.keeps_state]
        if not names:
            return ()
        told = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        return (
            f"what clients keep from round to round ({told}) stays in their own stores, outside any "
            "epsilon: a clip covers what travels, and an evaluation of it is another release",
        )

    def __post_init__(self) -> None:
        if (why := beyond_examples(self.strategy)) and (
            by := [x for x in self.stack.layers if x.needs_local()]
        ):
            raise StackError(
                f"{type(by[0]).__name__} protects single examples, and {self.strategy.name} cannot stand beside it: "
                f"{why}"
            )
        if self.strategy.needs_noise and not self.stack.noisy:
            raise StackError(
                f"{self.strategy.name} without a layer that noises updates: {self.strategy.needs_noise}"
            )
        owned = dict.fromkeys(self.strategy.owns, type(self.strategy).__name__)
        for layer in self.stack.layers:
            for argument in layer.owns & owned.keys():
                raise StackError(f"{type(layer).__name__} and {owned[argument]} both must own the {argument}")
            owned |= dict.fromkeys(layer.owns, type(layer).__name__)
            if self.strategy.steers and layer in self.stepless:
                raise StackError(
                    f"{type(layer).__name__} lets clients take no own step: {type(self.strategy).__name__} has none to "
                    "correct; take FedSGD, or SampleDP"
                )
            if self.strategy.buffers is not None and layer in self.stepless:
                raise StackError(
                    f"{type(layer).__name__} sums exact gradients, and {self.strategy.name} weighs them by the age of "
                    "a model: take SampleDP, or rounds that wait"
                )
            kept = self.strategy.keeps_state and (self.strategy.steers or self.strategy.resends)
            reckons = kept or self.strategy.undelayed
            if layer.keeps_state and reckons:
                raise StackError(
                    f"{layer.name} sends later what it leaves out, and {self.strategy.name} reckons with what a client "
                    "sends when it sends it: leave one of them out"
                )
            if self.options.stay_local and layer.needs_local():
                raise StackError(
                    f"{type(layer).__name__} computes the update of the whole model itself: leave out stay_local"
                )
        if self.strategy.steers:
            owned.setdefault("optimizer", type(self.strategy).__name__)
        self.train.demand(owned)
        for layer in self.stack.layers:
            if layer.needs_local():
                self.train.demand_private(type(layer).__name__)
                require_disjoint(type(layer).__name__, {name: self.loader_for(name) for name in self.sizes})
        self._check_schedule()
        if self.loss is not None:
            arguments.takes("loss", self.loss, "a function loss(model, batch)", 2)

    @property
    def empty(self) -> tuple[str, ...]:
        """The clients that are known to hold no example, where their numbers may be told."""
        return () if self.stack.hides_sizes else tuple(name for name, size in self.sizes.items() if not size)

    @property
    def stepless(self) -> tuple[PrivacyLayer, ...]:
        """The layers that compute the update in place of a client's own steps."""
        return tuple(
            layer for layer in self.stack.layers if layer.needs_local() and "optimizer" not in layer.owns
        )

    def _check_schedule(self) -> None:
        """Raises Misuse, or StackError where who owns the optimizer would let a schedule have no effect or no say."""
        if self.schedule.make is None:
            if self.train.steps_schedule:
                raise Misuse(f"{self.train.name} asks for the scheduler, and none was given: scheduler=...")
            return
        self.train.demand({"optimizer": "scheduler"})
        for who in (*([self.strategy] if isinstance(self.strategy, FedSGD) else []), *self.stepless):
            raise StackError(
                f"{type(who).__name__} lets clients take no own step: a scheduler changes nothing; leave it out"
            )
        for layer in self.stack.layers:
            if "optimizer" in layer.owns and self.schedule.stepping(self.options.local_epochs):
                raise StackError(
                    f"{type(layer).__name__} freezes step sizes for a client's round, and this scheduler changes them "
                    'between its epochs: take scheduler_per="round" or local_epochs=1, or SampleDP(schedule=...), a '
                    "function of the step's number"
                )


def beyond_examples(strategy: Strategy) -> str:
    """Return why no layer that protects examples may stand beside a strategy, "" if one may."""
    if strategy.beyond_examples is not None:
        return strategy.beyond_examples
    unsaid = (
        "what clients keep must be made from protected values alone, and it does not say so (beyond_examples)"
    )
    return unsaid if strategy.keeps_state else ""


def shared(state: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    """Return the entries of a model that leave a client. Raises Misuse for a pattern that matches none."""
    require_matches("stay_local", options.stay_local, state, "entry of the model")
    return {
        name: value
        for name, value in state.items()
        if not any(fnmatchcase(name, pattern) for pattern in options.stay_local)
    }


def loaders_by_name(
    clients: Loaders, names: Sequence[str] | int | None
) -> tuple[tuple[str, ...], Callable[[str], Any], dict[str, int]]:
    """Return the clients' names, what gives a client's loader, called only where that client lives, and the sizes.

    clients: a mapping, a sequence (names "0", "1", ...), or `loader_for(client_id, config)` together with `names`.
    """
    if callable(clients) and not isinstance(clients, Mapping):
        arguments.takes("clients", clients, "loaders, or a function loader_for(client_id, config)", 2)
        if names is None:
            raise Misuse("clients is a function: say which clients there are with names=[...] or names=COUNT")
        listed = _listed(names)
        there = lambda name: checked_loader(f"client {name!r}", clients(name, {"clients": listed}))  # noqa: E731 - one line
        return listed, there, {}  # sizes stay unknown here
    if not isinstance(clients, Mapping | Sequence) or isinstance(clients, str):
        raise Misuse(
            "clients: expected loaders by name or in a list, or loader_for(client_id, config) with names=[...], "
            f"got {type(clients).__name__}"
        )
    given = clients if isinstance(clients, Mapping) else dict(enumerate(clients))
    by_name = {str(name): loader for name, loader in given.items()}
    require(len(by_name) == len(given), "distinct names", list(given), "clients")
    require(by_name, "at least one", "none", "clients")
    sizes = {
        name: examples_in(checked_loader(whose := f"client {name!r}", loader), whose)
        for name, loader in by_name.items()
    }
    if not any(sizes.values()):
        raise Misuse(f"clients: none of {list(by_name)} holds an example: there is nothing to train on")
    return tuple(by_name), by_name.__getitem__, sizes


def _listed(names: Any) -> tuple[str, ...]:
    if isinstance(names, int) and not isinstance(names, bool) and names > 0:
        names = range(names)
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise Misuse(f"names: expected a list of names or a count, got {names!r}")
    listed = tuple(str(name) for name in names)
    require(listed and len(set(listed)) == len(listed), "distinct names of clients", list(names), "names")
    return listed


def maker(name: str, given: T, does: str, count: int = 0) -> T:
    """Return a factory. Raises Misuse for what is none: a finished module, optimizer or criterion among them, or a
    function of other than `count` arguments, such as a loss.
    """
    finished = not isinstance(given, type) and hasattr(given, "state_dict")
    if finished or not callable(given):
        raise Misuse(
            f"{name}: expected a function that {does}, got {type(given).__name__}"
            f"{f': pass a factory such as lambda: {type(given).__name__}(...)' if finished else ''}"
        )
    arguments.takes(name, given, f"a function {'' if count else 'of no argument '}that {does}", count)
    return given


def optimizer_of(given: Callable[[Any], Any] | None, learning_rate: Any) -> Callable[[Any], Any]:
    """Return what makes optimizers. Raises Misuse, also for a learning rate beside a factory that has its own."""
    if given is None:
        rate = LEARNING_RATE if learning_rate is None else learning_rate
        return partial(torch.optim.SGD, lr=arguments.checked("learning_rate", rate))
    if learning_rate is not None:
        raise Misuse("learning_rate: it is the default optimizer's; the optimizer given here has its own")
    return maker("optimizer", given, "takes the parameters and returns an optimizer", 1)


def criterion_of(given: Callable[[], Any] | None) -> Callable[[], Any]:
    """Return what makes criteria. Raises Misuse."""
    make = maker("criterion", torch.nn.CrossEntropyLoss if given is None else given, "returns a criterion")
    if not callable(made := make()):
        raise Misuse(
            f"criterion: expected a function that returns a criterion, it returned {type(made).__name__}"
        )
    return make


def strategy_of(given: Strategy | None) -> Strategy:
    """Return the strategy, FedAvg unless one is given. Raises Misuse."""
    if given is None:
        return FedAvg()
    arguments.instance("strategy", given, Strategy, "a strategy such as FedAvg()")
    return given


def check_client_evaluation(given: Any, stack: Stack) -> None:
    """Raises Misuse for what evaluates nothing, and where it would tell exactly what a layer noises, or tell it to the
    server in a run that claims something against the server.
    """
    if given is None:
        return
    arguments.instance("evaluation", given, ClientEvaluates, "an fl.ClientEvaluation")
    if stack.noisy and not given.kinds:
        noisy = next(layer.name for layer in stack.layers if layer.adds_noise)
        raise Misuse(
            f"evaluation: {noisy} noises what clients send, and this evaluation would sum their results exactly: give "
            "it a layer of its own that adds noise, whose price is added (privacy=[ClientDP(...), ...]), or give the "
            "server test="
        )
    held = [name for name, adversary in stack.adversaries.items() if adversary == "server"]
    if held and not given.hides_from_server:
        raise Misuse(
            f"evaluation: what {held[0]} promises holds against the server, and the server would see this evaluation "
            "without its noise: let clients add it (privacy=[DistributedDP(...), SecAgg()], or [LocalDP(...)])"
        )


def covered_apart(given: ClientEvaluates, kinds: Sequence[PrivacyEvent]) -> tuple[str, ...]:
    """Return a note where no line of the statement covers both training and evaluation: they speak of other units or
    neighbours.
    """
    of, beside = ({(event.unit, event.relation) for event in each} for each in (given.kinds, kinds))
    if of == beside:
        return ()
    return (
        "lines of the evaluation cover the evaluation alone, the others all but it: they speak of other units or "
        "neighbours, and no line bounds what both together say",
    )


def evaluation_of(given: Evaluate | None, test: Any, unsaid: Collection[str]) -> Evaluate:
    """Return what evaluates the model. unsaid: as in `TrainFunction`. Raises Misuse for a function that cannot be
    called, or never would be.
    """
    checked_loader("test", test)
    if given is None:
        return evaluate
    made = by_name("evaluate", given, ("model", "loader", "criterion", "device"), unsaid)
    if test is None and (made is given or "loader" in inspect.signature(given).parameters):
        raise Misuse("evaluate: it is called with the loader test=..., and none was given")
    return made
