"""Step sizes that follow the run's epochs or rounds: the user's torch scheduler, put where each client's round begins.

A client's optimizer is made anew every round, and a node may run a process per message. So a schedule keeps nothing: a
round's scheduler is made anew too, and stepped to where the run is. What does not belong here: step sizes within an
epoch, and such as follow data.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch.optim.lr_scheduler import LambdaLR

from fl import arguments
from protocols.errors import Misuse
from protocols.options import is_plain, plain

Settings = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """make: from an optimizer to a torch scheduler, or None for step sizes that stay. per: "epoch" or "round"."""

    make: Callable[[Any], Any] | None = None
    per: str = "epoch"

    def __post_init__(self) -> None:
        if self.make is not None:
            arguments.takes(
                "scheduler", self.make, "a function that takes an optimizer and returns a scheduler", 1
            )
        arguments.checked("scheduler_per", self.per)

    def stepping(self, epochs: int) -> bool:
        """Whether step sizes change within a client's round of `epochs` local epochs."""
        return self.make is not None and self.per == "epoch" and epochs > 1

    def at(self, optimizer: Any, round: int, epochs: int) -> Callable[[], None]:
        """Set the optimizer's step sizes for the beginning of a round, and return what goes on to its next epoch.

        Raises Misuse for what is no scheduler, follows a metric, or ends before the round.
        """
        if self.make is None:
            return _nothing
        scheduler = self._made(optimizer)
        advance(scheduler, self._steps(round - 1, epochs), f"round {round}")
        return scheduler.step if self.per == "epoch" else _nothing

    def check(self, optimizer: Any, rounds: int, epochs: int) -> None:
        """Raises Misuse as `at` does for a run's last round; warns of a schedule of which the run is less than half."""
        self.at(optimizer, rounds, epochs)
        steps = self._steps(rounds, epochs)
        if self.make is not None and (length := _length(scheduler := self._made(optimizer))) > 2 * steps:
            warnings.warn(
                f"scheduler: {type(scheduler).__name__} is made for {length} steps, and this run has {steps}: it is "
                f"stepped once per {self.per}, not per batch: make it for so many",
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


def _nothing() -> None:
    """No schedule."""
