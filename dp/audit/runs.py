"""Canaries over a whole run with correlated noise: what all rows together show of one client.

The rows of noise are independent, so the best an adversary can do is to weigh each opened row by what the canary added
to it. Belongs here: runs of client-level layers. Example level is rehearsed by whoever has the loop (docs/dp-audit.md).
"""

import numpy as np

from dp.audit.canaries import audit_sum
from dp.audit.layers import LayerAudit, Rehearsal, Vector, beside
from dp.client import ClientDP
from dp.distributed import DistributedDP
from protocols.errors import Misuse
from protocols.randomness import SystemRandom


def audit_run(
    layer: ClientDP | DistributedDP,
    *,
    clients: int,
    rounds: int,
    norm: float,
    delta: float = 1e-10,
    alarm: float = 1e-6,
    guesses: int | None = None,
) -> LayerAudit:
    """Audit a whole run of a client-level layer with correlated noise: every client is a canary, the same one in each
    of its turns, in or zero by one fair coin.

    norm: of a canary; above the clip it tests the clipping too. Raises Misuse for a layer with independent noise, whose
    rounds `audit_layer` looks at one by one.

        audit_run(ClientDP(noise_multiplier=0.5, correlation="banded", min_separation=4), clients=400, rounds=8, norm=1)
    """
    correlation = layer.correlation
    if correlation is None or correlation.separation < 2:
        raise Misuse(f"{layer.name}: expected correlated noise; audit_layer is for independent rounds")
    turns, strategy = correlation.separation, correlation.strategy(rounds)
    together = isinstance(layer, DistributedDP)  # all send in every row; who has its turn adds something new
    rehearsal = Rehearsal(layer, clients, clients, rounds, turns=1 if together else turns)
    pattern = np.zeros((rounds, clients))
    for client in range(clients):
        pattern[client % turns :: turns, client] = 1.0
    added = strategy.matrix() @ pattern

    def release(updates: list[Vector]) -> Vector:
        decoded = np.array([rehearsal.release(updates) for _ in range(rounds)])
        opened = strategy.matrix() @ decoded
        score: Vector = (opened * added).sum(axis=0) / (added**2).sum(axis=0)
        return score

    measured = audit_sum(
        release, clients, norm, delta=delta, random=SystemRandom(), alarm=alarm, guesses=guesses
    )
    stated = [fact for number in range(1, rounds + 1) for fact in rehearsal.planned(number)]
    return beside(layer, stated, measured)
