"""`async`: FedBuff against rounds that wait for the slowest, in simulated time.

100 clients of the digits, Dirichlet(0.5), whose answers take a lognormal time of sigma 1.5. Rounds of 10 wait for all
10; the same with clients to spare take the first 10 of 13; FedBuff sums any 10 that are done, of 20 that hold a model
at a time, or of all 100. Masked sums. A row is a seed, and a run has reached an accuracy where three rounds in a row
have it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.fl import arms

CLIENTS, TOGETHER, SIGMA, SPARE, ALPHA = 100, 10, 1.5, 0.3, 0.5
BATCH, RATE, RANGE, EPOCHS, ROW, FEW = 8, 0.1, 1.0, 2, 3, 20


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("async")(buffered)


def buffered(
    rounds: Annotated[int, typer.Option(min=ROW, help="waiting rounds, whose accuracy is the aim")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="splits, starts and delays that are tried")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Simulated time until FedBuff has the accuracy of rounds that wait, by seed."""
    torch.set_num_threads(1)
    arguments: dict[str, Any] = {"clients": CLIENTS, "buffer": TOGETHER, "sigma": SIGMA, "rounds": rounds}
    arguments |= {"alpha": ALPHA, "batch": BATCH, "learning_rate": RATE, "range": RANGE, "epochs": EPOCHS}
    arguments |= {"spare": SPARE, "few": FEW, "layers": "secagg+"}
    runs = {f"seed {seed}": partial(_run, rounds, seed) for seed in range(seeds)}
    arms.play("async", arguments, runs, 0, as_json=as_json, save=save)


def _run(rounds: int, seed: int) -> dict[str, Any]:
    """One seed's figures: the waiting rounds' accuracy, and when each way has it."""
    from fl import FedAvg, FedBuff

    began = time.process_time()
    share = TOGETHER / CLIENTS
    waiting = _played(seed, FedAvg(weighted=False), rounds, 0.0, fraction=share)
    aim = waiting[-1].metrics["accuracy"]
    spare = _played(seed, FedAvg(weighted=False), 4 * rounds, aim, fraction=share, spare=SPARE)
    runs = {"waiting": waiting, "spare": spare}
    for name, at_once in (("few", FEW), ("all", 0)):
        runs[name] = _played(seed, FedBuff(TOGETHER, at_once=at_once), 20 * rounds, aim)
    every = [played for run in runs.values() for played in run]
    return {
        "accuracy": 100 * aim,
        **{f"{name}_time": _time(run) for name, run in runs.items()},
        **{f"{name}_rounds": len(run) for name, run in runs.items()},
        **{f"{name}_reached": _above(run, aim) for name, run in runs.items() if name != "waiting"},
        "few_sooner": _time(waiting) / _time(runs["few"]),
        "all_sooner": _time(waiting) / _time(runs["all"]),
        "abandoned": sum(played.abandoned is not None for played in every),
        "clipped": max(played.clipped_share or 0.0 for played in every),
        "processor_s": time.process_time() - began,
    }


def _time(history: list[Any]) -> float:
    return float(np.sum([played.waited for played in history]))


def _above(history: list[Any], aim: float) -> bool:
    return len(history) >= ROW and all(played.metrics["accuracy"] >= aim for played in history[-ROW:])


def _played(seed: int, strategy: Any, most: int, aim: float, **options: Any) -> list[Any]:
    """Return the rounds of a run that ends when it has the aimed accuracy, or after `most` (aim 0: after `most`)."""
    from fl import Federation
    from fl.data.bundled import digits
    from fl.data.partition import Dirichlet
    from fl.models import logistic
    from secagg import SecAggPlus

    data, history = digits(), list[Any]()
    split = Dirichlet(ALPHA).split(data, CLIENTS, seed)

    def seen(played: Any) -> bool:
        history.append(played)
        return not (aim and _above(history, aim))

    Federation(
        partial(logistic, data.input_shape, data.classes),
        {
            name: arms.loader(data.x_train[rows], data.y_train[rows], BATCH, shuffle=True)
            for name, rows in split.items()
        },
        strategy=strategy,
        privacy=[SecAggPlus(dropout=0.3)],
        test=arms.loader(data.x_test, data.y_test, 1000, shuffle=False),
        learning_rate=RATE,
        local_epochs=EPOCHS,
        range=RANGE,
        delays=SIGMA,
        seed=seed,
        **options,
    ).fit(most, on_round=seen)
    return history
