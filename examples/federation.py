"""A federation around one's own torch module, loaders and training function.

    python examples/federation.py

Four hospitals would do the same; here four clients hold shares of the breast-cancer set that scikit-learn brings. The
model, the loaders and the loop are plain torch and know nothing of privacy. The layers are a list: put `PlainSum()`,
`SecAggPlus()` or a homomorphic sum in the place of `SecAgg()`, and nothing else changes.
"""

import torch

from fl import FedAvg, Federation
from fl.data import load
from fl.data.partition import partition
from protocols import PlainSum
from secagg import SecAgg

DATA = load("breast-cancer")
ROUNDS = 5


class Net(torch.nn.Module):
    """The user's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(30, 16)
        self.out = torch.nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(x)))


def train(model: torch.nn.Module, loader, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The user's own loop: its arguments are found by name. What it returns is summed inside the vector too."""
    total = seen = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total, seen = total + loss.item() * len(y), seen + len(y)
    return {"loss": total / seen}


def loader(x, y, indices=slice(None)) -> torch.utils.data.DataLoader:
    """A DataLoader over some of the examples."""
    chosen = torch.utils.data.TensorDataset(torch.from_numpy(x[indices]), torch.from_numpy(y[indices]))
    return torch.utils.data.DataLoader(chosen, batch_size=32, shuffle=True)


def federation(privacy: list) -> Federation:
    split = partition(DATA, "dirichlet:alpha=1.0", clients=4, seed=1)
    return Federation(
        model=Net,
        clients={name: loader(DATA.x_train, DATA.y_train, own) for name, own in split.items()},
        train=train,
        strategy=FedAvg(),
        privacy=privacy,
        test=loader(DATA.x_test, DATA.y_test),
        metrics=("loss",),
        seed=1,
    )


def main() -> None:
    result = federation([SecAgg()]).fit(rounds=ROUNDS)
    for played in result.history:
        print(
            f"round {played.number}: accuracy {played.metrics['accuracy']:.3f}, {len(played.survivors)} survivors, "
            f"{played.bytes_up_per_client / 1024:.1f} KiB up per client"
        )
    print()
    print(result.statement.describe())

    plain = federation([PlainSum()]).fit(rounds=ROUNDS)
    pairs = zip(result.model.state_dict().values(), plain.model.state_dict().values(), strict=True)
    if not all(torch.equal(masked, open_) for masked, open_ in pairs):
        raise SystemExit("The run with masks differs from the run without.")
    print("\nBit for bit the model of the same run without masks.")


if __name__ == "__main__":
    main()
