"""Callbacks that look at a metric: keep the best model, stop when it gets no better.

What does not belong here: metrics themselves. A metric is of the server's own test data, which is taken to be public,
or a training metric that the clients summed. Beside noise the latter is refused: nothing was charged for it.
"""

import math
from pathlib import Path
from typing import Any, Literal

from fl.callbacks.base import Callback, Run
from fl.round import RoundResult
from protocols.errors import Misuse, require
from protocols.store import write_atomic

LESS = ("loss", "error", "mse", "rmse", "mae", "perplexity")
MORE = ("accuracy", "auroc", "auc", "f1", "precision", "recall", "r2")
"""Metrics, by the last word of their names, of which it is known which way they get better."""


def mode_of(metric: str) -> Literal["max", "min"] | None:
    """Return which way a metric gets better, None where its name does not tell."""
    last = metric.lower().replace(".", "_").rpartition("_")[2]
    return "min" if last in LESS else "max" if last in MORE else None


class Watching(Callback):
    """Follows one metric: `value`, its best so far, and `round`, where that was (0: nowhere yet).

    metric: its name. of: "test", what `evaluate` returns on the server's data or a `ClientEvaluation` releases (those
    rounds alone count), or "train", what clients summed. mode: "max" or "min"; may be left out where the name says it:
    a loss or an error gets better downwards, an accuracy and its like upwards. least: what counts as better must be
    better by more than this, >= 0. Raises Misuse, and before round 1 for a metric that never comes or that the layers
    do not allow to choose by. Abandoned rounds do not count.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["max", "min"] | None = None,
        of: Literal["test", "train"] = "test",
        least: float = 0.0,
    ) -> None:
        name = type(self).__name__
        mode = mode or mode_of(metric)
        if mode is None:
            raise Misuse(f'{name}: which way does {metric!r} get better? Say mode="max" or mode="min"')
        if mode not in ("max", "min") or of not in ("test", "train"):
            raise Misuse(
                f'{name}: expected mode "max" or "min" and of "test" or "train", got {mode!r}, {of!r}'
            )
        require(0 <= least < math.inf, "least >= 0", f"{least!r}", name)
        self.metric, self.mode, self.of, self.least = metric, mode, of, least
        self._forget()

    def _forget(self) -> None:
        self.value, self.round, self.since = math.nan, 0, 0

    def on_run_begin(self, run: Run) -> None:
        self._require(run)
        self._forget()
        for result in run.history:
            self.better(result)

    def better(self, result: RoundResult) -> bool:
        """Whether a round is the best so far; `since` counts the rounds after the best one."""
        if result.abandoned:
            return False
        known = result.metrics if self.of == "test" else result.train_metrics
        if self.metric not in known and self.of == "test":
            return False  # an evaluation that is not due
        if self.metric not in known and not self.round:
            raise Misuse(
                f"{type(self).__name__}: no client reported {self.metric!r} in round {result.number}: "
                "train must return it"
            )
        value = known.get(self.metric, math.nan)
        gain = (value - self.value) * (1 if self.mode == "max" else -1)
        if math.isnan(value) or (self.round and not gain > self.least):
            self.since += 1
            return False
        self.value, self.round, self.since = value, result.number, 0
        return True

    def _require(self, run: Run) -> None:
        name = type(self).__name__
        if self.of == "train" and run.noisy:
            raise Misuse(
                f"{name}: {self.metric!r} of the clients' data is not covered by the layers' noise, so nothing may be "
                'chosen or stopped by it: take a metric of the server\'s own test data (of="test", test=...)'
            )
        if self.of == "test" and self.metric in run.clients:
            return
        known = list(run.summed) if self.of == "train" else sorted({*run.tested, *run.clients})
        if self.metric not in known:
            remedy = (
                "metrics=[...] sums it"
                if self.of == "train"
                else "give test=..., and evaluate=... that returns it"
            )
            raise Misuse(f"{name}: {self.metric!r} never comes; {self.of} metrics are {known}: {remedy}")


class KeepBest(Watching):
    """Keep the model of the best round: `state`, a state dict on the CPU, None until there is one. `value` is its
    metric, `round` its number.

    - metric: its name (default: "accuracy").
    - mode: which way it gets better, "max" or "min" (default: None, as its name says: down for a loss or an error,
      up for an accuracy and its like).
    - path: a safetensors file that holds the state too, replaced whole; a resumed run finds there what it kept
      (default: None).
    - of: whose metric: "test" (of the server's data, or what a `ClientEvaluation` releases; default) or "train"
      (what clients summed).

    Raises Misuse for a value out of range, and before round 1 for a metric that never comes or that the layers do
    not allow to choose by. Abandoned rounds do not count.

        best = KeepBest("accuracy")
        result = Federation(make, loaders, test=loaders["a"], callbacks=[best]).fit(rounds=2)
        result.model.load_state_dict(best.state)
    """

    def __init__(
        self,
        metric: str = "accuracy",
        mode: Literal["max", "min"] | None = None,
        *,
        path: Path | str | None = None,
        of: Literal["test", "train"] = "test",
    ) -> None:
        super().__init__(metric, mode, of)
        self.path, self.state = None if path is None else Path(path), dict[str, Any]() or None

    def on_run_begin(self, run: Run) -> None:
        super().on_run_begin(run)
        self.state = None
        if self.round and self.path is not None and self.path.exists():
            from safetensors.torch import load_file

            self.state = load_file(self.path)

    def on_round_end(self, run: Run, result: RoundResult) -> None:
        from fl.checkpoint import model_bytes

        if not self.better(result):
            return
        self.state = {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, model_bytes(self.state), 0o644)


class EarlyStopping(Watching):
    """End the run when `patience` rounds in a row were no better than the best one. A resumed run knows the rounds
    before it, and plays at least one more. What a stop by released models may claim beside differential privacy
    stands in docs/dp-account.md, section 12.

    - metric: its name (default: "loss").
    - mode: which way it gets better, "max" or "min" (default: None, as its name says: down for a loss or an error,
      up for an accuracy and its like).
    - patience: rounds, >= 1 (default: 3).
    - least: a round is better only by more than this, >= 0 (default: 0).
    - of: whose metric: "test" (of the server's data, or what a `ClientEvaluation` releases; default) or "train"
      (what clients summed).

    Raises Misuse for a value out of range, and before round 1 for a metric that never comes or that the layers do
    not allow to choose by. Abandoned rounds do not count.

        Federation(make, loaders, test=loaders["a"], callbacks=[EarlyStopping("loss", patience=1)]).fit(rounds=3)
    """

    def __init__(
        self,
        metric: str = "loss",
        mode: Literal["max", "min"] | None = None,
        *,
        patience: int = 3,
        least: float = 0.0,
        of: Literal["test", "train"] = "test",
    ) -> None:
        super().__init__(metric, mode, of, least)
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise Misuse(f"EarlyStopping: expected patience >= 1, a whole number of rounds, got {patience!r}")
        self.patience = patience

    def on_round_end(self, run: Run, result: RoundResult) -> bool | None:
        return self.better(result) or self.since < self.patience
