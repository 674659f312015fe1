"""Searching clip, learning rate and rounds for every layer and epsilon of a sweep, by Optuna, on data apart.

What belongs here: the studies, the file that they write, and what such a search would cost on the data themselves. What
does not: the sweep, which reads that file (`plan.read`).
"""

import math
import warnings
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.report.cells import upwards
from fl.report.folders import Json
from fl.tradeoff.apart import require_apart
from fl.tradeoff.price import spent
from fl.tradeoff.sweep import NONE, Sweep, stack
from protocols.errors import Misuse
from protocols.extras import needs
from protocols.store import write_atomic

if TYPE_CHECKING:
    from optuna import Trial

Told = Callable[[Json], None]


@dataclass(frozen=True)
class Search:
    """The table [tradeoff.search].

    data: of the search alone, in no training and no test part of the sweep. trials: runs for each layer and epsilon.
    clip, learning_rate (both on a log scale), rounds: from, to; rounds () leaves the run's. metric: of the test part.
    """

    data: str | Mapping[str, Any]
    trials: int = 10
    clip: tuple[float, float] = (0.05, 5.0)
    learning_rate: tuple[float, float] = (0.01, 1.0)
    rounds: tuple[int, ...] = ()
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        if type(self.trials) is not int or self.trials < 1:
            raise Misuse(f"search: trials is a whole number from 1, got {self.trials!r}")
        for name in ("clip", "learning_rate", "rounds"):
            ends = getattr(self, name)
            if (ends or name != "rounds") and not (len(ends) == 2 and 0 < ends[0] <= ends[1]):
                raise Misuse(f"search: {name} is [from, to] with 0 < from <= to, got {list(ends)}")

    @classmethod
    def of(cls, sweep: Sweep) -> "tuple[Search, Path]":
        """What a sweep's file says, and the file to write. Raises Misuse where it says nothing, or names data that hold
        an example of the sweep's.
        """
        told: Json = {k: tuple(v) if isinstance(v, list) else v for k, v in (sweep.search or {}).items()}
        if not told.get("data") or sweep.tuned is None:
            raise Misuse(
                "to search, the table [tradeoff] names the file to write (tuned) and [tradeoff.search] the data apart"
            )
        if unknown := sorted(set(told) - {item.name for item in fields(cls)}):
            raise Misuse(f"[tradeoff.search]: unknown key {unknown[0]!r}")
        if told["data"] == sweep.config.data:
            raise Misuse(
                "[tradeoff.search]: its data are the sweep's own, so that every trial would be one more release of "
                'them; name data apart, such as "part:of=...,which=apart" beside "part:of=..." of the sweep'
            )
        asked = cls(**told)
        require_apart(sweep.config, asked.data)
        return asked, sweep.tuned


def search(sweep: Sweep, processes: int | None = None, on_study: Told | None = None) -> list[Json]:
    """Search the layers and epsilons of a sweep that its file of tuned tables lacks, add them, and return them all.

    The file is written after each study, so that a search that is cut off goes on. A layer's epsilons come from the
    largest down, each beginning at what the one before found, the first at the usual settings. Raises Misuse, and
    MissingExtra without Optuna.
    """
    import tomli_w

    with needs("search", "secagg tradeoff --search"):
        import optuna  # noqa: F401  # found out here, not in a process
    (asked, tuned), found = Search.of(sweep), [dict(table) for table in sweep.axes.tuned]
    epsilons = sorted((e for e in sweep.axes.epsilons if not isinstance(e, str)), reverse=True)
    known = {(table["layer"], table["epsilon"]) for table in found}
    left = {
        layer: [e for e in ([NONE] if layer == NONE else epsilons) if (layer, e) not in known]
        for layer in sweep.axes.layers
    }
    with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
        running: set[Future[Json]] = set()

        def begin(layer: str) -> None:
            if left[layer]:
                start = next((table for table in reversed(found) if table["layer"] == layer), None)
                running.add(pool.submit(_study, sweep, asked, layer, left[layer].pop(0), start))

        for layer in left:
            begin(layer)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                running.discard(future)
                study = future.result()
                if "search" in study:
                    found.append(study)
                    write_atomic(tuned, tomli_w.dumps({"tuned": found}).encode(), 0o644)
                begin(study["layer"])
                if on_study is not None:
                    on_study(study)
    return found


def _study(sweep: Sweep, asked: Search, layer: str, epsilon: float | str, start: Json | None) -> Json:
    """The best trial of one layer and epsilon as a table; with the reason where every trial was refused."""
    import optuna

    warnings.simplefilter("ignore", UserWarning)  # that noise drowns updates is what a trial is to find out

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = zlib.crc32(f"{sweep.config.seed} {layer} {epsilon}".encode())
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, min(10, asked.trials // 2)))
    study = optuna.create_study(
        sampler=sampler, direction="maximize" if upwards(asked.metric) else "minimize"
    )
    usual = {"clip": 1.0, "learning_rate": sweep.config.learning_rate or 0.1, "rounds": sweep.config.rounds}
    within = {
        "clip": asked.clip,
        "learning_rate": asked.learning_rate,
        "rounds": asked.rounds or (1, math.inf),
    }
    first = {key: (start or {}).get(key, value) for key, value in usual.items()}
    study.enqueue_trial(
        {key: min(max(value, within[key][0]), within[key][1]) for key, value in first.items()}
    )
    refusals, played = list[str](), list[Json]()

    def value(trial: "Trial") -> float:
        try:
            return _trial(trial, sweep, asked, layer, epsilon, played)
        except Misuse as refusal:
            refusals.append(str(refusal))
            raise

    study.optimize(value, n_trials=asked.trials, catch=Misuse)
    if len(refusals) == asked.trials:
        return {"layer": layer, "epsilon": epsilon, "reason": refusals[-1]}
    told: Json = {
        "data": asked.data,
        "trials": asked.trials,
        "metric": asked.metric,
        "value": study.best_value,
    }
    told |= {"apart_from": sweep.config.data, "spent": played}
    if start is not None:
        told["after"] = start["epsilon"]  # whose search led here, too
    return {"layer": layer, "epsilon": epsilon, **_rounded(study.best_params), "search": told}


def _trial(
    trial: "Trial", sweep: Sweep, asked: Search, layer: str, epsilon: float | str, played: list[Json]
) -> float:
    """Train on the data apart and return the metric on their test part; add to `played` what that spent. Sums are in
    clear: no sum changes a model.
    """
    from fl.run_parts import load_parts

    options = {} if layer == NONE else {"clip": trial.suggest_float("clip", *asked.clip, log=True)}
    rate = trial.suggest_float("learning_rate", *asked.learning_rate, log=True)
    rounds = trial.suggest_int("rounds", *asked.rounds) if asked.rounds else sweep.config.rounds
    options = _rounded(options)
    config = replace(
        sweep.config,
        data=asked.data,
        rounds=rounds,
        **_rounded({"learning_rate": rate}),
        privacy=stack(sweep.config.privacy, layer, epsilon, NONE, NONE, options),
    )
    federation = load_parts(config).federation(None)
    try:
        history = federation.fit(rounds).history
    finally:
        played += spent(federation.account.events)
    return float(next(each.metrics[asked.metric] for each in reversed(history) if not each.abandoned))


def _rounded(found: Mapping[str, Any]) -> Json:
    """Three digits: what is stored is what was tried."""
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in found.items()}
