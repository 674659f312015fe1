"""Step sizes that follow the run's epochs or rounds: the user's torch scheduler, put where each client's round begins.

A client's optimizer is made anew every round, and a node may run a process per message. So a schedule keeps nothing: a
round's scheduler is made anew too, and stepped to where the run is. What does not belong here: step sizes within an
epoch, and such as follow data.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import InitVar, dataclass
from typing import Any, TypeVar

from torch.optim.lr_scheduler import LambdaLR

from fl import arguments
from protocols.errors import Misuse
from protocols.options import is_plain, plain

Settings = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """make: from an optimizer to a torch scheduler, or None for step sizes that stay. per: "epoch", "round" or "step";
    a step is one of the optimizer's, of which a client takes as many in an epoch as its loader has batches. owned:
    the loop takes the schedule and steps it itself, per step.
    """

    make: Callable[[Any], Any] | None = None
    per: str = "epoch"
    owned: InitVar[bool] = False

    def __post_init__(self, owned: bool) -> None:
        if self.make is not None:
            arguments.takes(
                "scheduler", self.make, "a function that takes an optimizer and returns a scheduler", 1
            )
        arguments.checked("scheduler_per", self.per)
        if owned and self.per == "epoch":
            object.__setattr__(self, "per", "step")

    def stepping(self, epochs: int) -> bool:
        """Whether step sizes change within a client's round of `epochs` local epochs."""
        return self.make is not None and (self.per == "step" or (self.per == "epoch" and epochs > 1))

    def at(self, optimizer: Any, round: int, epochs: int, rounds: int = 1, batches: int = 1) -> "Following":
        """Set the optimizer's step sizes for the beginning of a round, and return what goes on from there.

        rounds: of the run. batches: of the client's loader. Raises Misuse for what is no scheduler, follows a metric,
        or ends before the round.
        """
        if self.make is None:
            return Following()
        scheduler = self._made(optimizer)
        if self.per != "step":
            advance(scheduler, self._steps(round - 1, epochs), f"round {round}")
            return Following(scheduler, self.per)
        spread = Following(scheduler, self.per, planned=rounds * epochs * batches, length=_length(scheduler))
        spread.go_to((round - 1) * epochs * batches)
        return spread

    def check(self, optimizer: Any, rounds: int, epochs: int) -> None:
        """Raises Misuse as `at` does for a run's last round; warns of a schedule of which the run is less than half."""
        self.at(optimizer, rounds, epochs, rounds)
        steps = self._steps(rounds, epochs)
        if self.per == "step" and not hasattr(optimizer, "register_step_post_hook"):
            raise Misuse(
                f"scheduler_per='step': {type(optimizer).__name__} cannot be watched; take torch's, or per epoch"
            )
        if (
            self.make is not None
            and self.per != "step"
            and (length := _length(scheduler := self._made(optimizer))) > 2 * steps
        ):
            warnings.warn(
                f"scheduler: {type(scheduler).__name__} is made for {length} steps, and this run has {steps}: it is "
                f"stepped once per {self.per}: make it for so many, or say scheduler_per='step'",
                stacklevel=5,
            )

    def _steps(self, rounds: int, epochs: int) -> int:
        return rounds * (epochs if self.per == "epoch" else 1)

    def facts(self, optimizer: Any) -> Settings:
        """Return the kind of scheduler and its plain settings at the beginning of a run, for its checkpoint."""
        if self.make is None:
            return {"scheduler": None}
        scheduler = self._made(optimizer)
        state = {key: value for key, value in scheduler.state_dict().items() if is_plain(value)}
        held = {f"scheduler.{key}": plain(value) for key, value in state.items() if not key.startswith("_")}
        return {"scheduler": type(scheduler).__name__, "scheduler_per": self.per, **held}

    def _made(self, optimizer: Any) -> Any:
        assert self.make is not None
        scheduler = self.make(optimizer)
        if not callable(getattr(scheduler, "step", None)) or not hasattr(scheduler, "state_dict"):
            raise Misuse(
                f"scheduler: expected a function that returns a scheduler, it returned {type(scheduler).__name__}"
            )
        return followed(scheduler)


@dataclass
class Following:
    """A schedule at one client in one round, which its loop may step as it is used to. scheduler: torch's, at the
    beginning of the round; None for none. planned: batches that the client takes in the run. length: steps that the
    schedule is made for, which are spread over these; 0 where it does not say: one for each.
    """

    scheduler: Any = None
    per: str = "round"
    planned: int = 0
    length: int = 0
    taken: int = 0
    _seen: int = 0
    _at: int = 0
    _begun: Any = None

    def begin(self, optimizer: Any) -> None:
        """The client's loop begins, where the round does: a strategy may have it run more than once (`Ditto`)."""
        if self.scheduler is None:
            return
        groups = optimizer.param_groups
        if self._begun is None:
            numbers = [{name: group[name] for name in group.keys() - {"params"}} for group in groups]
            self._begun = deepcopy((self.scheduler.state_dict(), numbers, self.taken, self._seen, self._at))
            return
        state, numbers, self.taken, self._seen, self._at = deepcopy(self._begun)
        self.scheduler.load_state_dict(state)
        for group, begun in zip(groups, numbers, strict=True):
            group.update(begun)

    def next_epoch(self) -> None:
        """An epoch of the client's round begins, not the first."""
        if self.per == "epoch" and self.scheduler is not None:
            self.scheduler.step()

    def watch(self, optimizer: Any, steps: bool) -> None:
        """Count the optimizer's steps; go on by each for a loop that does not do so itself."""

        def count(*_: Any) -> None:
            self.taken = min(self.taken + 1, self.planned)
            if steps:
                self.step()

        if self.per == "step":
            optimizer.register_step_post_hook(count)

    def step(self, *given: Any) -> None:
        """Go on to where the optimizer's steps are. Raises Misuse where rounds step the schedule, and for one of no
        length that is not stepped with every batch: where a round begins in it is not known.
        """
        name = type(self.scheduler).__name__
        if self.per != "step":
            raise Misuse(f"scheduler: it is stepped once per {self.per}: leave its step() out of the loop")
        if not self.length and self.taken > self._seen + 1:
            raise Misuse(
                f"scheduler: the loop does not step {name} with every batch, and {name} does not say for how many "
                "steps it is made: leave its step() out of the loop, and it is stepped once per epoch"
            )
        self.go_to(self.taken)

    def go_to(self, taken: int) -> None:
        """Go on to where the schedule is after so many of the run's batches."""
        there = taken * self.length // max(1, self.planned) if self.length else taken
        advance(self.scheduler, there - self._at, f"step {taken}")
        self.taken, self._seen, self._at = taken, taken, there

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheduler, name)


def followed(scheduler: T) -> T:
    """Return a scheduler. Raises Misuse for one that follows a metric."""
    if hasattr(scheduler, "mode_worse"):  # ReduceLROnPlateau, which torch gives no other mark
        raise follows_metric(type(scheduler).__name__)
    return scheduler


def follows_metric(name: str) -> Misuse:
    """Return the refusal of a schedule that every client would run by numbers of its own."""
    return Misuse(
        f"scheduler: {name} follows a metric, and clients would follow their own: take one that follows epochs"
    )


def advance(scheduler: Any, steps: int, where: str) -> None:
    """Step a scheduler to where the run is. where: that place in words. Raises Misuse for one that ends before."""
    if type(scheduler) is LambdaLR and steps:  # which knows its rate at any step
        scheduler.last_epoch, steps = scheduler.last_epoch + steps - 1, 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects steps of this optimizer: they were another's
            for _ in range(steps):
                scheduler.step()
    except ValueError as error:
        raise Misuse(f"scheduler: {type(scheduler).__name__} does not reach {where}: {error}") from None


def _length(scheduler: Any) -> int:
    """How many steps a scheduler, or one that it chains, says that it is made for; 0 where it does not say."""
    said = (getattr(scheduler, name, 0) for name in ("total_steps", "T_max", "total_iters"))
    return max(*said, *map(_length, getattr(scheduler, "_schedulers", ())))
