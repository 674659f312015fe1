"""`homomorphic`: a whole federated run under each homomorphic sum, against the plain run, and whether it
gives the same model.

Runs go on round by round in turn, so that a drifting machine slows all alike. Everything a run does is
timed: planning, keys, training, sums, evaluation.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Annotated, Any

import typer

from benchmarks import harness

SUMS = ("none", "ckks", "ckks:arrangement=shared", "paillier:arrangement=keyholder,key_bits=2048")


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("homomorphic")(homomorphic)


def homomorphic(
    clients: Annotated[int, typer.Option(min=2)] = 10,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    data: Annotated[str, typer.Option(help="data set")] = "fashion-mnist",
    model: Annotated[str, typer.Option(help="model")] = "mlp",
    seed: Annotated[int, typer.Option(help="data split, initialisation, batches")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """FedAvg with each sum: seconds of the whole run, and the model compared, tensor by tensor, with the
    plain run's.
    """
    Run("none", data, model, clients, seed).play()  # untimed: loads libraries and data
    runs = {name: Run(name, data, model, clients, seed) for name in SUMS}
    for number in range(1, rounds + 1):
        for run in runs.values():
            run.play()
        print(f"round {number} of {rounds} played with {len(runs)} sums", file=sys.stderr)
    figures = {
        "parameters": runs["none"].federation.coordinator.schema.dimension,
        "rows": [run.row(runs["none"]) for run in runs.values()],
    }
    arguments = {"clients": clients, "data": data, "model": model, "rounds": rounds, "strategy": "fedavg"}
    outcome = harness.result("fl", "homomorphic", arguments=arguments, figures=figures, seed=seed)
    harness.finish(outcome, as_json=as_json, save=save)


class Run:
    """A federation that ends in one sum, and the seconds it took so far."""

    def __init__(self, name: str, data: str, model: str, clients: int, seed: int) -> None:
        self.name = name
        start = time.perf_counter()
        self.federation = federation_of(name, data, model, clients, seed)
        self.seconds = time.perf_counter() - start
        self.bytes_up = 0.0
        self.result: Any = None

    def play(self) -> None:
        """Play the next round. Raises RuntimeError where it was abandoned: its time would mean nothing."""
        start = time.perf_counter()
        self.result = self.federation.fit(rounds=1)
        self.seconds += time.perf_counter() - start
        last = self.result.history[-1]
        if last.abandoned:
            raise RuntimeError(f"{self.name}: the round was abandoned: {last.abandoned}")
        self.bytes_up = last.bytes_up_per_client

    def row(self, plain: Run) -> dict[str, Any]:
        return {
            "sum": self.name,
            "run_s": self.seconds,
            "over_plain": harness.ratio(self.seconds, plain.seconds),
            "identical": self._same_model(plain),
            "kib_up": self.bytes_up / 1024,
        }

    def _same_model(self, plain: Run) -> bool:
        import torch

        mine, other = (run.result.model.state_dict() for run in (self, plain))
        return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def federation_of(stack: str, data: str, model: str, clients: int, seed: int) -> Any:
    """A federation over an iid split with one local epoch per round."""
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
        model=partial(MODELS.build, model, input_shape=examples.input_shape, classes=examples.classes),
        clients=loaders,
        privacy=privacy_layers([stack]),
        seed=seed,
    )
