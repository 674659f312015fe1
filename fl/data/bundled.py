"""The sets that come with scikit-learn: no file, no network. Others are in `images.py` and `tables.py`."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.data.dataset import DataSet, held_out
from protocols.extras import needs


def digits() -> DataSet:
    """1,797 handwritten digits, 8x8, 10 classes (UCI Optical Recognition, test part); values in [0, 1]."""
    rows = _rows("digits", "digits.csv.gz", header=0)
    x = (rows[:, :-1].astype(np.float32) / np.float32(16)).reshape(-1, 1, 8, 8)
    return held_out("digits", x, rows[:, -1].astype(np.int64), 10, "scikit-learn", "pixels divided by 16")


def breast_cancer() -> DataSet:
    """569 tumours, 30 features, 2 classes (UCI Breast Cancer Wisconsin Diagnostic), standardised."""
    rows = _rows("breast-cancer", "breast_cancer.csv", header=1)
    x, y = rows[:, :-1], rows[:, -1].astype(np.int64)
    done = "standardised with mean and deviation of the training part"
    return held_out("breast-cancer", x, y, 2, "scikit-learn", done, standard=True)


def _rows(name: str, file: str, header: int) -> NDArray[Any]:
    """Return a file's numbers, float64 [rows, features and the class]. scikit-learn is found, not imported: it would
    import pandas and half of SciPy, longer than a small model trains.
    """
    with needs("torch", f"The data set {name}"):
        found = importlib.util.find_spec("sklearn")
        if found is None or found.origin is None:
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    path = Path(found.origin).parent / "datasets" / "data" / file
    return np.loadtxt(path, delimiter=",", skiprows=header)
