"""Counts the steps that were accounted against the steps that changed the model, and compares the model bit
by bit in between.

A loop that quietly builds its own optimizer, trains a copy or writes into the weights changes the model
outside an accounted step. The guard sees it at the next step, or at the end of the round, and then nothing
is sent. How many steps a round takes, and the optimizer's numbers, are public before it begins: a loop that takes
others, by what it saw of the data, is refused. Clipping and noise do not belong here.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import optimizer as every

from dp.sample.errors import UnaccountedStep
from dp.sample.memory import It, leaves, same

Snapshot = dict[str, torch.Tensor]


def snapshot(model: nn.Module) -> Snapshot:
    """A copy of every parameter and buffer, by name."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def difference(model: nn.Module, before: Snapshot) -> str | None:
    """The first parameter or buffer that differs from the copy in any bit (NaN equals NaN), or None."""
    return next(_differing(model, before), None)


def _differing(model: nn.Module, before: Snapshot) -> Iterator[str]:
    now = {name: tensor.detach() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    yield from sorted(now.keys() ^ before.keys())
    yield from (name for name in now if name in before and not same(now[name], before[name]))


def numbers(optimizer: Any, names: Mapping[int, str]) -> dict[str, Any]:
    """Every number of an optimizer's groups and state by name, its hooks, and which parameters require gradients.
    names: of the parameters, by id."""
    found: dict[str, Any] = {}
    for when in ("pre", "post"):
        hooks = (
            getattr(optimizer, f"_optimizer_step_{when}_hooks", {}),
            getattr(every, f"_global_optimizer_{when}_hooks"),
        )
        found[f"{when}-step hooks"] = [It(hook) for held in hooks for hook in held.values()]
    for at, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            held = [(It(p), p.requires_grad) for p in value] if key == "params" else value
            found[f"param_groups[{at}][{key!r}]"] = held
    for p, state in optimizer.state.items():
        for key, value in state.items() if isinstance(state, dict) else ():
            found[f"state[{names.get(id(p), '?')}][{key!r}]"] = value
    return found


def kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same as they are now, to be compared by value later."""
    return {name: leaves(value) for name, value in found.items()}


def raw_gradient(optimizer: Any, names: Mapping[int, str]) -> str | None:
    """A parameter that does not train and has a gradient all the same, by which torch would step it, or None."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    return next((names[id(p)] for p in held if not p.requires_grad and p.grad is not None), None)


def changed_number(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first name under which another value stands, or None. Without a state before, any may be there now."""
    known = any(name.startswith("state") for name in before)
    for name in [*before, *(name for name in now if known or not name.startswith("state"))]:
        if name not in before or name not in now or before[name] != leaves(now[name], copies=False):
            return name
    return None


@dataclass
class StepGuard:
    """One client's counters for the round under way: steps planned, batches drawn, steps accounted, steps that changed
    parameters."""

    planned: int = 0
    drawn: int = 0
    accounted: int = 0
    changed: int = 0
    pending: int = 0
    awaiting: bool = False
    _model: nn.Module | None = field(default=None, repr=False)
    _last: Snapshot = field(default_factory=dict, repr=False)

    def begin(self, model: nn.Module, planned: int) -> None:
        """Start a round of `planned` steps: from now on the model changes in accounted steps only."""
        self.planned = planned
        self.drawn = self.accounted = self.changed = self.pending = 0
        self.awaiting = False
        self._model, self._last = model, snapshot(model)

    def batch(self, size: int, *, first: bool, last: bool) -> None:
        """A (part of a) secret batch of `size` examples goes to the loop. Raises UnaccountedStep if the one
        before was left lying, or for one beyond the plan."""
        if self.awaiting and first:
            raise UnaccountedStep(
                f"batch {self.drawn} was drawn but no optimizer.step() followed; call the given optimizer "
                "once for every batch. To add up gradients of several batches, give the layer a larger batch_size, and "
                "physical_batch for its parts"
            )
        if first and self.drawn >= self.planned:
            raise UnaccountedStep(
                f"the round's {self.planned} planned steps are taken, and the loop draws another batch: take one pass "
                "over the loader in each call of the train function, and say local_epochs for more; nothing is sent"
            )
        self.drawn += int(last)
        self.pending += size
        self.awaiting = True

    def before_step(self, examples: int | None) -> None:
        """Check, before noise is added, that the gradients are those of the batch just drawn and the model
        is as it was left."""
        model = self._running()
        if not self.awaiting:
            raise UnaccountedStep(
                "optimizer.step() was called without a new batch from the given loader; its sampling is "
                "what the account rests on"
            )
        if examples is not None and examples > self.pending:
            raise UnaccountedStep(
                f"expected per-example gradients of the {self.pending} examples drawn, got {examples}; "
                "take examples from the given loader only, and one backward pass per batch"
            )
        name = difference(model, self._last)
        if name is not None:
            raise UnaccountedStep(changed_outside(name))

    def after_step(self, released: Collection[str]) -> None:
        """Count a step that was clipped, noised and handed to the user's optimizer. Raises UnaccountedStep if it moved
        anything but the parameters whose gradients were released."""
        model = self._running()
        moved = list(_differing(model, self._last))
        for name in moved:
            if name not in released:
                raise UnaccountedStep(changed_outside(name))
        self.accounted += 1
        self.changed += bool(moved)
        self._last = snapshot(model)
        self.part_done()

    def part_done(self) -> None:
        """The gradients of the examples drawn so far are in the sum."""
        self.pending, self.awaiting = 0, False

    def finish(self) -> int:
        """End the round and return the steps taken. Raises UnaccountedStep unless planned, drawn, accounted and
        changing steps agree."""
        name = difference(self._running(), self._last)
        if name is not None:
            raise UnaccountedStep(changed_outside(name))
        if not self.drawn == self.accounted == self.changed:
            raise UnaccountedStep(
                f"{self.drawn} batches were drawn, {self.accounted} steps were accounted and {self.changed} changed "
                "parameters; these must agree (call the given optimizer once per batch, with a learning rate above 0); "
                "nothing is sent"
            )
        if self.drawn != self.planned:
            raise UnaccountedStep(
                f"{self.drawn} of the round's {self.planned} planned steps were taken: a pass that is left before its "
                "end tells of the data by how many steps it took; go on to the loader's end in every call of the train "
                "function (fewer steps: fewer local_epochs or a larger batch_size); nothing is sent"
            )
        self._model, self._last = None, {}
        return self.accounted

    def _running(self) -> nn.Module:
        if self._model is None:
            raise UnaccountedStep(
                "the private optimizer works inside a round only; start one with the engine"
            )
        return self._model


def set_by_the_loop(name: str) -> str:
    """Why another number in the optimizer stops the round."""
    return (
        f"the optimizer's {name} is not what it was when the layer attached, or after its last step: a learning rate, "
        "momentum or state that the loop sets can follow losses or batches, and nothing clips or noises that. Give a "
        "schedule to the layer as a function of the step's number, SampleDP(schedule=lambda step: 0.999**step), and "
        "take torch's scheduler out of the loop; nothing is sent"
    )


def stepped_raw(name: str) -> str:
    """Why a gradient of a parameter that does not train stops the round."""
    return (
        f"{name} does not require gradients and has one at the step: the optimizer would move it by a gradient that is "
        "neither clipped nor noised. Let it train from the start, or keep it out of the optimizer, or set its .grad to "
        "None before optimizer.step(); nothing is sent"
    )


def changed_outside(name: str) -> str:
    """Why a change of this parameter or buffer stops the round."""
    return (
        f"{name} changed outside an accounted step: expected every change to come from the optimizer that the loop was "
        "given; a loop that builds its own optimizer, trains a copy or writes weights or buffers is not private; "
        "nothing is sent"
    )
