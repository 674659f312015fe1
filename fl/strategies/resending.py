"""An update that leaves its client in several rounds of one step: what the client keeps of it, and what it insists on.

The rounds of a step show one update at several points. They are over the same clients, all of whom are in every total
but the first: at two points close to one another, a client less would be told by the difference. Who was in the first
total a client knows by the server's word alone. What does not belong
here: what is computed at a point (the strategy), who may send again at all (`protocols.policy`).
"""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl.strategies.base import Floats
from fl.tensors import to_tree
from protocols.errors import PolicyRefusal, SpentUpdate, refuse
from protocols.layers import Compute, LocalTask, RoundFacts
from protocols.party_state import PartyState

STEP = "step"
"""Under this name a strategy broadcasts the round in which the step began."""
MODEL, ROSTER, POINT = "model/", "roster", "point/"
NOBODY = np.zeros(0, np.uint8)


class Resending:
    """One client's part in one round of a step. owner: the strategy's name. longest: rounds of a step.

    Raises ProtocolViolation for a step that would be longer.
    """

    def __init__(self, facts: RoundFacts, owner: str, longest: int) -> None:
        self.facts, self.owner = facts, owner
        self.step = int(facts.number_for(owner, STEP, facts.number))
        self.first = self.step == facts.number
        names = "\0".join(facts.clients).encode()
        self.roster = NOBODY if self.first else np.frombuffer(hashlib.sha256(names).digest(), np.uint8)
        if not 0 <= facts.number - self.step < longest:
            raise refuse(
                f"a step takes {longest} rounds, and the server says that round {facts.number} is of the step of round "
                f"{self.step}"
            )

    def run(self, compute: Compute, task: LocalTask) -> dict[str, float]:
        """Train in a step's first round; later put back what was trained there. Raises as `_kept` does."""
        state, reported = PartyState.of(self.facts, self.owner), dict[str, float]()
        if self.first:
            reported = compute(task)
        else:
            kept, own = self._kept(state), task.model.state_dict()
            for name in task.sent:
                own[name].copy_(torch.from_numpy(np.array(kept[MODEL + name])))
        state.keep({**_sent(task), ROSTER: self.roster})
        return reported

    def _kept(self, state: PartyState) -> dict[str, NDArray[Any]]:
        """Return what was kept of the step. Raises PolicyRefusal where a round of it did not close with this client, or
        the server asks other clients than in the one before.
        """
        kept = dict(state.arrays())
        others = self.step < state.closed and not np.array_equal(kept[ROSTER], self.roster)
        if state.closed != self.facts.number - 1 or others:
            raise PolicyRefusal(
                f"{self.owner}: an update goes on while every round of its step closed with the same clients, and the "
                "one before did not"
            )
        return kept

    def source(self, task: LocalTask, vector: Floats) -> bytes:
        """Return what names the update behind `vector`, and note that it leaves.

        Raises SpentUpdate, where no layer noises and charges what leaves, if it left for the same point before, unless
        both sums are over all of the same clients or give no total: then they are one sum.
        """
        trained, whole = hashlib.sha256(), self.roster.tobytes()
        for array in _sent(task).values():
            trained.update(array.tobytes())
        point = POINT + hashlib.sha256(trained.digest() + vector.tobytes()).hexdigest()
        if self.facts.store is None or task.broken_is_zero:
            return trained.digest()
        with self.facts.store.transaction() as t:
            before = t.get(point)
            if before is not None and not (whole and before == whole):
                raise SpentUpdate(
                    f"{self.owner}: this update left for this point once, and is not sent there again, to a sum of "
                    "other clients: the model did not move since, or that sum was given up"
                )
            t.put(point, whole)
        return trained.digest()


def _sent(task: LocalTask) -> dict[str, NDArray[Any]]:
    """The trained model's arrays that make up the update."""
    state = task.model.state_dict()
    return to_tree({MODEL + name: state[name] for name in task.sent})[0]
