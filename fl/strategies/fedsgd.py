"""FedSGD (McMahan et al., AISTATS 2017, section 2): one gradient per client and round, one step of the
server.

The client's optimizer is replaced by one that only collects: each `step()` of the user's loop adds the
batch's gradient and leaves the weights where they are. What the client contributes is minus the mean of
these gradients. BatchNorm statistics, if any, move as the loop moves them.
"""

from collections.abc import Iterable
from typing import Any

import torch

from fl.strategies.base import Floats, Strategy
from protocols.errors import require
from protocols.layers import Compute, LocalTask, RoundFacts


class FedSGD(Strategy):
    """Gradient descent at the server on the clients' mean gradient (McMahan et al., AISTATS 2017, section 2).

    - lr: the server's learning rate, > 0 (default: 0.1).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedSGD(lr=0.5), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedsgd"
    owns = frozenset({"optimizer"})
    averages = False

    def __init__(self, lr: float = 0.1, weighted: bool = True) -> None:
        require(0 < lr < float("inf"), "lr > 0", lr)
        self.lr = lr
        self.weighted = weighted

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def collect(task: LocalTask) -> dict[str, float]:
            task.optimizer = collector = GradientCollector(task.model.parameters())
            task.epochs = 1
            metrics = compute(task)
            collector.contribute()
            return metrics

        return collect

    def step(self, mean: Floats) -> Floats:
        return self.lr * mean


class GradientCollector(torch.optim.Optimizer):
    """An optimizer that adds gradients up; `contribute` moves the weights by minus their mean, once."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        super().__init__(list(parameters), {})
        self.sums = [[torch.zeros_like(p) for p in group["params"]] for group in self.param_groups]
        self.batches = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # it returns no loss: nothing was moved
        if closure is not None:
            with torch.enable_grad():
                closure()
        self.batches += 1
        for group, sums in zip(self.param_groups, self.sums, strict=True):
            for parameter, total in zip(group["params"], sums, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad

    def means(self) -> dict[torch.Tensor, torch.Tensor]:
        """Return the mean gradient of each parameter."""
        return {
            parameter: total / max(self.batches, 1)
            for group, sums in zip(self.param_groups, self.sums, strict=True)
            for parameter, total in zip(group["params"], sums, strict=True)
        }

    @torch.no_grad()
    def contribute(self) -> None:
        for parameter, mean in self.means().items():
            parameter -= mean


def gradients(task: LocalTask) -> dict[int, torch.Tensor]:
    """Return the mean gradient of one pass at the broadcast model, by id of parameter; the task is as it was."""
    optimizer, epochs = task.optimizer, task.epochs
    kept = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.optimizer = collector = GradientCollector(task.model.parameters())
    task.epochs = 1
    task.run(task)
    task.optimizer, task.epochs = optimizer, epochs
    task.model.load_state_dict(kept)
    task.model.zero_grad()
    return {id(parameter): mean for parameter, mean in collector.means().items()}
