"""`robust`: clients that flip all their labels, and what each rule under masks keeps of the accuracy.

Fashion-MNIST over 20 clients, Dirichlet(1); in an arm under attack 5 of them say 9 - y for every label y. All arms
train as often and with the same settings: RFA's rounds that send again are beside the rounds of training. The data are
read from SECAGG_DATA.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import torch
import typer

from benchmarks.fl import arms

CLIENTS, LIARS, ALPHA, RADIUS, ITERATIONS, BOUND, SEEDS = 20, 5, 1.0, 0.1, 3, 0.3, (0, 1)
BATCH, RATE = {"linear": 32, "cnn": 64}, {"linear": 0.05, "cnn": 0.1}
COMPARED = ("fedavg, nobody lies", "rfa", "fedavg")
BESIDE = ("group-median", "norm-bound", "rfa, nobody lies")
"""Further rules, of the linear model and the first seed alone."""


def cells() -> list[tuple[str, str, int]]:
    """Return every arm: model, rule, seed."""
    compared = [(model, rule, seed) for model in RATE for seed in SEEDS for rule in COMPARED]
    return [*compared, *(("linear", rule, SEEDS[0]) for rule in BESIDE)]


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("robust")(robust)


def robust(
    cell: Annotated[str, typer.Option(help="pattern of the arms to run")] = "*",
    rounds: Annotated[int, typer.Option(min=1, help="trainings of each run")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Accuracy with 5 of 20 clients whose labels are flipped: FedAvg, a norm bound, a median over groups, RFA."""
    torch.set_num_threads(1)
    arguments: dict[str, Any] = {
        "clients": CLIENTS,
        "liars": LIARS,
        "alpha": ALPHA,
        "rounds": rounds,
        "batch": BATCH,
    }
    arguments |= {
        "learning_rate": RATE,
        "radius": RADIUS,
        "iterations": ITERATIONS,
        "bound": BOUND,
        "groups": 6,
        "layers": "secagg+",
    }
    runs = {
        f"{model}, {rule}, seed {seed}": partial(_run, model, rule, rounds, seed)
        for model, rule, seed in cells()
    }
    arms.play("robust", arguments, runs, 0, as_json=as_json, save=save, only=cell)


def _run(model: str, rule: str, rounds: int, seed: int) -> dict[str, Any]:
    """One federation's figures."""
    from dp import NormBound
    from fl import RFA, FedAvg, Federation, GroupMedian
    from fl.data.images import fashion_mnist
    from fl.data.partition import Dirichlet
    from fl.models import cnn, logistic
    from fl.training import evaluate
    from protocols.policy import Policy
    from secagg import SecAggPlus

    data, lying = fashion_mnist(), "nobody" not in rule
    split = Dirichlet(ALPHA).split(data, CLIENTS, seed)
    labels = {name: data.y_train[rows] for name, rows in split.items()}
    liars = list(split)[:: CLIENTS // LIARS] if lying else []
    labels |= {name: 9 - labels[name] for name in liars}
    clients = {
        name: arms.loader(data.x_train[rows], labels[name], BATCH[model], shuffle=True)
        for name, rows in split.items()
    }
    name = rule.partition(",")[0]
    times = ITERATIONS if name == "rfa" else 1
    strategies = {"group-median": GroupMedian(6, min_survivors=3), "rfa": RFA(RADIUS, times)}
    began = time.process_time()
    shape = data.input_shape, data.classes
    made = partial(cnn, *shape, width=8, hidden=32) if model == "cnn" else partial(logistic, *shape)
    federation = Federation(
        made,
        clients,
        strategy=strategies.get(name, FedAvg()),
        privacy=[*([NormBound(BOUND)] if name == "norm-bound" else []), SecAggPlus()],
        learning_rate=RATE[model],
        policy=Policy(allow_resend=True),
        seed=seed,
    )
    result = federation.fit(rounds * times)
    if lost := [played.abandoned for played in result.history if played.abandoned]:
        raise RuntimeError(f"{model}, {rule}: a round was abandoned: {lost[0]}")
    test = arms.loader(data.x_test, data.y_test, 1000, shuffle=False)
    accuracy = evaluate(result.model, test, torch.nn.CrossEntropyLoss())["accuracy"]
    return {
        "model": model,
        "rule": name,
        "seed": seed,
        "liars": len(liars),
        "accuracy": 100 * accuracy,
        "rounds": rounds * times,
        "bytes_up": sum(played.bytes_up_per_client for played in result.history),
        "processor_s": time.process_time() - began,
    }
