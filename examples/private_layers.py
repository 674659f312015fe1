"""Three ways to make the same federation private: by example in each client's loop, by example without any
trusted party, by client.

Run: python examples/private_layers.py. It needs the extra `torch` and no files: scikit-learn's digits, 5
clients.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, SampleDP
from fl import FedAvg, Federation, FedSGD
from secagg import SecAggPlus

CLIENTS, DELTA = 5, 1e-4


def data() -> tuple[dict[str, DataLoader], DataLoader, int]:
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    train, test = range(0, 1500), range(1500, len(x))
    loaders = {
        f"site-{i}": DataLoader(TensorDataset(x[train[i::CLIENTS]], y[train[i::CLIENTS]]), batch_size=30)
        for i in range(CLIENTS)
    }
    return loaders, DataLoader(TensorDataset(x[test], y[test]), batch_size=500), len(train)


def loss(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """What `DistributedDP` at example level differentiates: the mean over one batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def main() -> None:
    loaders, test, examples = data()
    runs = {
        "each client's loop": ([SampleDP(epsilon=8, delta=DELTA, clip=1.0)], FedAvg(), 5),
        "no trusted party": (
            [
                DistributedDP(
                    epsilon=8, delta=DELTA, clip=1.0, unit="example", sample_rate=0.2, examples=examples
                )
            ],
            FedSGD(lr=2.0),
            25,
        ),
        "client level": ([ClientDP(epsilon=20, delta=DELTA, clip=1.0)], FedAvg(), 5),
    }
    for name, (layers, strategy, rounds) in runs.items():
        federation = Federation(
            model=lambda: nn.Linear(64, 10),
            clients=loaders,
            strategy=strategy,
            privacy=[*layers, SecAggPlus(dropout=0.0)],
            loss=loss,
            test=test,
            learning_rate=0.5,
            delta=DELTA,
        )
        result = federation.fit(rounds=rounds)
        accuracy = result.history[-1].metrics["accuracy"]
        print(f"{name}: accuracy {accuracy:.2f}", *result.guarantees, sep="\n  ")


if __name__ == "__main__":
    main()
