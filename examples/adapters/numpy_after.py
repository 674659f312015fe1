"""Logistic regression written in NumPy. Run with python -m from the checkout."""

import numpy as np

from examples.adapters import sites
from fl.adapters import from_numpy
from secagg import SecAggPlus


def train(weights, data):
    x, y = data
    order = np.random.permutation(len(x))
    for batch in np.array_split(order, len(x) // 10):
        wrong = 1 / (1 + np.exp(-x[batch] @ weights["w"] - weights["b"])) - y[batch]
        weights["w"] -= 0.1 * x[batch].T @ wrong / len(batch)
        weights["b"] -= 0.1 * wrong.mean()
    return weights


weights = {"w": np.zeros(30), "b": np.zeros(())}
federation = from_numpy(weights, train, sites.SCALED_SITES, privacy=[SecAggPlus()])
weights = federation.fit(rounds=20).model.weights()

x, y = sites.SCALED_TEST
accuracy = ((x @ weights["w"] + weights["b"] > 0) == y).mean()
print(f"accuracy {accuracy:.3f}")
