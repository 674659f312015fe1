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
    "femnist": {"rate": (0.1, 20.0), "clip": (0.05, 5.0), "step": (0.2, 50.0)},
    "fashion": {"clip": (0.03, 0.3), "step": (10.0, 100.0)},
}
"""On a log scale. A run without noise has no clip. step: how far the server goes once its momentum has built up, its
rate x clip / (1 - momentum): what is best of it hardly follows clip and momentum."""
CHOICES: dict[str, dict[str, tuple[float, ...]]] = {
    "femnist": {"power": (1, 2, 4, 8), "momentum": (0.0, 0.5, 0.9)},
    "fashion": {"power": (1, 2, 4, 6)},
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
                direction="maximize",
                load_if_exists=True,
            )
            study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), multivariate=True)
            if only in (case, name):
                _search(study, case, arm, trials, data_dir, work, report)
            if over := [trial for trial in study.trials if trial.state.name == "COMPLETE"]:
                best = study.best_trial.user_attrs["settings"]
                found = {"case": case, "arm": arm.name, "trials": len(over)}
                rows.append({**found, "held_out": study.best_value, "first": over[0].value, **_blank, **best})
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
    """Try the arm's own settings first, then what Optuna proposes."""
    servers = "server" if case == "femnist" else "rate"
    names = [k for k in (*RANGES[case], *CHOICES[case]) if arm.private or k != "clip"]

    def value(trial: Trial) -> float:
        ranges = {k: ends for k, ends in RANGES[case].items() if k in names}
        asked: dict[str, Any] = {k: trial.suggest_float(k, *ends, log=True) for k, ends in ranges.items()}
        asked |= {k: trial.suggest_categorical(k, values) for k, values in CHOICES[case].items()}
        share = (1 - asked.get("momentum", arm.momentum)) / asked.get("clip", 1.0)
        asked[servers] = asked.pop("step") * share
        asked = {k: float(f"{v:.3g}") for k, v in asked.items()}
        trial.set_user_attr("settings", asked)
        tried = banded_floats.held_out(case, replace(arm, **asked), data_dir, work)
        report(f"{case}/{arm.name}: {tried:.2f} % held out, {asked}")
        return tried

    step = getattr(arm, servers) * (arm.clip if arm.private else 1.0) / (1 - arm.momentum)
    study.enqueue_trial(
        {k: v for k, v in {**asdict(arm), "step": step}.items() if k in names}, skip_if_exists=True
    )
    done = [trial for trial in study.trials if trial.state.is_finished()]
    study.optimize(value, n_trials=max(0, trials - len(done)))
