"""Case `federations`: for each layer, what a whole finished run shows of who was in it, beside the epsilon it printed.

One run of each (Steinke, Nasr and Jagielski 2023). A client, or an example, moves one coordinate of the model of its
own, or nothing, by a fair coin; the adversary reads the coins off the final model. The bound covers whatever a run
does: sampling, drop-outs, abandoned rounds, resuming. It lies far below the truth; it can show that a number is false.
"""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from dp.audit.canaries import CanaryAudit
from dp.audit.one_run import guess, one_run_epsilon
from fl import Federation
from protocols.randomness import SystemRandom
from secagg import SecAggPlus

DELTA, ALARM = 1e-9, 1e-6
NORM = 20.0
"""Of a canary's own update, in clips of 1: the clip is tested as well."""


@dataclass(frozen=True)
class Run:
    """A finished run: what it printed, what was measured at the same delta, and which rounds were abandoned."""

    printed: float
    measured: CanaryAudit
    abandoned: int

    @property
    def sound(self) -> bool:
        return not self.measured.refutes(self.printed)


@dataclass(frozen=True)
class Coins:
    """Who is in, and the sign of each canary's move."""

    inside: NDArray[np.bool_]
    signs: NDArray[np.float64]

    @classmethod
    def tossed(cls, count: int) -> "Coins":
        drawn = np.frombuffer(SystemRandom().bytes(2 * count), dtype=np.uint8).reshape(2, count) & 1
        return cls(drawn[0].astype(bool), 1.0 - 2.0 * drawn[1])

    def measured(self, moved: NDArray[np.float64], guesses: int) -> CanaryAudit:
        made = guess(moved * self.signs, guesses)
        right = int(np.sum(made == np.where(self.inside, 1, -1)))
        bound = one_run_epsilon(len(moved), guesses, right, DELTA, ALARM)
        return CanaryAudit(bound, DELTA, ALARM, len(moved), guesses, right)


def line(dims: int) -> nn.Module:
    made = nn.Linear(dims, 1, bias=False)
    nn.init.zeros_(made.weight)
    return made


def push(model: Any, loader: Any) -> None:
    """A client's own loop: its one example is what it wants the model to become."""
    with torch.no_grad():
        for (x,) in loader:
            model.weight += x


def steps(model: Any, loader: Any, optimizer: Any) -> None:
    """A loop on a model whose gradient is its input."""
    for (x,) in loader:
        optimizer.zero_grad()
        (-model(x).mean()).backward()
        optimizer.step()


def moves(coins: Coins) -> torch.Tensor:
    return torch.diag(torch.tensor(coins.signs * coins.inside * NORM, dtype=torch.float32))


Privacy = Callable[[], list[Any]]


def by_clients(
    privacy: Privacy, count: int, rounds: int = 1, stop: int = 0, folder: Path | None = None, **options: Any
) -> Run:
    """Every client is a canary. stop: the round after which the process ends; another one resumes the run."""
    coins = Coins.tossed(count)
    rows = moves(coins)

    def made() -> Federation:
        clients = {f"c{i:04d}": DataLoader(TensorDataset(rows[i : i + 1]), 1) for i in range(count)}
        return Federation(
            lambda: line(count), clients, push, privacy=privacy(), delta=DELTA, output=folder, **options
        )

    if stop:
        with contextlib.suppress(KeyboardInterrupt):
            made().fit(rounds, on_round=lambda result: _stop(result.number, stop))
    result = made().fit(rounds, resume=bool(stop))
    return _run(result, coins)


def by_examples(
    privacy: Privacy, count: int, rounds: int = 1, batch: int | None = None, **options: Any
) -> Run:
    """Every example of one client is a canary, in the data or not; a second client brings the same number of blanks."""
    coins = Coins.tossed(count)
    held = moves(coins)[torch.tensor(coins.inside)]
    blank = torch.zeros(count, count)
    clients = {
        name: DataLoader(TensorDataset(data), batch or len(data))
        for name, data in (("a", held), ("b", blank))
    }
    made = Federation(
        lambda: line(count), clients, steps, privacy=privacy(), delta=DELTA, learning_rate=1.0, **options
    )
    return _run(made.fit(rounds), coins)


def _stop(number: int, at: int) -> None:
    if number == at:
        raise KeyboardInterrupt


def _run(result: Any, coins: Coins) -> Run:
    moved = result.model.weight.detach().double().numpy().ravel()
    abandoned = sum(entry.abandoned is not None for entry in result.history)
    return Run(result.epsilon, coins.measured(moved, len(moved) // 2), abandoned)


def masked(*layers: Any) -> list[Any]:
    """The layers before real masks that bear the planned drop-out."""
    return [*layers, SecAggPlus(dropout=0.3)]


def cases(multiplier: float, count: int) -> dict[str, Callable[[], Run]]:
    """Each layer in each situation, by name; all clips are 1."""
    z: dict[str, Any] = {"noise_multiplier": multiplier, "clip": 1.0}
    half, few = count // 2, round(0.6 * count)
    coins: dict[str, Any] = {"sampling": "poisson", "fraction": 0.5}

    def resumed(layer: Callable[[], Any]) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            return by_clients(lambda: [layer()], count, 3, stop=2, folder=Path(folder) / "run")

    return {
        "client-dp": lambda: by_clients(lambda: [ClientDP(**z)], count, 2),
        "client-dp, drop-outs": lambda: by_clients(lambda: [ClientDP(**z)], count, 2, dropout=0.3),
        "client-dp, abandoned rounds": lambda: by_clients(
            lambda: [ClientDP(**z)], count, 4, min_survivors=half, **coins
        ),
        "client-dp, resumed": lambda: resumed(lambda: ClientDP(**z)),
        "client-dp, amplified": lambda: by_clients(lambda: [ClientDP(**z, amplify=True)], count, 4, **coins),
        "distributed-dp, drop-outs": lambda: by_clients(
            lambda: [DistributedDP(**z, min_survivors=few)], count, 2, dropout=0.3
        ),
        "distributed-dp, masked, drop-outs": lambda: by_clients(
            lambda: masked(DistributedDP(**z, min_survivors=few)), count, 1, dropout=0.3
        ),
        "distributed-dp, abandoned rounds": lambda: by_clients(
            lambda: [DistributedDP(**z, min_survivors=half)], count, 4, **coins
        ),
        "distributed-dp, resumed": lambda: resumed(lambda: DistributedDP(**z, min_survivors=few)),
        "local-dp, drop-outs": lambda: by_clients(lambda: [LocalDP(**z)], count, 2, dropout=0.3),
        "sample-dp": lambda: by_examples(lambda: [SampleDP(**z, batch_size=count, examples=count)], count, 2),
        "sample-dp, sampled batches": lambda: by_examples(
            lambda: [SampleDP(**z, batch_size=half, examples=count)], count, 2
        ),
        "sample-dp, drop-outs": lambda: by_examples(
            lambda: [SampleDP(**z, batch_size=count, examples=count)], count, 2, dropout=0.3
        ),
    }


def measure(multiplier: float = 1.0, count: int = 300) -> dict[str, Any]:
    """Rows of case, printed epsilon, measured bound, correct guesses, abandoned rounds, at delta 1e-9."""
    rows = []
    for name, play in cases(multiplier, count).items():
        run = play()
        rows.append(
            {"case": name, "printed": run.printed, "measured": run.measured.epsilon, "correct": run.measured.correct,
             "guesses": run.measured.guesses, "abandoned": run.abandoned, "sound": run.sound}
        )  # fmt: skip
    return {"rows": rows, "delta": DELTA, "alarm": ALARM}
