"""What a data set is: arrays, classes, and whose examples they naturally are.

Belongs here: the type, its checks, and the arithmetic that several sets share. Where files come from is
in `sources.py`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.errors import Misuse

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """Labelled examples, split into training and test.

    `x_train`, `x_test`: float32, shape (examples, ...): (N, channels, height, width) or (N, features),
    all finite. `y_train`, `y_test`: int64 labels in [0, classes): one per example, or (N, length) for windows of
    text. `clients_train`, `clients_test`: for each example the index of its natural client in `client_names`, or None
    where the set has none. `source` says where it was found, `preprocessing` what was done to the numbers. Raises
    Misuse where the parts do not fit each other.
    """

    name: str
    x_train: Floats
    y_train: Labels
    x_test: Floats
    y_test: Labels
    classes: int
    source: str
    preprocessing: str = ""
    clients_train: Labels | None = None
    clients_test: Labels | None = None
    client_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_part(self.name, "training", self.x_train, self.y_train, self.classes)
        _check_part(self.name, "test", self.x_test, self.y_test, self.classes)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise Misuse(
                f"{self.name}: training examples have the shape {self.x_train.shape[1:]}, "
                f"test examples {self.x_test.shape[1:]}; they must be equal."
            )
        for part, owners in ((self.x_train, self.clients_train), (self.x_test, self.clients_test)):
            if owners is not None and len(owners) != len(part):
                raise Misuse(f"{self.name}: {len(part)} examples have {len(owners)} natural clients.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.x_train.shape[1:])

    def __repr__(self) -> str:
        return (
            f"DataSet({self.name!r}, {len(self.y_train)} + {len(self.y_test)} examples of shape "
            f"{self.input_shape}, {self.classes} classes, from {self.source})"
        )


def holdout(labels: Labels, share: float, seed: int = 0) -> tuple[Labels, Labels]:
    """Indices of a training and a test part. The test has `share` of the examples, rounded up, spread over the
    classes in proportion (largest remainder).

    The seed is fixed so that everyone who names a set means the same split; it is no seed of a user's run.
    """
    generator = np.random.default_rng(seed)
    values, counts = np.unique(labels, return_counts=True)
    quota = counts * math.ceil(share * len(labels)) / len(labels)
    taken = np.floor(quota).astype(np.int64)
    left_over = round(quota.sum()) - taken.sum()
    taken[np.argsort(taken - quota, kind="stable")[:left_over]] += 1
    test = [
        generator.permutation(np.flatnonzero(labels == v))[:n] for v, n in zip(values, taken, strict=True)
    ]
    chosen = np.sort(np.concatenate(test)).astype(np.int64)
    rest = np.setdiff1d(np.arange(len(labels)), chosen).astype(np.int64)
    return rest, chosen


def held_out(
    name: str, x: npt.NDArray[Any], y: Labels, classes: int, source: str, done: str, *, standard: bool = False
) -> DataSet:
    """A set without a published split, of which a fifth becomes the test part. standard: `standardise` first."""
    train, test = holdout(y, 0.2)
    x_train, x_test = standardise(x[train], x[test]) if standard else (x[train], x[test])
    return DataSet(name, x_train, y[train], x_test, y[test], classes, source, done)


def standardise(train: npt.NDArray[np.float64], test: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Both parts with mean 0 and deviation 1 of the training part, per column; a constant column becomes
    0.
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    return ((train - mean) / scale).astype(np.float32), ((test - mean) / scale).astype(np.float32)


def indicators(column: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    """One column of 0 and 1 per value that occurs, in sorted order."""
    matches: npt.NDArray[np.bool_] = column[:, np.newaxis] == np.unique(column)
    return matches.astype(np.float64)


def _check_part(name: str, part: str, x: Floats, y: Labels, classes: int) -> None:
    if len(x) != len(y) or not len(x):
        raise Misuse(
            f"{name}: the {part} part has {len(x)} examples and {len(y)} labels; it needs as many, and some."
        )
    if x.dtype != np.float32 or y.dtype != np.int64:
        raise Misuse(
            f"{name}: the {part} part is {x.dtype} with {y.dtype} labels; expected float32 and int64."
        )
    if y.min() < 0 or y.max() >= classes:
        raise Misuse(f"{name}: the {part} labels lie in [{y.min()}, {y.max()}], outside [0, {classes}).")
    if not np.isfinite(x).all():
        raise Misuse(f"{name}: the {part} part holds NaN or infinity; remove or replace such examples.")
