"""The sets that come with scikit-learn: no file, no network. Others are in `images.py` and `tables.py`."""

import numpy as np

from fl.data.dataset import DataSet, held_out
from protocols.extras import needs


def digits() -> DataSet:
    """1,797 handwritten digits, 8x8, 10 classes (UCI Optical Recognition, test part); values in [0, 1]."""
    with needs("torch", "The data set digits"):
        from sklearn.datasets import load_digits
    bundle = load_digits()
    x = (np.asarray(bundle.data, dtype=np.float32) / np.float32(16)).reshape(-1, 1, 8, 8)
    y = np.asarray(bundle.target, dtype=np.int64)
    return held_out("digits", x, y, 10, "scikit-learn", "pixels divided by 16")


def breast_cancer() -> DataSet:
    """569 tumours, 30 features, 2 classes (UCI Breast Cancer Wisconsin Diagnostic), standardised."""
    with needs("torch", "The data set breast-cancer"):
        from sklearn.datasets import load_breast_cancer
    bundle = load_breast_cancer()
    x, y = np.asarray(bundle.data, dtype=np.float64), np.asarray(bundle.target, dtype=np.int64)
    done = "standardised with mean and deviation of the training part"
    return held_out("breast-cancer", x, y, 2, "scikit-learn", done, standard=True)
