"""Case `banded-search`: the hyperparameters of `banded`, by Optuna, on training images alone; no test image is read.

All arms of a case have one search space and as many trials; the first is of the settings that the arm has.
A trial trains in floats, with the layer's own C' and noise multiplier, and is judged on training images held out: a
fifth of every FEMNIST writer's (mean of two seeds), 10,000 of Fashion-MNIST's. Trials are kept in the folder of work.
What does not belong here: a trial's training (`banded_floats`), the final runs (`banded_training`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.dp import banded_floats, banded_training
from benchmarks.dp.banded_training import Arm

if TYPE_CHECKING:
    from optuna import Trial

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "femnist": {"rate": (0.1, 20.0), "clip": (0.05, 5.0), "server": (0.1, 8.0)},
    "fashion": {"rate": (1.0, 64.0), "clip": (0.03, 0.3)},
}
"""On a log scale. A run without noise has no clip."""
CHOICES: dict[str, dict[str, tuple[float, ...]]] = {
    "femnist": {"power": (1, 2, 4, 8), "momentum": (0.0, 0.5, 0.9)},
    "fashion": {"power": (1, 2, 4, 8)},
}


def measure(
    trials: int, data_dir: Path | None, work: Path, only: str | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """Go on with the studies that `only` names (a case, or CASE/ARM) up to `trials` each; rows of the best trials."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(work / "banded-search.log")))
    rows: list[dict[str, Any]] = []
    for case, arms in banded_training.CASES.items():
        for arm in (arm for arm in arms if not arm.dropout):
            study = optuna.create_study(
                storage=storage,
                study_name=(name := f"{case}/{arm.name}"),
                sampler=optuna.samplers.TPESampler(seed=len(rows), multivariate=True),
                direction="maximize",
                load_if_exists=True,
            )
            if only in (case, name):
                _search(study, case, arm, trials, data_dir, work, report)
            if study.trials:
                best = {k: float(f"{v:.3g}") for k, v in study.best_params.items()}
                found = {"case": case, "arm": arm.name, "trials": len(study.trials)}
                rows.append(
                    {**found, "held_out": study.best_value, "first": study.trials[0].value, **_blank, **best}
                )
    return {"rows": rows}


_blank = dict.fromkeys(("rate", "clip", "server", "power", "momentum"), "")


def _search(
    study: Any,
    case: str,
    arm: Arm,
    trials: int,
    data_dir: Path | None,
    work: Path,
    report: Callable[[str], None],
) -> None:
    def value(trial: Trial) -> float:
        ranges = {k: v for k, v in RANGES[case].items() if arm.private or k != "clip"}
        asked: dict[str, Any] = {k: trial.suggest_float(k, *ends, log=True) for k, ends in ranges.items()}
        asked = {k: float(f"{v:.3g}") for k, v in asked.items()}
        asked |= {k: trial.suggest_categorical(k, values) for k, values in CHOICES[case].items()}
        tried = banded_floats.held_out(case, replace(arm, **asked), data_dir, work)
        report(f"{case}/{arm.name}: {tried:.2f} % held out, {asked}")
        return tried

    names = [k for k in (*RANGES[case], *CHOICES[case]) if arm.private or k != "clip"]
    own = {k: v for k, v in asdict(arm).items() if k in names}
    study.enqueue_trial(own, skip_if_exists=True)
    study.optimize(value, n_trials=max(0, trials - len([t for t in study.trials if t.state.is_finished()])))
