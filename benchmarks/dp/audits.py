"""Case `audits`: for each layer, the lower bound that one run of canaries measures, beside the epsilon it
states.

One round (one step for private training), every client or example a canary five clips long. The bounds are
far below the truth by nature; what they can show is that a statement is false.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from dp import ClientDP, DistributedDP, LocalDP
from dp.accountants import epsilon
from dp.audit import LayerAudit, audit_layer, audit_sum
from dp.events import Gaussian, Relation, Unit
from dp.sample.engine import ClientEngine
from dp.sample.options import Clipping
from protocols.layers import PrivacyLayer
from protocols.randomness import SystemRandom

DELTA = 1e-10


def measure(multiplier: float = 0.5, canaries: int = 1000, guesses: int = 200) -> dict[str, Any]:
    """Rows of layer, unit, relation, stated epsilon, measured bound and correct guesses, at delta 1e-10."""
    layers: dict[str, PrivacyLayer] = {
        "client-dp": ClientDP(noise_multiplier=multiplier),
        "local-dp": LocalDP(noise_multiplier=multiplier),
        "distributed-dp": DistributedDP(noise_multiplier=multiplier, min_survivors=canaries),
        "distributed-dp, skellam": DistributedDP(
            noise_multiplier=multiplier, min_survivors=canaries, noise="skellam"
        ),
    }
    found = {
        name: audit_layer(layer, clients=canaries, norm=5.0, guesses=guesses, delta=DELTA)
        for name, layer in layers.items()
    }
    found["sample-dp"] = private_training(multiplier, canaries, guesses)
    return {"rows": [_row(name, audit) for name, audit in found.items()], "delta": DELTA}


def _row(name: str, audit: LayerAudit) -> dict[str, Any]:
    return {
        "layer": name,
        "unit": str(audit.unit),
        "relation": str(audit.relation),
        "stated": audit.stated,
        "measured": audit.measured.epsilon,
        "correct": audit.measured.correct,
        "guesses": audit.measured.guesses,
        "alarm": audit.measured.alarm,
        "sound": audit.sound,
    }


def private_training(multiplier: float, canaries: int, guesses: int) -> LayerAudit:
    """One full-batch step on a linear model whose gradient is its input, read off the weights."""

    def release(examples: list[np.ndarray]) -> np.ndarray:
        return _one_step(np.array(examples), multiplier)

    measured = audit_sum(release, canaries, 5.0, delta=DELTA, random=SystemRandom(), guesses=guesses)
    event = Gaussian(noise_multiplier=multiplier, unit=Unit.EXAMPLE, relation=Relation.ADD_REMOVE)
    return LayerAudit("sample-dp", event.unit, event.relation, epsilon([event], DELTA, "rdp"), measured)


def _one_step(examples: np.ndarray, multiplier: float) -> np.ndarray:
    model = nn.Linear(examples.shape[1], 1, bias=False)
    nn.init.zeros_(model.weight)
    data = torch.utils.data.TensorDataset(torch.tensor(examples, dtype=torch.float32))
    loader = torch.utils.data.DataLoader(data, batch_size=len(examples))
    engine = ClientEngine(Clipping(1.0), multiplier, 1.0, 1)
    engine.size(len(examples))
    attached = engine.begin(model, torch.optim.SGD(model.parameters(), lr=1.0), loader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that inputs need no gradients; they do not
        for (batch,) in attached.loader:
            attached.optimizer.zero_grad()
            attached.model(batch).mean().backward()
            attached.optimizer.step()
    engine.finish()
    return -model.weight.detach().double().numpy().ravel() * len(examples)
