"""Rows by torch's expanded weights behind a model of Opacus', with what hooks on it have: turned on and off, and told
each batch's size. What checks the rows belongs to `dp.sample.audit`.
"""

from functools import partial
from typing import Any

import torch
from opacus.grad_sample import GradSampleModuleExpandedWeights
from torch import nn

from dp.sample.hooks import reaches


class Expanded:
    """Puts `grad_sample` on the parameters of `model`, of which `wrapped` is what the loop calls. reduction: "mean" or
    "sum", of the loss over the batch.

    Expanded weights see a sum always: a mean's gradient is multiplied before it comes to them (`times`), or where the
    loop differentiates in a way that is not seen, its rows are (`settle`).
    """

    def __init__(self, model: nn.Module, reduction: str) -> None:
        self.model, self.reduction = model, reduction
        self.wrapped = GradSampleModuleExpandedWeights(model, loss_reduction="sum")
        self._handles: list[Any] = []
        self._listening = True
        self.start(0)

    def start(self, size: int) -> None:
        """A batch of this many examples goes to the loop."""
        self._size, self._multiplied = size, False

    def times(self, loss: torch.Tensor) -> int:
        """What the gradient of the loop's loss is multiplied by before it goes to the model."""
        self._multiplied = self._listening and self.reduction == "mean" and reaches(loss, self.model)
        return self._size if self._multiplied else 1

    def settle(self) -> None:
        """The loop steps: rows are those of single examples' losses from here on."""
        if not self._listening or self._multiplied or self.reduction == "sum":
            return
        for p in self.model.parameters():
            if isinstance(getattr(p, "grad_sample", None), torch.Tensor):
                p.grad_sample = p.grad_sample * self._size  # type: ignore[attr-defined]  # hung on it

    def listen(self, listen: bool, size: int, reduction: str) -> None:
        """Make rows in the next backward pass, or let autograd alone work."""
        while self._handles:
            self._handles.pop().remove()
        for p in self.model.parameters():
            p.grad_sample = p.total = None  # type: ignore[attr-defined]  # hung on it
            if not listen and p.requires_grad:
                self._handles.append(p.register_hook(partial(_kept, p)))  # type: ignore[no-untyped-call]  # untyped in torch
        self.reduction, self._listening = reduction, listen
        self.start(size)
        if listen:
            self.wrapped.__dict__.pop("forward", None)
        else:
            self.wrapped.__dict__["forward"] = self.model.forward

    def cleanup(self) -> None:
        """Take everything off the model."""
        self.wrapped.cleanup()


def _kept(p: Any, grad: torch.Tensor) -> None:
    p.total = grad.detach().clone() if p.total is None else p.total + grad.detach()
