"""The data of the pairs: the breast-cancer set that scikit-learn brings, at four sites and, as it was before, in one
place.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

_X, _Y = load_breast_cancer(return_X_y=True)
_ORDER = np.random.default_rng(1).permutation(len(_X))
TRAIN, TEST = (_X[_ORDER[:480]], _Y[_ORDER[:480]]), (_X[_ORDER[480:]], _Y[_ORDER[480:]])
SITES = {
    name: (TRAIN[0][at::4], TRAIN[1][at::4]) for at, name in enumerate(("north", "south", "west", "east"))
}
BOUNDS = 10.0 ** np.ceil(np.log10(_X.max(axis=0)))
"""What each feature can be at most, to a power of ten: public knowledge of its unit."""


def _scaled(data):
    """For the loops that do not scale: by constants that are no statistics of the examples."""
    return (10 * data[0] / BOUNDS - 2).astype(np.float32), data[1]


SCALED_TRAIN, SCALED_TEST = _scaled(TRAIN), _scaled(TEST)
SCALED_SITES = {name: _scaled(data) for name, data in SITES.items()}
