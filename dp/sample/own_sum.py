"""A client's part of a distributed sum of gradients: its loss proven once, the exact sum of a secret batch each round.

No noise here, and no account: `dp.distributed` adds the client's share before anything leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.sample.audit.probe import Probed
from dp.sample.errors import tell_silent
from dp.sample.gradients import clipped_sum, prove
from protocols.errors import Misuse
from protocols.layers import LocalTask, RoundFacts


@dataclass
class OwnSum:
    """rate: an example's chance. examples: of all clients, public. clip: L2 norm. reduction: of the loss, where a check
    does not find it. physical_batch: most examples at once."""

    rate: float
    examples: int
    clip: float
    reduction: str
    physical_batch: int
    _probed: Probed | None = field(default=None, init=False)
    _proven: set[str] = field(default_factory=set, init=False)
    _scope: str = field(default="", init=False)

    def of(
        self, task: LocalTask, step: float, facts: RoundFacts, rows: list[int] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, float]]:
        """The sum over a secret batch, in steps and in the order of what is sent, and private figures. rows: the batch,
        where it is chosen already.

        Leaves the mean step in `task.result`. Examples without a finite gradient add nothing.
        Raises what `prove` raises in a client's first round, and what `clipped_sum` does.
        """
        loss = task.loss or (lambda model, batch: task.criterion(model(batch[0]), batch[1]))
        if facts.scope != self._scope:  # another run may have another loss
            self._probed, self._proven, self._scope = None, set(), facts.scope
        proven = facts.client in self._proven or self._prove(task, loss, facts)
        named, private = clipped_sum(
            task.model,
            loss,
            task.loader,
            rate=self.rate,
            clip=self.clip,
            step=step,
            random=facts.random,
            reduction=self.reduction,
            physical_batch=self.physical_batch if proven else 1,
            probed=self._probed,
            whose=facts.whose,
            rows=rows,
            criterion=task.loss or task.criterion,
        )
        scale = -step / (self.rate * self.examples)
        task.result = {name: total * scale for name, total in named.items()}
        return _in_state_order(task, named), private

    def _prove(self, task: LocalTask, loss: Any, facts: RoundFacts) -> bool:
        """Once per client and run; False where nothing can be checked: each example then passes alone."""
        if not len(task.loader.dataset):
            return False
        found = prove(
            task.model,
            loss,
            task.loader,
            self._probed,
            self.rate,
            self.physical_batch,
            task.loss or task.criterion,
        )
        if found is None:
            tell_silent(facts.whose)
            return False
        self._probed = found
        self._proven.add(facts.client)
        return True


def _in_state_order(task: LocalTask, named: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sums as one vector in the order and length of what is sent (without a list, of the model's floating-point
    state); zero where nothing is trained."""
    blocks, model = [], task.model
    places = {p.data_ptr() for name, p in model.named_parameters() if name in named and p.numel()}
    for name, tensor in model.state_dict().items():
        if name in task.sent if task.sent else tensor.is_floating_point():
            block = named.get(name)
            if block is None and tensor.numel() and tensor.data_ptr() in places:
                raise Misuse(
                    f"{name} shares its values with another parameter; give it its own, or train at client level"
                )
            blocks.append(np.zeros(tensor.numel(), np.int64) if block is None else block.reshape(-1))
    return np.concatenate(blocks)
