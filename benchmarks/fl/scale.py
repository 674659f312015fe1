"""`scale`: what the engine in memory costs beside a bare torch loop of the same steps.

1,000 clients of 50 Fashion-MNIST images, 50 asked per round, a CNN of 57,000 parameters (32 and 64 channels, so that a
step takes what it takes in the published comparisons, about 4 ms), batch 10, one thread. The
bare loop takes the same asked clients' loaders, one after the other, through the same training function; it averages
nothing. Its round is timed right after each of the engine's, so that a drifting machine slows both alike. Seconds are
processor time; the first round (kernels load, plans are made) is start-up and reported apart.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import harness
from benchmarks.machine import ROOT

IMAGES, BATCH, ASKED, WIDTH, HIDDEN = 50, 10, 50, 32, 12


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("scale")(scale)


def scale(
    clients: Annotated[int, typer.Option(min=ASKED, help="clients of the federation")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="timed rounds, after one untimed")] = 10,
    stack: Annotated[list[str] | None, typer.Option(help="layers, separated by blanks; repeatable")] = None,
    seed: Annotated[int, typer.Option(help="data split, initialisation, batches")] = 0,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """The engine's overhead over training alone, with and without masks; a process per stack."""
    if child:
        print(json.dumps(_measure(child, clients, rounds, seed)))
        return
    rows = []
    options = [
        "--clients",
        str(clients),
        "--rounds",
        str(rounds),
        "--seed",
        str(seed),
    ]
    for layers in stack or ("none", "secagg+"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "fl", "scale", "--child", layers, *options],
            stdout=subprocess.PIPE,
            check=True,
            cwd=ROOT,
        )
        rows.append(json.loads(done.stdout.decode().splitlines()[-1]))
        print(f"{layers}: {rows[-1]['over_bare']:.2f} of the bare loop", file=sys.stderr)
    outcome = harness.result(
        "fl",
        "scale",
        arguments={"clients": clients, "asked": ASKED, "rounds": rounds},
        figures={"rows": rows},
        seed=seed,
    )
    harness.finish(outcome, as_json=as_json, save=save)


def _measure(stack: str, clients: int, rounds: int, seed: int) -> dict[str, Any]:
    """One stack's figures, in this process."""
    import torch

    torch.set_num_threads(1)
    clock = time.process_time
    began = clock()
    federation = federation_of(stack, clients, seed)
    ours: list[float] = []
    bare: list[float] = []
    at = clock()
    prepared = at - began

    def after(result: Any) -> None:
        nonlocal at
        if result.abandoned:
            raise RuntimeError(f"{stack}: the round was abandoned: {result.abandoned}")
        ours.append(clock() - at)
        bare.append(_bare(federation, result.asked))
        at = clock()

    federation.fit(rounds=rounds + 1, on_round=after)
    timed = list(zip(ours[1:], bare[1:], strict=True))
    return {
        "stack": stack,
        "parameters": federation.coordinator.schema.dimension,
        "over_bare": statistics.median(o / b for o, b in timed),
        "round_s": statistics.median(ours[1:]),
        "bare_round_s": statistics.median(bare[1:]),
        "start_up_s": prepared + ours[0] - statistics.median(ours[1:]),
        "peak_mb": harness.peak_rss_mb(),
    }


def _bare(federation: Any, asked: tuple[str, ...]) -> float:
    """Seconds of the same clients' steps in a bare loop."""
    setup = federation.setup
    model = setup.model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    criterion = setup.criterion()
    began = time.process_time()
    for name in asked:
        model.load_state_dict(start)
        train(model, setup.loader_for(name), setup.optimizer(model.parameters()), criterion)
    return time.process_time() - began


def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    """One pass over the loader: the user's loop, in both."""
    for inputs, labels in loader:
        optimizer.zero_grad()
        criterion(model(inputs), labels).backward()
        optimizer.step()


def federation_of(stack: str, clients: int, seed: int, **options: Any) -> Any:
    """A federation over equal random shares of the training images."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from fl import Federation
    from fl.data import load
    from fl.models import cnn
    from fl.registry import privacy_layers

    examples = load("fashion-mnist")
    order = np.random.default_rng(seed).permutation(len(examples.x_train))
    x, y = torch.from_numpy(examples.x_train), torch.from_numpy(examples.y_train)
    loaders = {}
    for i in range(clients):
        mine = torch.from_numpy(order[np.arange(i * IMAGES, (i + 1) * IMAGES) % len(order)])
        loaders[f"client-{i}"] = DataLoader(TensorDataset(x[mine], y[mine]), BATCH, shuffle=True)
    return Federation(
        model=lambda: cnn((1, 28, 28), 10, WIDTH, HIDDEN),
        clients=loaders,
        train=train,
        privacy=[] if stack == "none" else privacy_layers(stack.split()),
        fraction=ASKED / clients,
        learning_rate=0.05,
        seed=seed,
        metrics=(),
        **options,
    )
