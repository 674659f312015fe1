"""Was this example in the training data? The loss-threshold attack on an overfitted model, and what noise
leaves of it.

python examples/attacks/membership_inference.py

An overfitted model has a lower loss on what it was trained on (Yeom et al., CSF 2018, section 3.2). The
attack's strength is the area under its ROC curve: 1 tells members from others without error, 0.5 is chance.
Masks and encryption hide updates and change nothing here, for the model that comes out is the same; noise
does.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation
from fl.data import load

CLIENTS, EACH, OTHERS, ROUNDS = 5, 12, 400, 30


def large_model() -> nn.Module:
    """Far more weights than examples."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def overfitted(privacy: list[Any], rounds: int = ROUNDS, noise: float = 0.35) -> tuple[Any, Any, Any]:
    """Return (the model, members, others): sixty noisy digits over five clients, trained until they are
    known by heart.

    noise: share of the training labels that are wrong, so that only memory explains them.
    """
    data = load("digits")
    count = CLIENTS * EACH
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train).clone()
    shuffled = np.random.default_rng(0)
    for part in (slice(0, count), slice(count, count + OTHERS)):
        wrong = torch.from_numpy(shuffled.random(y[part].shape[0]) < noise)
        y[part] = torch.where(wrong, torch.from_numpy(shuffled.integers(0, 10, wrong.shape[0])), y[part])
    loaders = {
        f"client-{i}": DataLoader(
            TensorDataset(x[i * EACH : (i + 1) * EACH], y[i * EACH : (i + 1) * EACH]),
            batch_size=EACH,
            shuffle=True,
        )
        for i in range(CLIENTS)
    }
    result = Federation(
        large_model, loaders, privacy=privacy, local_epochs=10, learning_rate=0.2, weight_cap=100
    ).fit(rounds)
    members = (x[:count], y[:count])
    others = (x[count : count + OTHERS], y[count : count + OTHERS])
    return result, members, others


def advantage(model: Any, members: Any, others: Any) -> float:
    """Area under the ROC curve of guessing "member" for a low loss (0.5: chance)."""
    with torch.no_grad():
        losses = [
            nn.functional.cross_entropy(model(x), y, reduction="none").double().numpy()
            for x, y in (members, others)
        ]
    inside, outside = losses
    ranks = (inside[:, None] < outside[None, :]).mean() + 0.5 * (inside[:, None] == outside[None, :]).mean()
    return float(ranks)


def main() -> None:
    """Print the attack's strength without layers, behind masks, and behind noise."""
    from dp import DistributedDP
    from secagg import SecAggPlus

    for name, privacy in {
        "no layer": [],
        "masks": [SecAggPlus()],
        "masks and distributed noise": [DistributedDP(epsilon=8, delta=1e-5), SecAggPlus()],
    }.items():
        result, members, others = overfitted(privacy)
        print(f"{name:28} area under the curve {advantage(result.model, members, others):.3f}")


if __name__ == "__main__":
    main()
