"""`clusters`: IFCA over 40 clients whose MNIST digits are rotated by 0, 90, 180 or 270 degrees: who finds whom.

A linear model per cluster, masked sums, three starts as in the paper, and three in which a copy that nobody chose
begins anew. Of three the one counts whose clients fit their own model best: that needs no label of a rotation. The data
are read from SECAGG_DATA.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.fl import arms

CLIENTS, TURNS, BATCH, RATE, LEAST, RESEED = 40, 4, 50, 0.05, 3, 0.01


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("clusters")(clusters)


def clusters(
    steps: Annotated[int, typer.Option(min=1, help="steps of each run; each takes two rounds")] = 30,
    starts: Annotated[int, typer.Option(min=1, help="initialisations that are tried")] = 3,
    seed: Annotated[int, typer.Option(help="of the first start; split, batches")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Share of 40 clients in the right one of four clusters, by the number of the start."""
    torch.set_num_threads(1)
    arguments: dict[str, Any] = {"clients": CLIENTS, "clusters": TURNS, "steps": steps, "batch": BATCH}
    arguments |= {"learning_rate": RATE, "least": LEAST, "reseed": RESEED, "layers": "secagg+"}
    runs = {
        f"start {k + 1}{', reseeded' if reseed else ''}": partial(_run, steps, seed, seed + k, reseed)
        for reseed in (0.0, RESEED)
        for k in range(starts)
    }
    arms.play("clusters", arguments, runs, seed, as_json=as_json, save=save)


def _run(steps: int, split: int, start: int, reseed: float) -> dict[str, Any]:
    """One federation's figures."""
    from fl import IFCA, Federation
    from fl.copies import losses_of
    from fl.data.images import mnist
    from fl.models import logistic
    from secagg import SecAggPlus

    data = mnist()
    rows = np.array_split(np.random.default_rng(split).permutation(len(data.y_train)), CLIENTS)
    tests = np.array_split(np.random.default_rng(split).permutation(len(data.y_test)), CLIENTS)
    truth = [k % TURNS for k in range(CLIENTS)]
    made = {
        str(k): arms.loader(
            np.rot90(data.x_train[rows[k]], truth[k], (2, 3)), data.y_train[rows[k]], BATCH, shuffle=True
        )
        for k in range(CLIENTS)
    }
    began = time.process_time()
    federation = Federation(
        partial(logistic, data.input_shape, data.classes),
        made,
        strategy=IFCA(TURNS, LEAST, reseed=reseed),
        privacy=[SecAggPlus()],
        learning_rate=RATE,
        seed=start,
    )
    result = federation.fit(2 * steps)
    if lost := [played.abandoned for played in result.history if played.abandoned]:
        raise RuntimeError(f"start {start}: a round was abandoned: {lost[0]}")
    losses = [losses_of(result.model, made[str(k)]) for k in range(CLIENTS)]
    chosen = [int(np.argmin(own)) for own in losses if own is not None]
    correct = 0.0
    for k in range(CLIENTS):
        x = torch.from_numpy(np.ascontiguousarray(np.rot90(data.x_test[tests[k]], truth[k], (2, 3))))
        with torch.no_grad():
            taken = result.model.copies[chosen[k]](x).argmax(1).numpy()
        correct += float((taken == data.y_test[tests[k]]).sum())
    return {
        "right": 100 * _right(chosen, truth) / CLIENTS,
        "loss": float(np.mean([own.min() for own in losses if own is not None])),
        "accuracy": 100 * correct / len(data.y_test),
        "models_used": len(set(chosen)),
        "bytes_up": sum(played.bytes_up_per_client for played in result.history),
        "processor_s": time.process_time() - began,
    }


def _right(chosen: list[int], truth: list[int]) -> int:
    """Clients in the right cluster: a model stands for the rotation of most who chose it, a rotation for one model."""
    pairs = Counter(zip(chosen, truth, strict=True)).most_common()
    models, turns, right = set[int](), set[int](), 0
    for (model, turn), count in pairs:
        if model not in models and turn not in turns:
            models.add(model)
            turns.add(turn)
            right += count
    return right
