"""A term that a strategy adds to the gradient of every local step, and how far the steps that were taken reach.

The term follows what was broadcast, the model and what the client kept, never an example. It joins in the optimizer
that moves the weights, so after the noise of a layer that makes steps private. What does not belong here: a strategy,
states at the client.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl.strategies.base import Floats
from protocols.errors import Misuse
from protocols.layers import LocalTask


def require_sgd(name: str, optimizer: Any) -> None:
    """Raises Misuse, in the name of a strategy, for an optimizer whose steps are no weighted sums of gradients."""
    if not isinstance(optimizer, torch.optim.SGD):
        raise Misuse(
            f"{name} reads gradients out of how far the steps of torch.optim.SGD went (momentum included); the "
            f"optimizer is {type(optimizer).__name__}, which rescales them: give optimizer=lambda p: SGD(p, lr=...)"
        )


class Steering:
    """Steers a task's optimizer: every step's gradient g becomes g + pull (w - w_start) + shift.

    task: as the client begins with it, before any layer. pull: >= 0. shift: float64 [d] in the order of what is sent,
    None for none. Hooks stay: a task and its optimizer are made anew each round.

    reach: of SGD, by group and parameter: the sum over all gradients that the parameter had of what each moves it by.
    It is the sum of step sizes without momentum; with momentum m and K steps of lr the paper's |a|_1 times lr (Wang et
    al., NeurIPS 2020, section 4: lr (K - m (1 - m^K) / (1 - m)) / (1 - m)). A step in which a parameter has no gradient
    leaves it as it is, momentum included, and is not counted.
    """

    def __init__(self, task: LocalTask, pull: float = 0.0, shift: Floats | None = None) -> None:
        self.optimizer, self.pull = task.optimizer, pull
        self._names, groups = _names(task), self.optimizer.param_groups
        places = dict(self._names)
        self._starts = [[p.detach().clone() for p in g["params"]] for g in groups] if pull else None
        self._shift = None
        if shift is not None:
            at = [[(places.get(id(p)), p) for p in g["params"]] for g in groups]
            self._shift = [[_like(shift[place], p) if place else None for place, p in group] for group in at]
        self.reach, self._speed = ([[0.0] * len(g["params"]) for g in groups] for _ in range(2))
        self._first = [0.0] * len(groups)
        self.optimizer.register_step_pre_hook(self._before)

    def moved(self, size: int) -> NDArray[np.bool_]:
        """Return which of a flat vector's coordinates (bool [d]) the steps moved."""
        return self._over(np.ones(size)) > 0

    def steps(self) -> float:
        """Return |a|_1 of the first group of parameters that moves, in its first step's size over what momentum makes
        of it: the number of steps, where all are alike; 0 where none moves.
        """
        for group, first, reach in zip(self.optimizer.param_groups, self._first, self.reach, strict=True):
            if first:
                return max(reach) * (1 - (group.get("momentum") or 0.0)) / first
        return 0.0

    def mean_gradient(self, difference: Floats) -> Floats:
        """Return minus a difference over the reach of the steps (float64 [d]): the mean of the gradients that the steps
        went by, the term included, each weighted by how far it moved the weights; 0 where no step moves.
        """
        return self._over(-difference)

    def _over(self, vector: Floats) -> Floats:
        pairs = zip(self.optimizer.param_groups, self.reach, strict=True)
        reach = {id(p): far for group, own in pairs for p, far in zip(group["params"], own, strict=True)}
        found = np.zeros_like(vector)
        for key, at in self._names:
            if far := reach.get(key):
                found[at] = vector[at] / far
        return found

    def flat(self, tensors: Mapping[int, torch.Tensor], size: int) -> Floats:
        """Return tensors, by id of their parameter, as a flat vector (float64 [d]), 0 elsewhere."""
        found = np.zeros(size)
        for key, at in self._names:
            if (tensor := tensors.get(key)) is not None:
                real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
                found[at] = real.detach().cpu().double().reshape(-1).numpy()
        return found

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """A closure, `step(closure)`, makes the gradient within the step: then the term joins there. Raises Misuse for
        gradients that a GradScaler leaves to a fused step to unscale.
        """
        if getattr(optimizer, "grad_scale", None) is not None:
            raise Misuse(
                "GradScaler: a fused optimizer divides gradients within its step, and what the strategy adds to them "
                "too: call scaler.unscale_(optimizer) before scaler.step(optimizer), or take fused=False"
            )
        own, *given = args
        closure = given[0] if given else kwargs.get("closure")
        if closure is None:
            return self._steer()

        def steered() -> Any:
            loss = closure()
            self._steer()
            return loss

        return (own, steered), {}

    @torch.no_grad()
    def _steer(self) -> None:
        groups = self.optimizer.param_groups
        if [len(group["params"]) for group in groups] != [len(reach) for reach in self.reach]:
            raise Misuse(
                "a parameter joined the optimizer after the round began, and the strategy has no start value of it: "
                "give the optimizer all parameters, and let those that wait have requires_grad=False"
            )
        for at, group in enumerate(groups):
            for place, p in enumerate(group["params"]):
                if p.grad is not None:
                    self._count(at, place, group)
                    self._add(at, place, p)

    def _count(self, at: int, place: int, group: Mapping[str, Any]) -> None:
        lr, momentum = float(group.get("lr", 0.0)), float(group.get("momentum") or 0.0)
        before = self._speed[at][place]
        fresh = 1.0 - float(group.get("dampening") or 0.0) if momentum and before else 1.0
        speed = momentum * before + fresh
        if momentum:  # a step without leaves torch's buffer as it is
            self._speed[at][place] = speed
        self.reach[at][place] += lr * (1.0 + momentum * speed if group.get("nesterov") else speed)
        self._first[at] = self._first[at] or lr

    def _add(self, at: int, place: int, p: torch.Tensor) -> None:
        assert p.grad is not None
        if p.grad.is_sparse and (self._starts is not None or self._shift is not None):
            raise Misuse(
                "the strategy adds to every coordinate of a gradient, and one is sparse: take sparse=False"
            )
        if self._starts is not None:
            p.grad.add_(p - self._starts[at][place], alpha=self.pull)
        if self._shift is not None and (shift := self._shift[at][place]) is not None:
            p.grad.add_(shift)


def _names(task: LocalTask) -> list[tuple[int, slice]]:
    """Return where each parameter, by id, lies in the flat vector: a shared one under each of its names, in order."""
    names = dict(task.model.named_parameters(remove_duplicate=False))
    at, found, state = 0, list[tuple[int, slice]](), task.model.state_dict()
    for name in task.sent:
        size = state[name].numel() * (2 if state[name].is_complex() else 1)
        if name in names:
            found.append((id(names[name]), slice(at, at + size)))
        at += size
    return found


def _like(part: Floats, like: torch.Tensor) -> torch.Tensor:
    """Return a stretch of a flat vector as a tensor like a parameter."""
    values = torch.from_numpy(np.array(part))
    shaped = (
        torch.view_as_complex(values.reshape(*like.shape, 2))
        if like.is_complex()
        else values.reshape(like.shape)
    )
    return shaped.to(like)
