"""A part of another data set, so that what is chosen (hyperparameters) is chosen on people who are in no training.

What does not belong here: choosing.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fl.data.dataset import DataSet, Floats, Labels, holdout
from protocols.errors import Misuse

SEED = 11
"""Fixed, so that everybody who names a part means the same one."""


def part(of: str, which: str = "rest", share: float = 0.25, data_dir: Path | None = None) -> DataSet:
    """A data set without a random `share` of its training examples ("rest"), or that share ("apart").

    of: a data set as `fl.data.load` takes it. which: "rest" keeps the test part; of "apart" a fifth is its test part,
    and the test part of `of` is not in it. share: in (0, 1). Where a set has natural clients, whole clients are set
    apart, with their test examples. Raises Misuse for another part or share, and as `load`.

    >>> part("digits", "apart")
    DataSet('digits', 287 + 72 examples of shape (64,), 10 classes, from scikit-learn)
    """
    from fl.data import load

    if which not in ("rest", "apart") or not 0 < share < 1:
        raise Misuse(f'part: expected which "rest" or "apart" and a share in (0, 1), got {which!r}, {share}')
    data = load(of, data_dir)
    owners = np.arange(len(data.y_train)) if data.clients_train is None else data.clients_train
    units = np.unique(owners)
    chosen = np.random.default_rng(SEED).permutation(units)[: max(1, round(share * len(units)))]
    apart = np.isin(owners, chosen)
    if which == "apart":
        train, test = holdout(data.y_train[apart], 0.2)
        rows = np.flatnonzero(apart)
        return _cut(data, rows[train], data.x_train[rows[test]], data.y_train[rows[test]], None)
    owned = data.clients_test
    kept = np.ones(len(data.y_test), bool) if owned is None else ~np.isin(owned, chosen)
    testers = None if owned is None else owned[kept]
    return _cut(data, np.flatnonzero(~apart), data.x_test[kept], data.y_test[kept], testers)


def _cut(data: DataSet, rows: Labels, x_test: Floats, y_test: Labels, testers: Labels | None) -> DataSet:
    """The training examples `rows`, and a test part."""
    owners = None if data.clients_train is None else data.clients_train[rows]
    x, y = data.x_train[rows], data.y_train[rows]
    return replace(
        data, x_train=x, y_train=y, clients_train=owners, x_test=x_test, y_test=y_test, clients_test=testers
    )
