"""A trial of `banded-search`: an arm of `banded` trained in floats on training images, and judged on training images
held out. A linear model; C', noise and price are the layer's own.

What does not belong here: what is tried (`banded_search`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dp import banded_training, fashion
from benchmarks.dp.banded_training import ROUNDS, TURNS, Arm
from dp.correlated.rows import OpenedRows
from dp.correlated.strategy import StrategyMatrix
from protocols.layers import RunFacts

Floats = NDArray[np.floating[Any]]
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Inputs, a one behind each, and labels."""
HELD_OUT, SPLIT, BATCH, CLASSES = 10_000, 7, 20, 62


def held_out(case: str, arm: Arm, data_dir: Path | None, work: Path) -> float:
    """The accuracy of one trial on training images that it was not trained on, in per cent."""
    return _femnist(arm, data_dir) if case == "femnist" else _fashion(arm, data_dir, work)


def _femnist(arm: Arm, data_dir: Path | None) -> float:
    parts, judges = _writers(data_dir)
    run = RunFacts(
        ROUNDS,
        len(parts),
        -(-len(parts) // TURNS),
        "cyclic",
        1 / TURNS,
        dimension=parts[0][0].shape[1] * CLASSES,
    )
    strategy, deviation = None, 0.0
    if arm.private:
        layer = banded_training.client_layer(arm)
        assert layer.correlation is not None
        strategy = layer.correlation.strategy(ROUNDS)
        deviation = layer._multiplier(run) * strategy.norm * arm.clip

    def total(draws: np.random.Generator, groups: list[Any], model: Floats, row: int) -> Floats:
        moved = np.zeros_like(model)
        for writer in groups[(row - 1) % TURNS]:
            own = _trained(model, parts[writer], arm.rate, draws) - model
            norm = float(np.linalg.norm(own)) if arm.private else 0.0
            moved += own * min(1.0, arm.clip / max(norm, 1e-12)) if arm.private else own
        return moved / run.expected

    scores = []
    for seed in (1, 2):
        draws = np.random.default_rng(seed)
        groups = np.array_split(draws.permutation(len(parts)), TURNS)
        noise = _noise(strategy, deviation / run.expected, draws)
        start = np.zeros((parts[0][0].shape[1], CLASSES), np.float32)
        scores.append(
            _judged(_descended(arm, start, ROUNDS, arm.server, partial(total, draws, groups), noise), judges)
        )
    return float(np.mean(scores))


def _fashion(arm: Arm, data_dir: Path | None, work: Path) -> float:
    batches, (judged, labels) = _images(arm.batches, data_dir, work)
    examples, rounds = sum(len(y) for _, y in batches), arm.batches * arm.epochs
    layer = banded_training.example_layer(arm, examples)
    assert layer.correlation is not None
    strategy = layer.correlation.strategy(rounds)
    grid = layer._plan(
        RunFacts(rounds, fashion.CLIENTS, fashion.CLIENTS, dimension=judged.shape[1] * 10)
    ).grid
    deviation = math.sqrt(grid.share_variance * fashion.CLIENTS) * grid.step * strategy.norm
    draws, batch = np.random.default_rng(1), examples / arm.batches

    def total(model: Floats, row: int) -> Floats:
        if not arm.amplify:
            return -_clipped(model, batches[(row - 1) % arm.batches], arm.clip) / batch
        turns = arm.bands or 1  # batches of the band, each example by its coin
        moved = np.zeros_like(model)
        for x, y in batches[(row - 1) % turns :: turns]:
            chosen = draws.random(len(y)) < turns / arm.batches
            moved -= _clipped(model, (x[chosen], y[chosen]), arm.clip)
        return moved / batch

    start = np.zeros((judged.shape[1], 10), np.float32)
    model = _descended(arm, start, rounds, arm.rate, total, _noise(strategy, deviation / batch, draws))
    return _judged(model, (judged, labels))


def _descended(
    arm: Arm,
    model: Floats,
    rounds: int,
    rate: float,
    mean: Callable[[Floats, int], Floats],
    noise: Callable[[int, tuple[int, ...]], Floats | float],
) -> Floats:
    """The server's steps, with momentum and a falling rate, as in the final runs."""
    velocity = np.zeros_like(model)
    for row in range(1, rounds + 1):
        velocity = arm.momentum * velocity + mean(model, row) + noise(row, model.shape)
        model = model + rate * (1 - ((row - 1) / rounds) ** arm.power) * velocity
    return model


def _noise(
    strategy: StrategyMatrix | None, deviation: float, draws: np.random.Generator
) -> Callable[..., Floats | float]:
    """What is decoded from rows of fresh noise; none without a strategy."""
    opened = OpenedRows()

    def row(number: int, shape: tuple[int, ...]) -> Floats | float:
        if strategy is None:
            return 0.0
        fresh = deviation * draws.standard_normal(math.prod(shape))
        return opened.take(strategy, number, fresh).reshape(shape).astype(np.float32)

    return row


def _residual(model: Floats, x: Floats, y: NDArray[np.int64]) -> Floats:
    """Softmax less one-hot: the slope of the cross-entropy in the outputs of a linear model."""
    out = x @ model
    out -= out.max(axis=1, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)
    out[np.arange(len(y)), y] -= 1
    return out


def _trained(model: Floats, rows: Rows, rate: float, draws: np.random.Generator) -> Floats:
    """A writer's epoch of SGD."""
    order = draws.permutation(len(rows[1]))
    for at in range(0, len(order), BATCH):
        chosen = order[at : at + BATCH]
        x, y = rows[0][chosen], rows[1][chosen]
        model = model - rate / len(y) * (x.T @ _residual(model, x, y))
    return model


def _clipped(model: Floats, rows: Rows, clip: float) -> Floats:
    """The sum of clipped gradients of examples: each is an outer product, so its norm is one of norms."""
    x, y = rows
    slope = _residual(model, x, y)
    norms = np.linalg.norm(slope, axis=1) * np.sqrt(np.einsum("ij,ij->i", x, x))
    slope *= np.minimum(1.0, clip / np.maximum(norms, 1e-12))[:, None]
    return x.T @ slope


def _judged(model: Floats, rows: Rows) -> float:
    return 100 * float(((rows[0] @ model).argmax(axis=1) == rows[1]).mean())


def _with_ones(x: NDArray[Any]) -> NDArray[np.float32]:
    return np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1, dtype=np.float32)


@cache
def _writers(data_dir: Path | None) -> tuple[list[Rows], Rows]:
    """Every writer's training images less a fifth, and these fifths."""
    images, labels, owner = (np.asarray(part) for part in banded_training.writers(data_dir)[:3])
    draws, kept, held = np.random.default_rng(SPLIT), [], []
    for writer in np.unique(owner):
        order = draws.permutation(np.flatnonzero(owner == writer))
        held.append(order[: len(order) // 5])
        kept.append(order[len(order) // 5 :])
    x, out = _with_ones(images), np.concatenate(held)
    return [(x[part], labels[part]) for part in kept], (x[out], labels[out])


@cache
def _images(batches: int, data_dir: Path | None, work: Path) -> tuple[list[Rows], Rows]:
    """50,000 scattered training images in batches, each image in one drawn for it, and 10,000 to judge by."""
    inputs, labels = (part.numpy() for part in fashion.load(fashion.SCATTERING, data_dir, work).train.tensors)
    draws = np.random.default_rng(SPLIT)
    order, slots = draws.permutation(len(labels)), draws.integers(0, batches, len(labels) - HELD_OUT)
    parts = [np.sort(order[HELD_OUT:][slots == batch]) for batch in range(batches)]
    rows = [(_with_ones(inputs[part]), labels[part]) for part in (*parts, np.sort(order[:HELD_OUT]))]
    return rows[:-1], rows[-1]
