"""Case `fashion-search`: the CNN's hyperparameters, judged on 10,000 held-out training images. The test set is
not looked at.

Each candidate is one run of central DP-SGD on the other 50,000 images, at the very price of the final runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from benchmarks.dp.fashion import CNN, Data, Recipe, central, load

HELD_OUT, SPLIT = 10_000, 7
CANDIDATES = tuple(
    (Recipe("cnn", batch=2048, epochs=40, rate=rate, clip=0.1), standardised)
    for rate, standardised in ((4.0, True), (8.0, True), (8.0, False))
)


def held_out(data: Data) -> Data:
    """The training images, parted: most to train on, HELD_OUT to judge by. The test images are dropped."""
    inputs, labels = data.train.tensors
    order = torch.from_numpy(np.random.default_rng(SPLIT).permutation(len(labels)))
    train, judge = order[HELD_OUT:], order[:HELD_OUT]
    return Data(TensorDataset(inputs[train], labels[train]), inputs[judge], labels[judge])


def measure(seed: int, data_dir: Path | None, work: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Rows of recipe and held-out accuracy, best first; finished runs are kept in `work`."""
    rows = []
    for recipe, standardised in CANDIDATES:
        scaling = "image" if standardised else "constants"
        path = (
            work / f"search.{recipe.batch}.{recipe.epochs}.{recipe.rate}.{recipe.clip}.{scaling}.{seed}.json"
        )
        if not path.exists():
            data = held_out(load(CNN, data_dir, work, standardised=standardised))
            found = asdict(recipe) | {"scaling": scaling}
            found["held_out_accuracy"] = central(recipe, data, seed, report)["accuracy"]
            work.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found))
        rows.append(json.loads(path.read_text()))
        report(f"{path.name}: {rows[-1]['held_out_accuracy']:.2f} % held out")
    return {"rows": sorted(rows, key=lambda row: -row["held_out_accuracy"])}
