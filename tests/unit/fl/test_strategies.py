"""Every algorithm against a few lines of NumPy that do the same, and by what it is known for: on least squares over
clients that disagree, in memory, under masks bit for bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import (
    FedAdagrad,
    FedAdam,
    FedAdp,
    FedAvg,
    FedAvgM,
    FedDyn,
    Federation,
    FedNova,
    FedProx,
    FedYogi,
    Scaffold,
)
from fl.strategies.fedadp import angle
from he import CKKSSum, PaillierSum
from protocols.errors import Misuse
from secagg import SecAggPlus
from tests.toys.squares import Data, federation, gradient, optimum, problem, sgd, weights

LR, EPOCHS, ROUNDS = 0.05, 8, 6


def descend(data: Any, w: np.ndarray, shift: Any = 0.0, pull: float = 0.0) -> np.ndarray:
    y = w.copy()
    for _ in range(EPOCHS):
        y = y - LR * (gradient(data, y) + shift + pull * (y - w))
    return y


# -- references: each a few lines, from the paper's equations --


def fedopt(kind: str, data: Data, lr: float, b1: float, b2: float, tau: float) -> np.ndarray:
    w, m, v = np.zeros(3), np.zeros(3), np.full(3, tau**2)
    for _ in range(ROUNDS):
        d = np.mean([descend(own, w) - w for own in data], axis=0)
        m = b1 * m + (1 - b1) * d
        if kind == "adagrad":
            v = v + d**2
        elif kind == "yogi":
            v = v - (1 - b2) * d**2 * np.sign(v - d**2)
        else:
            v = b2 * v + (1 - b2) * d**2
        w = w + lr * m / (np.sqrt(v) + tau)
    return w


def avgm(data: Data, beta: float, lr: float) -> np.ndarray:
    w, v = np.zeros(3), np.zeros(3)
    for _ in range(ROUNDS):
        v = beta * v + np.mean([descend(own, w) - w for own in data], axis=0)
        w = w + lr * v
    return w


def prox(data: Data, mu: float) -> np.ndarray:
    w = np.zeros(3)
    for _ in range(ROUNDS):
        w = np.mean([descend(own, w, pull=mu) for own in data], axis=0)
    return w


def scaffold(data: Data, option: int, rounds: int = ROUNDS) -> np.ndarray:
    w, c, own_c = np.zeros(3), np.zeros(3), [np.zeros(3) for _ in data]
    for _ in range(rounds):
        ends = [descend(d, w, c - mine) for d, mine in zip(data, own_c, strict=True)]
        new = [
            gradient(d, w) if option == 1 else own_c[k] - c + (w - ends[k]) / (EPOCHS * LR)
            for k, d in enumerate(data)
        ]
        w = w + np.mean([y - w for y in ends], axis=0)
        c = c + np.mean([a - b for a, b in zip(new, own_c, strict=True)], axis=0)
        own_c = new
    return w


def dyn(data: Data, alpha: float, rounds: int = ROUNDS) -> np.ndarray:
    w, h, g = np.zeros(3), np.zeros(3), [np.zeros(3) for _ in data]
    for _ in range(rounds):
        ends = [descend(d, w, -mine, alpha) for d, mine in zip(data, g, strict=True)]
        g = [g[k] - alpha * (y - w) for k, y in enumerate(ends)]
        h = h - alpha * np.mean([y - w for y in ends], axis=0)
        w = np.mean(ends, axis=0) - h / alpha
    return w


DATA = problem()
CASES: dict[str, tuple[Any, Callable[[], np.ndarray]]] = {
    "fedadam": (
        lambda: FedAdam(0.1, tau=0.01, weighted=False),
        lambda: fedopt("adam", DATA, 0.1, 0.9, 0.99, 0.01),
    ),
    "fedyogi": (lambda: FedYogi(0.1, tau=0.01), lambda: fedopt("yogi", DATA, 0.1, 0.9, 0.99, 0.01)),
    "fedadagrad": (lambda: FedAdagrad(0.1, tau=0.01), lambda: fedopt("adagrad", DATA, 0.1, 0.0, 0.0, 0.01)),
    "fedavgm": (lambda: FedAvgM(0.7, 0.5), lambda: avgm(DATA, 0.7, 0.5)),
    "fedprox": (lambda: FedProx(0.8), lambda: prox(DATA, 0.8)),
    "scaffold-1": (lambda: Scaffold(1, control_clip=16.0), lambda: scaffold(DATA, 1)),
    "scaffold-2": (lambda: Scaffold(2, control_clip=16.0), lambda: scaffold(DATA, 2)),
    "feddyn": (lambda: FedDyn(1.5), lambda: dyn(DATA, 1.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_algorithm_does_what_a_few_lines_of_its_equations_do(name: str) -> None:
    make, reference = CASES[name]
    run = federation(DATA, make(), local_epochs=EPOCHS)
    run.fit(ROUNDS)
    assert weights(run) == pytest.approx(reference(), abs=1e-6)


EVERY = {
    **{name: make for name, (make, _) in CASES.items()},
    "fednova": FedNova,
    "fedadp": FedAdp,
}


@pytest.mark.parametrize("name", EVERY)
def test_no_secure_sum_changes_a_bit_of_any_algorithm(name: str) -> None:
    runs = [
        federation(problem((6, 9, 12, 12, 7)), EVERY[name](), layers, local_epochs=2, bits=16)
        for layers in ([], [SecAggPlus()], [CKKSSum()], [PaillierSum(key_bits=2048, arrangement="keyholder")])
    ]
    plain, *others = [run.fit(3).model.state_dict()["weight"] for run in runs]
    assert all(torch.equal(plain, other) for other in others)
    assert weights(runs[0]).any()


# -- what each is known for --


def far(run: Federation, data: Data, rounds: int) -> float:
    run.fit(rounds)
    return float(np.linalg.norm(weights(run) - optimum(data)))


def test_scaffold_and_feddyn_reach_the_optimum_that_fedavg_misses() -> None:
    options = {"local_epochs": 10, "optimizer": sgd(0.1)}
    assert far(federation(DATA, FedAvg(), **options), DATA, 30) > 0.05
    for strategy in (Scaffold(1, control_clip=16.0), Scaffold(2, control_clip=16.0), FedDyn(2.0)):
        assert far(federation(DATA, strategy, **options), DATA, 30) < 1e-4


@pytest.mark.parametrize("strategy", [lambda: Scaffold(2, control_clip=16.0), lambda: FedDyn(2.0)])
def test_they_do_so_too_where_only_some_clients_take_part(strategy: Any) -> None:
    run = federation(DATA, strategy(), local_epochs=5, fraction=0.5, optimizer=sgd(0.1))
    assert far(run, DATA, 80) < 1e-3


def test_momentum_on_the_server_of_zero_is_fedavg() -> None:
    runs = [federation(DATA, strategy, local_epochs=2) for strategy in (FedAvgM(0.0, 0.5), FedAvg(0.5))]
    assert torch.equal(*(run.fit(4).model.weight for run in runs))


# -- FedNova: unequal local work --


def unequal(model: Any, loader: Any, optimizer: Any, criterion: Any) -> dict[str, float]:
    """Client k has 6 (k + 1) examples, and takes k + 1 steps an epoch."""
    for _ in range(len(loader.dataset) // 6):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    return {}


UNEQUAL = problem((6, 12, 18, 24))


def nova(data: Data, lr: float, momentum: float, epochs: int, weighted: bool, rounds: int) -> np.ndarray:
    w = np.zeros(3)
    sizes = np.array([len(y) for _, y in data], float)
    shares = sizes / sizes.sum() if weighted else np.full(len(data), 1 / len(data))
    for _ in range(rounds):
        steps, lengths = [], []
        for (x, y), size in zip(data, sizes, strict=True):
            k, v, at = int(size // 6) * epochs, np.zeros(3), w.copy()
            for _ in range(k):
                v = momentum * v + gradient((x, y), at)
                at = at - lr * v
            a = (k - momentum * (1 - momentum**k) / (1 - momentum)) / (1 - momentum)
            steps.append((at - w) / a)
            lengths.append(a)
        w = w + float(shares @ lengths) * (shares @ np.array(steps))
    return w


@pytest.mark.parametrize(("momentum", "weighted"), [(0.0, True), (0.9, True), (0.5, False)])
def test_fednova_averages_normalised_steps(momentum: float, weighted: bool) -> None:
    run = federation(
        UNEQUAL,
        FedNova(usual=5, max_steps=64, weighted=weighted),
        train=unequal,
        optimizer=sgd(0.02, momentum=momentum),
        local_epochs=3,
    )
    run.fit(ROUNDS)
    assert weights(run) == pytest.approx(nova(UNEQUAL, 0.02, momentum, 3, weighted, ROUNDS), abs=1e-6)


def test_fednova_is_unbiased_where_clients_take_unequal_steps() -> None:
    def bias(strategy: Any) -> float:
        run = federation(UNEQUAL, strategy, train=unequal, optimizer=sgd(0.01), local_epochs=2)
        return far(run, UNEQUAL, 60)

    biased = bias(FedAvg(weighted=False))
    assert bias(FedNova(weighted=False)) < 0.2 * biased
    assert bias(FedNova(tau=5, weighted=False)) < 0.2 * biased


def test_a_client_beyond_fednovas_public_bound_is_refused() -> None:
    with pytest.raises(Misuse, match=r"max_steps: a client took 6 steps, expected 4 at most"):
        federation(DATA, FedNova(max_steps=4), local_epochs=6).fit(1)
    beside = federation(DATA, FedNova(max_steps=4), local_epochs=6, privacy=[ClientDP(noise_multiplier=1.0)])
    assert beside.fit(1).history[0].refusals == {}, "nobody is told by name beside noise"


# -- FedAdp --


def test_fedadp_weighs_by_the_mean_angle_to_the_last_rounds_mean() -> None:
    strategy = FedAdp(alpha=3.0, weight_cap=1000)
    run = federation(DATA, strategy, local_epochs=4)
    run.fit(4)
    w, shown, angles = np.zeros(3), None, [list[float]() for _ in DATA]
    for _ in range(4):
        moves = []
        for own in DATA:
            y = w.copy()
            for _ in range(4):
                y = y - LR * gradient(own, y)
            moves.append(y - w)
        if shown is not None:
            for held, d in zip(angles, moves, strict=True):
                held.append(float(np.arccos(d @ shown / np.linalg.norm(d) / np.linalg.norm(shown))))
        theta = np.array([np.mean(held) if held else 0.0 for held in angles])
        psi = np.rint(1000 * np.exp(3 * (1 - np.exp(-np.exp(-3 * (theta - 1)))) - 3))
        shown = (psi / psi.sum()) @ np.array(moves)
        w = w + shown
    assert weights(run) == pytest.approx(w, abs=1e-6)
    assert len(set(psi)) > 1


def test_fedadp_gives_no_weight_for_an_angle_that_is_none() -> None:
    assert angle(np.zeros(2), np.ones(2)) is None
    assert angle(np.array([np.nan, 0.0]), np.ones(2)) is None
    assert angle(np.array([1.0, 0.0]), np.array([0.0, 2.0])) == pytest.approx(np.pi / 2)
    strategy = FedAdp(weight_cap=100, examples=50)
    assert [strategy.weight(0.0, count) for count in (0, 25, 50, 5000)] == [0, 50, 100, 100]
    assert strategy.weight(np.pi, 1) == 1


# -- steps of every kind --


@pytest.mark.parametrize(
    "more",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.8, "dampening": 0.3},
        {"dampening": 0.3},
    ],
)
def test_scaffolds_control_variate_is_a_mean_of_gradients_whatever_the_momentum(more: dict[str, Any]) -> None:
    """One client with a constant gradient: whatever the optimizer makes of it, c is that gradient."""

    def constant(model: Any, loader: Any, optimizer: Any) -> None:
        optimizer.zero_grad()
        model.weight.sum().backward()
        optimizer.step()

    run = federation(
        DATA[:1], strategy := Scaffold(), train=constant, optimizer=sgd(0.03, **more), local_epochs=5
    )
    run.fit(1)
    assert strategy.state()["control"] == pytest.approx(np.ones(3), abs=1e-6)


def test_a_scheduler_within_a_round_is_followed() -> None:
    def halving(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    run = federation(DATA, strategy := Scaffold(control_clip=16.0), scheduler=halving, local_epochs=3)
    run.fit(1)
    found = []
    for own in DATA:
        w, lrs = np.zeros(3), [0.05, 0.025, 0.0125]
        for lr in lrs:
            w = w - lr * gradient(own, w)
        found.append(-w / sum(lrs))
    assert strategy.state()["control"] == pytest.approx(np.mean(found, axis=0), abs=1e-6)


@pytest.mark.parametrize("strategy", [Scaffold(), FedNova()])
def test_an_optimizer_that_is_no_sgd_is_refused_before_round_one(strategy: Any) -> None:
    with pytest.raises(Misuse, match=r"torch\.optim\.SGD went .* is Adam"):
        federation(DATA, strategy, optimizer=lambda p: torch.optim.Adam(p))


@pytest.mark.parametrize(
    "make",
    [
        lambda: FedAvgM(1.0),
        lambda: FedYogi(tau=0.0),
        lambda: FedAdagrad(beta1=1.0),
        lambda: Scaffold(option=3),
        lambda: Scaffold(control_clip=0.0),
        lambda: FedDyn(0.0),
        lambda: FedNova(usual=-1.0),
        lambda: FedNova(tau=0.0),
        lambda: FedAdp(alpha=0.0),
        lambda: FedAdp(weight_cap=0),
    ],
)
def test_options_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(Misuse, match="expected"):
        make()


# -- running statistics --


def normed() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


@pytest.mark.parametrize(
    "strategy", [FedAdam(1.0), FedAvgM(0.9, 3.0), FedDyn(0.05), Scaffold(server_lr=4.0), FedNova()]
)
def test_running_statistics_move_by_their_plain_mean_whatever_the_strategy_steps_by(strategy: Any) -> None:
    drawn = torch.Generator().manual_seed(1)
    loaders = [
        DataLoader(TensorDataset(torch.randn(8, 3, generator=drawn), torch.arange(8) % 2), batch_size=8)
        for _ in range(3)
    ]
    run = Federation(normed, loaders, strategy=strategy, bits=24, learning_rate=0.01)
    expected = []
    for loader in loaders:
        model = normed()
        model.load_state_dict(run.model.state_dict())
        model.train()(next(iter(loader))[0])
        expected.append(model[1].running_var)
    run.fit(1)
    assert torch.allclose(run.model[1].running_var, torch.stack(expected).mean(0), atol=1e-4)
