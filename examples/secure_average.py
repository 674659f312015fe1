"""A training loop of one's own, with one call in place of its average: what the server adds up, it cannot read.

    python examples/secure_average.py

Five clients hold shares of scikit-learn's digits. Everything here is plain torch; the only line that knows of
privacy is the one that averages. In round 2 a client leaves. Beside it runs the same loop with an average in the
open: after every round the two models agree to within the quantiser's step.
"""

import copy

import torch

from fl import SecureAverage
from fl.data import load
from fl.data.partition import partition
from secagg import SecAgg

CLIENTS, ROUNDS = 5, 4


def train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """A client's own loop: a few steps from the given model; returns its state dict."""
    local = copy.deepcopy(model)
    optimizer = torch.optim.SGD(local.parameters(), lr=0.5)
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(local(x), y).backward()
        optimizer.step()
    return local.state_dict()


def open_average(
    updates: dict[str, dict[str, torch.Tensor] | None], weights: dict[str, int]
) -> dict[str, torch.Tensor]:
    """The average as one writes it: every update lies open before whoever computes it."""
    here = {name: state for name, state in updates.items() if state is not None}
    total = sum(weights[name] for name in here)
    first = next(iter(here.values()))
    return {key: sum(weights[n] / total * here[n][key] for n in here) for key in first}


def main() -> None:
    torch.manual_seed(0)
    data = load("digits")
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    owned = {
        name: torch.from_numpy(own) for name, own in partition(data, "dirichlet:alpha=0.5", CLIENTS).items()
    }
    weights = {name: len(own) for name, own in owned.items()}
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    secure_average = SecureAverage(privacy=[SecAgg()], rounds=ROUNDS)

    for number in range(1, ROUNDS + 1):
        updates = {name: train(model, x[own], y[own]) for name, own in owned.items()}
        if number == 2:
            updates["client-03"] = None  # it left: it has no part in this round
        reference = copy.deepcopy(model.state_dict())
        expected = open_average(updates, weights)

        state = secure_average(updates, weights=weights, reference=reference)

        model.load_state_dict(state)
        apart = max(float((state[key] - expected[key]).abs().max()) for key in state)
        right = model(torch.from_numpy(data.x_test)).argmax(1) == torch.from_numpy(data.y_test)
        print(
            f"round {number}: accuracy {right.float().mean():.3f}, {len(secure_average.survivors)} survivors, "
            f"at most {apart:.1e} from the open average"
        )
        if apart > 1e-3:
            raise SystemExit("The two averages differ by more than the quantiser's step.")

    print()
    print(secure_average.statement.describe())


if __name__ == "__main__":
    main()
