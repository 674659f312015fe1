"""`memory`: what a round's memory follows: who is asked, not how many clients there are.

The federation of `scale`, 50 clients asked per round, over 100 and over 10,000 clients. Loaders are made where a client
lives (`loader_for`), from arrays that all of them share, so that what grows is the federation's own. A process per
case; the figure is its peak, data and libraries included, and what its rounds added to that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated, Any

import typer

from benchmarks import harness
from benchmarks.fl.scale import ASKED, BATCH, HIDDEN, IMAGES, WIDTH, train
from benchmarks.machine import ROOT

CLIENTS = (100, 10_000)


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("memory")(memory)


def memory(
    rounds: Annotated[int, typer.Option(min=1, help="rounds of each case")] = 4,
    stack: Annotated[list[str] | None, typer.Option(help="layers, separated by blanks; repeatable")] = None,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    clients: Annotated[int, typer.Option(hidden=True)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Peak memory over 100 and over 10,000 clients, 50 asked, with and without masks."""
    if child:
        print(json.dumps(_measure(child, clients, rounds)))
        return
    rows = []
    for layers in stack or ("none", "secagg+"):
        peaks = []
        for count in CLIENTS:
            options = ["--child", layers, "--clients", str(count), "--rounds", str(rounds)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks", "fl", "memory", *options],
                stdout=subprocess.PIPE,
                check=True,
                cwd=ROOT,
            )
            rows.append(json.loads(done.stdout.decode().splitlines()[-1]))
            peaks.append(rows[-1]["peak_mb"])
        rows[-1]["over_fewest"] = peaks[-1] / peaks[0]
        print(f"{layers}: {rows[-1]['over_fewest']:.3f} of the peak over {CLIENTS[0]}", file=sys.stderr)
    arguments = {"clients": list(CLIENTS), "asked": ASKED, "rounds": rounds}
    outcome = harness.result("fl", "memory", arguments=arguments, figures={"rows": rows}, seed=0)
    harness.finish(outcome, as_json=as_json, save=save)


def _measure(stack: str, clients: int, rounds: int) -> dict[str, Any]:
    """One case's figures, in this process."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from fl import Federation
    from fl.data import load
    from fl.models import cnn
    from fl.registry import privacy_layers

    torch.set_num_threads(1)
    examples = load("fashion-mnist")
    x, y = torch.from_numpy(examples.x_train), torch.from_numpy(examples.y_train)

    def loader_for(name: str, config: Any) -> Any:
        at = int(name) * IMAGES % len(x)
        return DataLoader(TensorDataset(x[at : at + IMAGES], y[at : at + IMAGES]), BATCH, shuffle=True)

    before = harness.peak_rss_mb()
    federation = Federation(
        model=lambda: cnn((1, 28, 28), 10, WIDTH, HIDDEN),
        clients=loader_for,
        names=clients,
        train=train,
        privacy=[] if stack == "none" else privacy_layers(stack.split()),
        fraction=ASKED / clients,
        weight_cap=IMAGES,
        metrics=(),
    )
    history = federation.fit(rounds).history
    if abandoned := [result.abandoned for result in history if result.abandoned]:
        raise RuntimeError(f"{stack}: a round was abandoned: {abandoned[0]}")
    peak = harness.peak_rss_mb()
    return {"stack": stack, "clients": clients, "peak_mb": peak, "rounds_mb": peak - before}
