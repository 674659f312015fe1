"""`overhead`: what a round costs with each privacy layer, against the same round with none.

Seconds are processor time, so that other work on the machine does not count. Training includes what a
layer does to an update (clipping, noise, quantising); client and server are the secure sum's.

All stacks train the same clients from the same seed, one round each in turn, so that a drifting machine slows
all alike. What the layers cost by themselves, at other sizes, belongs to the suites `secagg`, `he` and `dp`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import typer

from benchmarks import harness

STACKS = (
    "none",
    "secagg",
    "secagg+",
    "paillier",
    "ckks",
    "client-dp:epsilon=8",
    "client-dp:epsilon=8 secagg+",
    "distributed-dp:epsilon=8 secagg+",
    "local-dp:epsilon=8",
    "sample-dp:epsilon=8",
)
"""Stacks of layers, separated by blanks."""


@dataclass
class Case:
    """A stack, and what its rounds took: (whole, training, clients, server) in seconds of processor time."""

    stack: str
    make: Callable[[], Any]
    seconds: list[tuple[float, float, float, float]] = field(default_factory=list)
    bytes_up: float = 0.0
    bytes_down: float = 0.0

    def play(self, keep: bool) -> None:
        """Runs the first round of a new federation, for a layer keeps its account over rounds.

        Planning and evaluation are not timed. Raises RuntimeError where the round was abandoned: its time
        would mean nothing.
        """
        federation = self.make()
        federation.engine.clock = time.process_time
        (played,) = federation.fit(rounds=1).history
        if played.abandoned:
            raise RuntimeError(f"{self.stack}: the round was abandoned: {played.abandoned}")
        parts = (played.seconds["train"], played.seconds["privacy_client"], played.seconds["privacy_server"])
        if keep:
            self.seconds.append((sum(parts), *parts))
        self.bytes_up, self.bytes_down = played.bytes_up_per_client, played.bytes_down_per_client

    def row(self, baseline: Case, clients: int) -> dict[str, Any]:
        """Medians; the ratio is this stack's round over the one without layers that was played beside it."""
        whole, train, client, server = (
            statistics.median(column) for column in zip(*self.seconds, strict=True)
        )
        pairs = zip(self.seconds, baseline.seconds, strict=True)
        return {
            "stack": self.stack,
            "round_s": whole,
            "over_none": statistics.median(ours[0] / plain[0] for ours, plain in pairs),
            "train_s": train,
            "client_s": client / clients,
            "server_s": server,
            "kib_up": self.bytes_up / 1024,
            "kib_down": self.bytes_down / 1024,
        }


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("overhead")(overhead)


def overhead(
    clients: Annotated[int, typer.Option(min=2, help="clients in the round")] = 20,
    data: Annotated[str, typer.Option(help="data set")] = "digits",
    model: Annotated[str, typer.Option(help="model")] = "cnn",
    repeats: Annotated[int, typer.Option(min=1, help="timed rounds per stack, after one untimed")] = 5,
    stack: Annotated[list[str] | None, typer.Option(help="layers, separated by blanks; repeatable")] = None,
    seed: Annotated[int, typer.Option(help="data split, initialisation, batches")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """One round over the clients with each stack of layers, against the round without any."""
    wanted = list(dict.fromkeys(["none", *(stack or STACKS)]))
    cases, left_out = _prepare(wanted, data, model, clients, seed)
    for number in range(repeats + 1):
        for case in cases:
            case.play(keep=number > 0)
        print(f"round {number} of {repeats} played with {len(cases)} stacks", file=sys.stderr)
    figures: dict[str, Any] = {
        "parameters": cases[0].make().coordinator.schema.dimension,
        "rows": [case.row(cases[0], clients) for case in cases],
    }
    if left_out:
        figures["left_out"] = left_out
    outcome = harness.result(
        "fl",
        "overhead",
        arguments={"clients": clients, "data": data, "model": model, "repeats": repeats},
        figures=figures,
        seed=seed,
    )
    harness.finish(outcome, as_json=as_json, save=save)


def _prepare(
    stacks: Sequence[str], data: str, model: str, clients: int, seed: int
) -> tuple[list[Case], dict[str, str]]:
    """The cases that can run here, and why others cannot (a library or layer that is not installed)."""
    from protocols.errors import SecAggError

    cases, left_out = [], {}
    for stack in stacks:
        try:
            case = Case(stack, partial(_federation, stack, data, model, clients, seed))
            case.make().coordinator.prepare(1)
        except SecAggError as error:
            print(f"left out: {stack}: {error}", file=sys.stderr)
            left_out[stack] = str(error)
        else:
            cases.append(case)
    if not cases or cases[0].stack != "none":
        raise typer.BadParameter(f"the round without layers cannot run: {left_out.get('none')}")
    return cases, left_out


def _federation(stack: str, data: str, model: str, clients: int, seed: int) -> Any:
    """A federation over an iid split, with fresh layers."""
    import torch

    from fl import Federation
    from fl.data import load
    from fl.data.partition import partition
    from fl.registry import MODELS, privacy_layers

    examples = load(data)
    x, y = torch.from_numpy(examples.x_train), torch.from_numpy(examples.y_train)
    loaders = {
        name: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[own], y[own]), batch_size=32)
        for name, own in partition(examples, "iid", clients, seed).items()
    }
    return Federation(
        model=lambda: MODELS.build(model, input_shape=examples.input_shape, classes=examples.classes),
        clients=loaders,
        privacy=privacy_layers(stack.split()),
        seed=seed,
        delta=1e-5,
    )
