"""Odd local steps under strategies that steer them: parameters without a gradient or of two names, an optimizer that
maximises, a warm-up from nothing, a momentum that changes.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import IFCA, Ditto, FedDyn, Federation, FedNova, FedProx, Scaffold
from fl.strategies.steering import Steering
from protocols.errors import Misuse
from protocols.layers import LocalTask
from tests.toys.squares import federation, problem, sgd, train, weights

TASKS = ((True, 1.0, 1.0), (True, 3.0, 2.0), (True, 0.5, 6.0), (False, 1.0, 3.0), (False, 2.0, 1.0))
"""Whether a client's examples use the first of two parameters, their curvature, and their optimum."""


class Heads(torch.nn.Module):
    """A parameter for each of two tasks; examples of the one give the other's no gradient at all."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = torch.nn.ParameterList(torch.zeros(1, dtype=torch.float64) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        return self.heads[0 if x[0, 0] > 0 else 1] * x[:, 1:]


def heads(strategy: Any) -> Federation:
    loaders = []
    for first, curvature, goal in TASKS:
        x = torch.tensor([[float(first), curvature**0.5]] * 4, dtype=torch.float64)
        loaders.append(DataLoader(TensorDataset(x, x[:, 1:] * goal), batch_size=4))
    given: dict[str, Any] = {"criterion": torch.nn.MSELoss, "train": train, "metrics": (), "local_epochs": 5}
    return Federation(Heads, loaders, strategy=strategy, optimizer=sgd(0.05), bits=32, range=16.0, **given)


@pytest.mark.parametrize("strategy", [Scaffold(1, 100.0), Scaffold(2, 100.0), FedDyn(1.0)])
def test_who_never_uses_a_parameter_does_not_move_its_optimum(strategy: Any) -> None:
    """SCAFFOLD's option 2 took a step without a gradient for one along c - c_i: it ended at 1.18 and .56."""
    run = heads(strategy)
    run.fit(150)
    found = [float(head) for head in run.model.heads]
    np.testing.assert_allclose(found, [(1 + 6 + 3) / 4.5, (3 + 2) / 3], atol=1e-3)


@pytest.mark.parametrize("strategy", [Scaffold(2), FedDyn(), FedProx(0.1), FedNova(), Ditto()])
def test_an_optimizer_that_maximises_is_refused(strategy: Any) -> None:
    with pytest.raises(Misuse, match="maximize=True: minimise the negative"):
        federation(problem(), strategy, optimizer=sgd(0.05, maximize=True)).fit(1)


@pytest.mark.parametrize("options", [{}, {"tau": 3.0}])
def test_fednova_counts_from_the_first_step_of_any_size(options: dict[str, Any]) -> None:
    def warm(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 2))

    given: dict[str, Any] = {"scheduler": warm, "scheduler_per": "epoch", "local_epochs": 4}
    run = federation(problem(), FedNova(usual=3.0, **options), **given)
    run.fit(3)
    assert np.linalg.norm(weights(run)) > 0.1


class Twice(torch.nn.Module):
    """One weight used twice, under two names if it is tied."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False).double()
        torch.nn.init.eye_(self.first.weight)
        if tied:
            self.second = torch.nn.Linear(3, 3, bias=False).double()
            self.second.weight = self.first.weight
        self.last = torch.nn.Linear(3, 1, bias=False).double()
        torch.nn.init.ones_(self.last.weight)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(getattr(self, "second", self.first)(self.first(x)))


@pytest.mark.parametrize("strategy", [FedNova, Scaffold, lambda: Scaffold(1), FedDyn])
def test_a_tied_weight_moves_as_a_weight_of_one_name_does(strategy: Any) -> None:
    """FedNova divided the first name by the steps, and sent the second, which every model reads last, as it was."""
    found = []
    for tied in (False, True):
        given: dict[str, Any] = {"criterion": torch.nn.MSELoss, "train": train, "bits": 32, "range": 8.0}
        loaders = [
            DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)[:, None]), batch_size=4)
            for x, y in problem((4, 24, 12))
        ]
        run = Federation(
            lambda tied=tied: Twice(tied),
            loaders,
            strategy=strategy(),
            optimizer=sgd(0.01),
            metrics=(),
            **given,
        )
        found.append(run.fit(3).model.first.weight.detach().numpy())
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


@pytest.mark.parametrize("momenta", [(0.0, 0.0, 0.9, 0.9), (0.5, 0.9, 0.0, 0.0, 0.9), (0.9, 0.5, 0.1)])
@pytest.mark.parametrize("dampening", [0.0, 0.3])
def test_the_reach_follows_a_momentum_that_changes(momenta: tuple[float, ...], dampening: float) -> None:
    """A step without momentum leaves torch's buffer as it is; it was counted as a step that fills it."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, dampening=dampening)
    steering = Steering(LocalTask("a", model, None, optimizer, None, lambda task: {}, sent=("weight",)))
    begun = model.weight.item()
    for momentum in momenta:
        optimizer.param_groups[0]["momentum"] = momentum
        model.weight.grad = torch.full_like(model.weight, 2.0)
        optimizer.step()
    assert steering.mean_gradient(np.array([model.weight.item() - begun])) == pytest.approx([2.0])


@pytest.mark.parametrize("unscaled", [True, False])
def test_gradients_that_a_fused_step_would_unscale_are_refused(unscaled: bool) -> None:
    """The term was divided by the scale, 65,536, too."""
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    task = LocalTask("a", model, None, optimizer, None, lambda task: {}, sent=("weight",))
    Steering(task, shift=np.ones(1))
    begun, scaler = model.weight.item(), torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.zeros(1, 1)).sum()).backward()
    if unscaled:
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        assert model.weight.item() - begun == pytest.approx(-0.1)
    else:
        with pytest.raises(Misuse, match=r"call scaler\.unscale_"):
            scaler.step(optimizer)


def test_sparse_gradients_are_refused_in_a_sentence() -> None:
    model = torch.nn.Embedding(3, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    task = LocalTask("a", model, None, optimizer, None, lambda task: {}, sent=("weight",))
    Steering(task, pull=0.1)
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(Misuse, match="sparse=False"):
        optimizer.step()


def test_a_parameter_that_joins_within_a_round_is_refused_in_a_sentence() -> None:
    model = torch.nn.Linear(1, 1).double()
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    Steering(LocalTask("a", model, None, optimizer, None, lambda task: {}, sent=("weight", "bias")))
    optimizer.add_param_group({"params": [model.bias]})
    model(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
    with pytest.raises(Misuse, match="joined the optimizer after the round began"):
        optimizer.step()


def test_ifca_chooses_by_the_users_criterion_also_where_labels_are_numbers() -> None:
    kinds = [(x, y) for x, y in problem((12,) * 6)]
    data = [(x, x @ np.array([1.0, -1.0, 0.5]) * (1 if i < 3 else -1)) for i, (x, _) in enumerate(kinds)]
    run = federation(data, IFCA(2, least=2, reseed=0.1))
    run.fit(40)
    found = [copy.weight.detach().numpy().ravel() for copy in run.model.copies]
    assert max(float(np.dot(found[0], found[1])), -9.0) < 0
