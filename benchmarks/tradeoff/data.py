"""The data of the trade-off runs as `module:factory`: Fashion-MNIST as scattering features, FEMNIST in small.

What is done to an image depends on no other image, so that it costs no privacy. Training does not belong here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.dp.scattering import features
from fl.data import DataSet, load

CACHE = Path("build/tradeoff/cache")
TRAIN, TEST, SUBSET, GRID, SIDE = 6000, 1500, 5, 3, 14
"""Images of Fashion-MNIST, the seed of their choice; places of a feature map, pixels of a character after averaging."""


def fashion_mnist(data_dir: Path | None = None) -> DataSet:
    """6,000 + 1,500 images, the same for everybody, as 81 scattering channels of 3 x 3 places: 729 features."""
    raw = load("fashion-mnist", data_dir)
    random = np.random.default_rng(SUBSET)
    train, test = (
        np.sort(random.choice(len(y), size, replace=False))
        for y, size in ((raw.y_train, TRAIN), (raw.y_test, TEST))
    )
    x_train, x_test = _cached("train", raw.x_train[train]), _cached("test", raw.x_test[test])
    done = "scattering features, averaged over 3 x 3 places"
    return replace(
        raw,
        x_train=x_train,
        y_train=raw.y_train[train],
        x_test=x_test,
        y_test=raw.y_test[test],
        preprocessing=done,
    )


def femnist(data_dir: Path | None = None) -> DataSet:
    """LEAF's sample of writers, averaged over 14 x 14 pixels."""
    raw = load("femnist:edition=leaf-sample", data_dir)
    return replace(raw, x_train=_small(raw.x_train), x_test=_small(raw.x_test))


def _small(images: NDArray[np.float32]) -> NDArray[np.float32]:
    small: NDArray[np.float32] = functional.adaptive_avg_pool2d(torch.from_numpy(images), SIDE).numpy()
    return small


def _cached(part: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
    path = CACHE / f"scattering-{part}-{len(images)}-{SUBSET}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = functional.adaptive_avg_pool2d(features(torch.from_numpy(images).squeeze(1)), GRID)
        # two cells may be first at once
        written = path.with_suffix(f".{np.random.SeedSequence().entropy}.npy")
        np.save(written, made.flatten(1).numpy())
        written.replace(path)
    found: NDArray[np.float32] = np.load(path)
    return found
