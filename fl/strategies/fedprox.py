"""FedProx (Li et al., MLSys 2020, equation 2): FedAvg with a proximal term mu/2 |w - w_broadcast|^2 in the
local loss.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from fl.strategies.fedavg import FedAvg
from protocols.errors import Misuse
from protocols.layers import Compute, LocalTask, RoundFacts


class FedProx(FedAvg):
    """FedAvg whose local steps are pulled towards the broadcast model. mu: strength, >= 0; others as FedAvg."""

    name: ClassVar[str] = "fedprox"
    owns = frozenset({"optimizer"})

    def __init__(self, mu: float = 0.01, server_lr: float = 1.0, weighted: bool = True) -> None:
        super().__init__(server_lr, weighted)
        if not 0 <= mu < float("inf"):
            raise Misuse(f"expected mu >= 0, got {mu}")
        self.mu = mu

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def near(task: LocalTask) -> dict[str, float]:
            parameters = [p for group in task.optimizer.param_groups for p in group["params"]]
            with pulled(task.optimizer, {p: p.detach().clone() for p in parameters}, self.mu):
                return compute(task)

        return near


@contextmanager
def pulled(optimizer: Any, anchors: Mapping[Any, Any], strength: float) -> Iterator[None]:
    """While it lasts, add the gradient of strength/2 |w - anchor|^2 before every step of an optimizer. anchors: a
    parameter -> a tensor of its shape.
    """

    @torch.no_grad()
    def add_proximal_gradient() -> None:
        for parameter, anchor in anchors.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor, alpha=strength)

    def before_step(optimizer: Any, args: Any, kwargs: Any) -> Any:
        """A closure, `step(closure)`, makes the gradient within the step: then the pull is added there."""
        own, *given = args
        closure = given[0] if given else kwargs.get("closure")
        if closure is None:
            return add_proximal_gradient()

        def with_pull() -> Any:
            loss = closure()
            add_proximal_gradient()
            return loss

        return (own, with_pull), {}

    handle = optimizer.register_step_pre_hook(before_step)
    try:
        yield
    finally:
        handle.remove()
