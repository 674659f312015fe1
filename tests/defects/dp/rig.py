"""How defects are looked for: one layer, sound or broken, driven until a check of `dp.audit` has a verdict.

`Case` names a broken variant, the check that catches it, and what it needs. Every check runs at a
false-alarm rate of 1e-11, so that all of them together raise one in less than 10^9 runs. The power that
docs/dp-audit.md states is measured by `test_power`, a slow test.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dp import ClientDP, DistributedDP, LocalDP
from dp.audit import Rehearsal, Verdict, check_fresh, check_noise, check_reach
from dp.sample.engine import ClientEngine
from dp.sample.options import Clipping
from protocols.layers import PrivacyLayer

ALARM = 1e-11
DIMS = 8192
CLIENTS, SURVIVORS = 10, 6
CLIP = 2.0

Make = Callable[[float], PrivacyLayer]


def sound_client(multiplier: float, kind: type[ClientDP] = ClientDP) -> PrivacyLayer:
    return kind(noise_multiplier=multiplier, clip=CLIP)


def sound_local(multiplier: float, kind: type[LocalDP] = LocalDP) -> PrivacyLayer:
    return kind(noise_multiplier=multiplier, clip=CLIP)


def sound_distributed(multiplier: float, kind: type[DistributedDP] = DistributedDP) -> PrivacyLayer:
    return kind(noise_multiplier=multiplier, clip=CLIP, min_survivors=SURVIVORS)


ZERO = [np.zeros(DIMS)] * CLIENTS


def noise_of(make: Make, rounds: int = 1) -> list[np.ndarray]:
    """Noise alone: every update is zero, as few clients as allowed survive.

    Noise that clients add is looked at as the server gets it: a rotation that changes every round would
    hide that the noise does not.
    """
    layer = make(1.0)
    rehearsal = Rehearsal(layer, CLIENTS, DIMS, rounds)
    look = rehearsal.release if isinstance(layer, ClientDP) else rehearsal.summed
    return [look(ZERO, came=SURVIVORS) for _ in range(rounds)]


def noise_verdict(make: Make) -> Verdict:
    """At noise multiplier 1 the deviation is one clip per coordinate: per client for `LocalDP`, whose noise adds up,
    and without any one client's share for `DistributedDP`, which each client knows of itself.
    """
    made = make(1.0)
    shares = SURVIVORS if isinstance(made, LocalDP) else 1
    if isinstance(made, DistributedDP):
        shares = SURVIVORS / (SURVIVORS - 1)
    released = Rehearsal(make(1.0), CLIENTS, DIMS).release(ZERO, came=SURVIVORS)
    return check_noise(released, CLIP * shares**0.5, ALARM)


def reach_verdict(make: Make) -> Verdict:
    """One client with an update 5 clips long, half of its square in the last coordinate (a tensor of rank
    0, say)."""
    multiplier = 0.01
    update = np.full(DIMS, 1 / np.sqrt(2 * (DIMS - 1)))
    update[-1] = 1 / np.sqrt(2)
    rehearsal = Rehearsal(make(multiplier), CLIENTS, DIMS)
    released = rehearsal.release([5 * CLIP * update, *ZERO[1:]], came=SURVIVORS)
    shares = SURVIVORS if isinstance(make(1.0), LocalDP) else 1
    return check_reach(released, update, CLIP * 1.01, multiplier * CLIP * shares**0.5, ALARM)


def fresh_verdict(make: Make) -> Verdict:
    """Two rounds of one run."""
    first, second = noise_of(make, rounds=2)
    return check_fresh(first, second, ALARM)


def unseeded_verdict(make: Make) -> Verdict:
    """The first round of two runs."""
    return check_fresh(noise_of(make)[0], noise_of(make)[0], ALARM)


# -- example level: a model whose gradient is its input, in blocks, so that every number that leaves is known --

BLOCKS, WIDTH = 8, 1024
EXAMPLES = 20


class Linear(nn.Module):
    """The sum of dot products of input blocks with weights that start at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, 1, bias=False) for _ in range(BLOCKS)])
        for block in self.blocks:
            nn.init.zeros_(block.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.split(WIDTH, dim=1)
        return torch.stack([block(part) for block, part in zip(self.blocks, parts, strict=True)]).sum(dim=0)


def sample_release(examples: np.ndarray, multiplier: float, steps: int = 1) -> list[np.ndarray]:
    """The noised sums that `steps` steps of plain SGD at rate 1 and learning rate 1 apply, in the
    gradient's unit."""
    model = Linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    data = torch.utils.data.TensorDataset(torch.tensor(examples, dtype=torch.float32))
    loader = torch.utils.data.DataLoader(data, batch_size=len(examples))
    engine = ClientEngine(Clipping(CLIP), multiplier, 1.0, steps)
    engine.size(len(examples))
    attached = engine.begin(model, optimizer, loader)
    released, before = [], weights(model)
    for (batch,) in attached.loader:
        attached.optimizer.zero_grad()
        attached.model(batch).mean().backward()
        attached.optimizer.step()
        released.append((before - weights(model)) * len(examples))
        before = weights(model)
    engine.finish()
    return released


def weights(model: Linear) -> np.ndarray:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()])


def sample_noise_verdict() -> Verdict:
    return check_noise(sample_release(np.zeros((EXAMPLES, DIMS)), 1.0)[0], CLIP, ALARM)


def sample_reach_verdict() -> Verdict:
    examples = np.zeros((EXAMPLES, DIMS))
    examples[0] = 50 * CLIP / np.sqrt(DIMS)
    released = sample_release(examples, 0.01)[0]
    return check_reach(released, examples[0], CLIP * 1.01, 0.01 * CLIP, ALARM)


def sample_fresh_verdict() -> Verdict:
    first, second = sample_release(np.zeros((EXAMPLES, DIMS)), 1.0, steps=2)
    return check_fresh(first, second, ALARM)


def sample_unseeded_verdict() -> Verdict:
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        runs.append(sample_release(np.zeros((EXAMPLES, DIMS)), 1.0)[0])
    return check_fresh(*runs, ALARM)


@dataclass(frozen=True)
class Case:
    """A broken variant by name, and the check that must catch it."""

    name: str
    verdict: Callable[[], Verdict]
