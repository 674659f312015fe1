"""Callbacks that log a run: CSV, TensorBoard, MLflow, Weights & Biases. Each library is imported here alone, inside.

What does not belong here: anything but `released(result)`. No hook here runs at a client, no console output and no
system figures are sent. Beside noise entries are dated by their round, for how long one took follows clients' examples.
"""

import csv
import io
import time
from pathlib import Path
from typing import Any

from fl.callbacks.base import Callback, Run
from fl.round import RoundResult
from fl.round.run_files import line_of
from protocols.extras import needs
from protocols.store import write_atomic

FACTS = (
    "asked",
    "survivors",
    "bytes_up_per_client",
    "bytes_down_per_client",
    "clipped_share",
    "weights_capped",
    "empty_clients",
)


def released(result: RoundResult) -> dict[str, float]:
    """Return a round's numbers by name, as metrics.jsonl holds them: "test/...", "train/...", "seconds/...", counts,
    bytes, "abandoned" (0 or 1) and "epsilon", with what it is about in its name where there are several. What is
    withheld is left out.
    """
    line = line_of(result)
    prices = result.guarantees
    names = [f"/{p.unit}/{p.relation}/{p.adversary}/{p.delta:g}" if len(prices) > 1 else "" for p in prices]
    return {
        **{f"test/{name}": value for name, value in result.metrics.items()},
        **{f"train/{name}": value for name, value in result.train_metrics.items()},
        **{f"seconds/{name}": value for name, value in result.seconds.items()},
        **{name: float(line[name]) for name in FACTS if line[name] is not None},
        **{f"epsilon{name}": price.epsilon for name, price in zip(names, prices, strict=True)},
        "abandoned": float(bool(result.abandoned)),
    }


class CSVLog(Callback):
    """Write a table of all rounds to a file, replaced whole after every round.

    - path: of the file; its folder is made.

        Federation(make, loaders, callbacks=[CSVLog("rounds.csv")]).fit(rounds=1)
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def on_round_end(self, run: Run, result: RoundResult) -> None:
        rows = [{"round": entry.number, **released(entry)} for entry in run.history]
        text = io.StringIO()
        table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, text.getvalue().encode(), 0o644)


class TensorBoard(Callback):
    """Write a run's released numbers as scalars for TensorBoard.

    - folder: of the event files.

    Raises MissingExtra without the extra `tensorboard`.

        Federation(make, loaders, callbacks=[TensorBoard("logs")])
    """

    def __init__(self, folder: Path | str) -> None:
        with needs("tensorboard", "fl.callbacks.TensorBoard"):
            from torch.utils.tensorboard import SummaryWriter
        self.folder = str(folder)
        self._make: Any = SummaryWriter

    def on_run_begin(self, run: Run) -> None:
        self._writer = self._make(self.folder, purge_step=len(run.history) + 1)

    def on_round_end(self, run: Run, result: RoundResult) -> None:
        for name, value in released(result).items():
            self._writer.add_scalar(name, value, result.number, walltime=_date(run, result))

    def on_run_end(self, run: Run) -> None:
        self._writer.close()


class MLflow(Callback):
    """Log a run to MLflow, in its active run if there is one. Where it tracks is MLflow's own setting.

    - experiment: its name (default: None, MLflow's own).
    - name: of the run (default: None, MLflow's own).

    Raises MissingExtra without the extra `mlflow`.

        Federation(make, loaders, callbacks=[MLflow("digits")])
    """

    def __init__(self, experiment: str | None = None, name: str | None = None) -> None:
        with needs("mlflow", "fl.callbacks.MLflow"):
            import mlflow
        self._mlflow: Any = mlflow
        self.experiment, self.name = experiment, name

    def on_run_begin(self, run: Run) -> None:
        if self.experiment is not None:
            self._mlflow.set_experiment(self.experiment)
        self._own = self._mlflow.active_run() is None
        active = self._mlflow.active_run() or self._mlflow.start_run(run_name=self.name)
        self._id = active.info.run_id
        self._mlflow.log_params(dict(run.settings))

    def on_round_end(self, run: Run, result: RoundResult) -> None:
        from mlflow.entities import Metric

        stamp = int(1000 * _date(run, result))
        metrics = [Metric(name, value, stamp, result.number) for name, value in released(result).items()]
        self._mlflow.MlflowClient().log_batch(self._id, metrics=metrics)

    def on_run_end(self, run: Run) -> None:
        if self._own:
            self._mlflow.end_run()


class WandB(Callback):
    """Log a run to Weights & Biases. What clients print is not captured and no system figures are sent, unless
    `settings` among the options says so. Beside noise all rounds are sent when the run ends, since W&B dates what
    it gets by its own clock.

    - project: its name (default: None, W&B's own).
    - options: of `wandb.init`.

    Raises MissingExtra without the extra `wandb`.

        Federation(make, loaders, callbacks=[WandB("digits")])
    """

    def __init__(self, project: str | None = None, **options: Any) -> None:
        with needs("wandb", "fl.callbacks.WandB"):
            import wandb
        self._wandb: Any = wandb
        self.options = {"project": project, **options}

    def on_run_begin(self, run: Run) -> None:
        if not run.noisy:
            self._begin(run)

    def on_round_end(self, run: Run, result: RoundResult) -> None:
        if not run.noisy:
            self._run.log(released(result), step=result.number)

    def on_run_end(self, run: Run) -> None:
        if run.noisy:
            self._begin(run)
            for result in run.history:
                self._run.log(released(result), step=result.number)
        self._run.finish()

    def _begin(self, run: Run) -> None:
        quiet = self._wandb.Settings(console="off", x_disable_stats=True)
        self._run = self._wandb.init(**{"config": dict(run.settings), "settings": quiet, **self.options})


def _date(run: Run, result: RoundResult) -> float:
    """Return what a log dates a round by: seconds since 1970; beside noise the round's number."""
    return float(result.number) if run.noisy else time.time()
