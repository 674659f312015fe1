"""What every callback is, and how a run calls them. What does not belong here: any particular one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from fl import arguments
from fl.round import RoundResult
from protocols.errors import Misuse
from protocols.layers import LocalTask


@dataclass(frozen=True, eq=False)
class Run:
    """What a server's hook sees of a run.

    - rounds: how many are planned.
    - model: the server's torch module, moved in place from round to round.
    - history: a RoundResult per round so far, those of a resumed run included.
    - settings: names of strategy, layers and secure sum, and `rounds`.
    - summed: names of the training metrics that travel in the secure sum.
    - tested: names of the metrics of the server's test data.
    - clients: names of the metrics of the clients' own data that an evaluation releases, in the rounds in which it
      is due.
    - noisy: a layer adds noise; then `train_metrics` are empty, and no log may hold when a round ended.
    - evaluate: a function of no argument that returns the test metrics of the model as it is.

        class Watch(Callback):
            def on_run_begin(self, run: Run):
                print(run.rounds, run.settings, run.tested)
    """

    rounds: int
    model: Any = field(repr=False)
    history: Sequence[RoundResult] = field(repr=False)
    settings: Mapping[str, Any]
    summed: tuple[str, ...]
    tested: tuple[str, ...]
    clients: tuple[str, ...]
    noisy: bool
    evaluate: Callable[[], dict[str, float]] = field(repr=False)


class Callback:
    """Base of callbacks: override the hooks that are wanted. Give instances as `Federation(callbacks=[...])`.

    Server hooks get what was released: the RoundResult that the run's files hold, without what a layer withholds.
    The first three end the run by returning False. An error that one raises ends `fit`; all rounds so far are saved
    before, and `Federation.result` holds them.

    Client hooks run where the client lives: in this process, a worker process, a Flower node. They see the client's
    own data; what they note outside this process stays there, and an error is that client's failure, not the run's.
    Beside a layer that clips the rows of single examples they get a copy of the model, and one that moves it ends
    the run.

        class Announce(Callback):
            def on_round_end(self, run, result):
                print(result.number, result.metrics)
                return result.metrics["loss"] > 0.1     # False: enough
    """

    def on_run_begin(self, run: Run) -> bool | None:
        """Before the first round, when all is planned and nothing is charged."""

    def on_round_begin(self, run: Run, number: int) -> bool | None:
        """Before round `number`, counted from 1."""

    def on_round_end(self, run: Run, result: RoundResult) -> bool | None:
        """After a round, abandoned ones included, once it is saved."""

    def on_run_end(self, run: Run) -> None:
        """After the last round, and after whatever else ended the run, an error included."""

    def on_client_begin(self, task: LocalTask, number: int) -> None:
        """At a client, before it trains in round `number`. task: its model, loader and optimizer."""

    def on_client_end(self, task: LocalTask, number: int, metrics: Mapping[str, float]) -> None:
        """At a client, after it trained. metrics: what its loop returned, unprotected: they belong to the client."""


class OnRound(Callback):
    """A function of a round's result, as `fit(on_round=...)` takes it."""

    def __init__(self, function: Callable[[RoundResult], Any]) -> None:
        self.function = function

    def on_round_end(self, run: Run, result: RoundResult) -> bool | None:
        said: bool | None = self.function(result)
        return said


class Listeners:
    """The callbacks of one run, in order. Use it as a context: every one that began also ends, whatever happens."""

    def __init__(self, callbacks: Sequence[Callback], run: Run) -> None:
        self.callbacks, self.run, self._stopped = callbacks, run, False

    def __enter__(self) -> Self:
        with ExitStack() as begun:
            for each in self.callbacks:
                self._stopped |= _call(each, "on_run_begin", self.run)
                begun.callback(_call, each, "on_run_end", self.run)
            self._begun = begun.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._begun.__exit__(kind, error, trace)

    def stop(self, hook: str, what: Any) -> bool:
        """Call a hook of all callbacks, and return whether one of them ends the run."""
        said = [_call(each, hook, self.run, what) for each in self.callbacks if not self._stopped]
        self._stopped |= any(said)
        return self._stopped


def _call(callback: Callback, hook: str, *given: Any) -> bool:
    """Whether this hook ends the run: False does; None, as of a function without a return, does not."""
    try:
        said = getattr(callback, hook)(*given)
    except Exception as error:
        error.add_note(
            f"{type(callback).__name__}.{hook} raised this; Federation.result holds the run so far"
        )
        raise
    return isinstance(said, bool | np.bool_) and not said


def of_clients(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks with a client's hook: the others have nothing to do where a client lives."""
    hooks = ("on_client_begin", "on_client_end")
    return tuple(
        c for c in callbacks if any(getattr(type(c), hook) is not getattr(Callback, hook) for hook in hooks)
    )


def checked(given: Any) -> tuple[Callback, ...]:
    """Return the callbacks that a federation was given. Raises Misuse for what is none, a class among them."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise Misuse(f"callbacks: expected a list of callbacks, got {given!r}: write callbacks=[...]")
    for each in given:
        function = " (a function of a round's result goes to fit(on_round=...))" if callable(each) else ""
        arguments.instance("callbacks", each, Callback, f"instances of fl.callbacks.Callback{function}")
        _check_hooks(each)
    return tuple(given)


def _check_hooks(callback: Callback) -> None:
    """Raises Misuse for a hook that could not be called, and for one that never would be."""
    kind = type(callback).__name__
    for name in (name for name in dir(callback) if name.startswith("on_")):
        usual = getattr(Callback, name, None)
        if usual is None:
            raise Misuse(
                f"callbacks: {kind}.{name} is no hook and would never be called; hooks are {list(_HOOKS)}"
            )
        takes = [*inspect.signature(usual).parameters][1:]
        wanted = f"a hook {kind}.{name}(self, {', '.join(takes)})"
        arguments.takes("callbacks", getattr(callback, name), wanted, len(takes))


_HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
