"""Case `federations`: for each layer, what a whole finished run shows of who was in it, beside the epsilon it printed.

One run of each (Steinke, Nasr and Jagielski 2023). A client, or an example, moves one coordinate of the model of its
own, or nothing, by a fair coin; the adversary reads the coins off the final model. The bound covers whatever a run
does: sampling, drop-outs, abandoned rounds, resuming. It lies far below the truth; it can show that a number is false.
"""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from fl import Federation, FedSGD
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


def moves(coins: Coins, norm: float = NORM) -> torch.Tensor:
    return torch.diag(torch.tensor(coins.signs * coins.inside * norm, dtype=torch.float32))


Privacy = Callable[[], list[Any]]


def by_clients(privacy: Privacy, count: int, rounds: int = 1, norm: float = NORM, **options: Any) -> Run:
    """Every client is a canary."""
    coins = Coins.tossed(count)
    rows = moves(coins, norm)
    data = {f"c{i:04d}": rows[i : i + 1] for i in range(count)}
    return _play(data, push, privacy, coins, rounds, **options)


def by_examples(
    privacy: Privacy, count: int, rounds: int = 1, norm: float = NORM, blanks: int = 1, **options: Any
) -> Run:
    """Every example of one client is a canary, in the data or not; other clients bring the same number of blanks."""
    coins = Coins.tossed(count)
    data = {"a": moves(coins, norm)[torch.tensor(coins.inside)]}
    data |= {f"b{i}": torch.zeros(count, count) for i in range(blanks)}
    return _play(data, steps, privacy, coins, rounds, learning_rate=1.0, **options)


def _play(
    data: dict[str, torch.Tensor],
    train: Any,
    privacy: Privacy,
    coins: Coins,
    rounds: int,
    stop: int = 0,
    few: int = 0,
    **options: Any,
) -> Run:
    """stop: the round after which the process ends; another one resumes the run. few: so many clients are asked in
    round 1, which is too few for what the options demand."""

    def made(folder: str) -> Federation:
        clients = {name: DataLoader(TensorDataset(rows), len(rows)) for name, rows in data.items()}
        whole: dict[str, Any] = {"privacy": privacy(), "delta": DELTA, "output": Path(folder) / "run"}
        run = Federation(lambda: line(len(coins.inside)), clients, train, **whole, **options)
        choose, names = run.coordinator.choose, tuple(data)

        def chosen(number: int) -> tuple[str, ...]:
            return names[:few] if few and number == 1 else choose(number)

        run.coordinator.choose = chosen  # type: ignore[method-assign]  # the coin that is played with
        return run

    with tempfile.TemporaryDirectory() as folder:
        if stop:
            with contextlib.suppress(KeyboardInterrupt):
                made(folder).fit(rounds, on_round=lambda result: _stop(result.number, stop))
        return _run(made(folder).fit(rounds, resume=bool(stop)), coins)


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
    half, most = count // 2, round(0.6 * count)
    coins: dict[str, Any] = {"sampling": "poisson", "fraction": 0.5}
    too_few: dict[str, Any] = {**coins, "few": 3}
    sized: dict[str, Any] = {"sampling": "fixed", "fraction": 0.5}
    again: dict[str, Any] = {"rounds": 3, "stop": 2}
    least = count // 4
    """What a Poisson sample of half the clients reaches but with chance 1e-12 at 200 clients."""

    def shares(of: int) -> Privacy:
        return lambda: [DistributedDP(**z, min_survivors=of)]

    def examples(batch: int = count) -> Privacy:
        return lambda: [SampleDP(**z, batch_size=batch, examples=count)]

    def clients(kind: Any, **claims: Any) -> Privacy:
        return lambda: [kind(**z, **claims)]

    def hidden(*after: Any) -> Privacy:
        return lambda: [ClientDP(**z, amplify=True), *after]

    def gradients(survivors: int = 2, *after: Any) -> Privacy:
        sampled: dict[str, Any] = {"unit": "example", "sample_rate": 0.5, "examples": 2 * count}
        return lambda: [DistributedDP(**z, **sampled, min_survivors=survivors), *after]

    at_once: dict[str, Any] = {"strategy": FedSGD(), "loss": lambda model, batch: -model(batch[0]).mean()}
    central, local = clients(ClientDP), clients(LocalDP)
    plays: dict[str, tuple[Callable[..., Run], Privacy, dict[str, Any]]] = {
        "client-dp": (by_clients, central, {"rounds": 2}),
        "client-dp, drop-outs": (by_clients, central, {"rounds": 2, "dropout": 0.3}),
        "client-dp, abandoned rounds": (
            by_clients,
            central,
            {"rounds": 3, "min_survivors": least, **too_few},
        ),
        "client-dp, resumed": (by_clients, central, again),
        "client-dp, amplified": (by_clients, clients(ClientDP, amplify=True), {"rounds": 4, **coins}),
        "client-dp, amplified, resumed": (by_clients, clients(ClientDP, amplify=True), {**again, **coins}),
        "distributed-dp, drop-outs": (by_clients, shares(most), {"rounds": 2, "dropout": 0.3}),
        "distributed-dp, masked, drop-outs": (by_clients, lambda: masked(*shares(most)()), {"dropout": 0.3}),
        "distributed-dp, abandoned rounds": (by_clients, shares(least), {"rounds": 3, **too_few}),
        "distributed-dp, resumed": (by_clients, shares(most), again),
        "client-dp, fixed-size choice": (by_clients, central, {"rounds": 4, **sized}),
        "client-dp, amplified, fixed-size choice": (by_clients, hidden(), {"rounds": 4, **sized}),
        "client-dp, amplified, drop-outs": (by_clients, hidden(), {"rounds": 4, "dropout": 0.3, **coins}),
        "client-dp, amplified, masked": (by_clients, hidden(SecAggPlus(dropout=0.3)), {"rounds": 2, **coins}),
        "client-dp, masked, resumed": (by_clients, lambda: masked(*central()), again),
        "distributed-dp, masked, resumed": (by_clients, lambda: masked(*shares(most)()), again),
        "distributed-dp, sampled examples": (by_examples, gradients(), {"rounds": 2, **at_once}),
        "distributed-dp, sampled examples, resumed": (by_examples, gradients(), {**again, **at_once}),
        "distributed-dp, sampled examples, drop-outs": (
            by_examples,
            gradients(1),
            {"rounds": 2, "dropout": 0.5, **at_once},
        ),
        "distributed-dp, sampled examples, abandoned rounds": (
            by_examples,
            gradients(2),
            {"rounds": 3, "sampling": "poisson", "fraction": 0.9, "few": 1, **at_once},
        ),
        "distributed-dp, sampled examples, masked, resumed": (
            by_examples,
            gradients(3, SecAggPlus(dropout=0.0)),
            {"blanks": 2, **again, **at_once},
        ),
        "local-dp, sampled": (by_clients, local, {"rounds": 4, **coins}),
        "local-dp, drop-outs": (by_clients, local, {"rounds": 2, "dropout": 0.3}),
        "local-dp, abandoned rounds": (by_clients, local, {"rounds": 3, "min_survivors": least, **too_few}),
        "local-dp, resumed": (by_clients, local, again),
        "sample-dp": (by_examples, examples(), {"rounds": 2}),
        "sample-dp, sampled batches": (by_examples, examples(half), {"rounds": 2}),
        "sample-dp, drop-outs": (by_examples, examples(), {"rounds": 2, "dropout": 0.3}),
        "sample-dp, abandoned rounds": (
            by_examples,
            examples(),
            {"rounds": 6, "min_survivors": 2, "dropout": 0.5},
        ),
        "sample-dp, resumed": (by_examples, examples(), again),
    }
    return {name: partial(how, privacy, count, **given) for name, (how, privacy, given) in plays.items()}


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
