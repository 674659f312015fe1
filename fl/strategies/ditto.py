"""Ditto (Li, Hu, Beirami and Smith, ICML 2021, Algorithm 1): a model of each client's own, held near the shared one.

    shared:    w(t+1) = w(t) + the mean of the clients' differences, as in FedAvg
    personal:  v_k <- v_k - lr (grad F_k(v_k) + strength (v_k - w(t)))

The personal model begins as the first shared one that the client is shown, stays in the client's own store and changes
nothing that is sent: the clip of a layer covers what travels. `fl.personal` reads it.
"""

from copy import deepcopy
from typing import Any

import torch

from fl.strategies.fedavg import FedAvg
from fl.strategies.steering import Steering
from fl.tensors import to_tree
from protocols.errors import Misuse
from protocols.layers import Compute, LocalTask, RoundFacts
from protocols.party_state import PartyState


class Ditto(FedAvg):
    """FedAvg that also trains a personal model at every client, held near the shared one (Li et al., ICML 2021,
    Algorithm 1). `fl.personal.model_of` reads it.

    - strength: the paper's lambda, >= 0: how strongly the shared model pulls; 0 leaves each by itself (default:
      0.1).
    - epochs: passes of the client's loop for its personal model in a round, >= 1 (default: 1).
    - server_lr: factor on the mean difference, > 0 (default: 1, the plain mean).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        federation = Federation(make, loaders, strategy=Ditto(0.5), privacy=[SecAggPlus()])
        federation.fit(rounds=2)
        fl.personal.model_of(federation, "a")
    """

    name = "ditto"
    owns = frozenset({"optimizer"})
    keeps_state = True
    beyond_examples = "its personal models are trained on examples without noise and kept from round to round"

    def __init__(
        self, strength: float = 0.1, epochs: int = 1, server_lr: float = 1.0, weighted: bool = True
    ) -> None:
        super().__init__(server_lr, weighted)
        if not 0 <= strength < float("inf") or epochs < 1:
            raise Misuse(f"expected strength >= 0 and epochs >= 1, got {strength} and {epochs}")
        self.strength, self.epochs = strength, epochs

    def require(self, optimizer: Any) -> None:
        self.require_descent(optimizer)

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def both(task: LocalTask) -> dict[str, float]:
            shown, fresh = _values(task), deepcopy(task.optimizer.state_dict())
            reported = compute(task)
            trained, state = _values(task), PartyState.of(facts, self.name)
            task.optimizer.load_state_dict(fresh)
            self._personal(task, shown, state)
            task.model.load_state_dict(trained)
            return reported

        return both

    def _personal(self, task: LocalTask, shown: dict[str, Any], state: PartyState) -> None:
        """Train this client's own model from where it was, in the place of the shared one, and keep it."""
        kept = {name: torch.from_numpy(array.copy()) for name, array in state.arrays().items()}
        task.model.load_state_dict(shown)
        Steering(task, pull=self.strength)  # towards the shared model, wherever the steps begin
        task.model.load_state_dict(shown | kept)
        for _ in range(self.epochs):
            task.run(task)
        state.keep(to_tree(task.model.state_dict())[0])


def _values(task: LocalTask) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in task.model.state_dict().items()}
