"""A measured lower bound on epsilon for a user's own private loop: one run with canaries among the data.

Each canary is an example with disturbed inputs, in or out by a fair coin. The loop trains privately; the
adversary sees what every step released and all weights, and guesses the coins from how well each canary's own
gradient fits (Steinke, Nasr and Jagielski, NeurIPS 2023: `dp.audit.one_run`). What it costs is told before.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from dp.accountants import epsilon
from dp.audit.canaries import CanaryAudit
from dp.audit.one_run import one_run_epsilon
from dp.sample.audit.given import LossStep, loader_of
from dp.sample.engine import ClientEngine
from dp.sample.layer import SampleDP
from dp.sample.options import Clipping
from protocols.errors import Misuse
from protocols.layers import RunFacts
from protocols.randomness import SecureRandom, SystemRandom

OTHERS = 64
"""Of the user's own examples, beside the canaries."""
COORDINATES = 50_000
"""Of the gradient that the adversary looks at, at most; a random choice of them in larger models."""
MULTIPLIER, RATE, STEPS = 12.0, 0.5, 4
"""Of the noise, of a batch, and how many steps: a run of little epsilon, which few right guesses refute."""
DELTA, ALARM = 1e-10, 1e-3
FEWEST = 40
"""Canaries: of fewer, not even right guesses alone exceed what the run is accounted at."""


@dataclass(frozen=True)
class CanaryRun:
    """A run to come: canaries and other examples, private steps at a rate and a noise multiplier."""

    model: nn.Module
    step: LossStep
    collate: Any
    canaries: list[Any]
    others: list[Any]
    clipping: Clipping
    guesses: int
    seconds: float

    @property
    def denominator(self) -> float:
        """What the loop divides a step's sum by."""
        return RATE * (len(self.canaries) + len(self.others))

    def __str__(self) -> str:
        return (
            f"{len(self.canaries)} canaries beside {len(self.others)} examples, {STEPS} private steps at rate "
            f"{RATE:g}, noise multiplier {MULTIPLIER:g}: about {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Bound:
    """What a run showed beside what its steps are accounted at, both at one delta."""

    stated: float
    measured: CanaryAudit
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether the measured bound is at most the stated epsilon."""
        return not self.measured.refutes(self.stated)

    def to_json(self) -> dict[str, Any]:
        """All of it, in plain values."""
        m = self.measured
        return {"stated": self.stated, "measured": m.epsilon, "delta": m.delta, "alarm": m.alarm,
                "canaries": m.canaries, "guesses": m.guesses, "correct": m.correct, "sound": self.sound,
                "seconds": round(self.seconds, 2)}  # fmt: skip

    def __str__(self) -> str:
        m = self.measured
        return (
            f"canaries: measured at least {m.epsilon:.2f}, accounted {self.stated:.2f} at delta {m.delta:g} "
            f"({m.correct} of {m.guesses} guesses right, false alarms {m.alarm:g}, {self.seconds:.1f} s)"
        )


def estimate(
    model: nn.Module,
    loss: Any,
    batch: Any,
    *,
    gradients: str = "hooks",
    clip: float = 1.0,
    canaries: int = 100,
) -> CanaryRun:
    """Plan a run and time one example's gradient. Arguments as for `per_example`.

    canaries: at least 40. The run is accounted at an epsilon of about 0.5, which a loop without noise, or whose
    gradients are many clips long, refutes with 100 canaries or more; fewer can miss it, and so do models of fewer
    parameters than examples and canaries. A sound loop is refuted with probability `ALARM`. Raises Misuse where no
    guesses of so few canaries could refute anything.
    """
    if canaries < FEWEST:
        raise Misuse(
            f"expected at least {FEWEST} canaries, of which right guesses can refute, got {canaries}"
        )
    loader, step = loader_of(batch), LossStep(loss)
    data: Any = loader.dataset
    generator = torch.Generator().manual_seed(0)
    made = [_disturbed(data[at % len(data)], generator) for at in range(canaries)]
    others = [data[at] for at in range(min(OTHERS, len(data)))]
    began = time.perf_counter()
    for each in made[:3]:
        _gradient(model, step, loader.collate_fn([each]))
    single = (time.perf_counter() - began) / 3
    clipping, work = (
        Clipping(clip, gradients=gradients),
        single * STEPS * (canaries + len(others)) * (1 + RATE),
    )
    return CanaryRun(model, step, loader.collate_fn, made, others, clipping, 2 * canaries // 5, work)


def lower_bound(plan: CanaryRun) -> Bound:
    """Train once and guess. The model's parameters are put back. Raises what the loop raises."""
    began, source = time.perf_counter(), SystemRandom()
    inside = (np.frombuffer(source.bytes(len(plan.canaries)), dtype=np.uint8) & 1).astype(bool)
    kept = [p.detach().clone() for p in plan.model.parameters()]
    try:
        scores = _scores(plan, _trained(plan, inside, source))
    finally:
        with torch.no_grad():
            for p, before in zip(plan.model.parameters(), kept, strict=True):
                p.copy_(before)
    # Only presence is guessed: a canary that is in and that no batch drew looks like one that is out.
    right = int(np.sum(inside[np.argsort(scores, kind="stable")[-plan.guesses :]]))
    found = one_run_epsilon(len(inside), plan.guesses, right, DELTA, ALARM)
    audit = CanaryAudit(found, DELTA, ALARM, len(inside), plan.guesses, right)
    return Bound(_stated(plan), audit, time.perf_counter() - began)


def _stated(plan: CanaryRun) -> float:
    layer = SampleDP(noise_multiplier=MULTIPLIER)
    dims = sum(p.numel() for p in plan.model.parameters() if p.requires_grad)
    run = RunFacts(1, 1, 1, dimension=dims, delta=DELTA)
    return epsilon([layer.step_event(MULTIPLIER, RATE, 1, run)] * STEPS, DELTA, "rdp")


class _Watching(torch.optim.SGD):
    """Plain SGD that keeps the weights and the released gradient of every step."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.05)
        self.seen: list[tuple[list[torch.Tensor], torch.Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        given = [p for group in self.param_groups for p in group["params"]]
        released = torch.cat([p.grad.detach().double().reshape(-1).cpu() for p in given])
        self.seen.append(([p.detach().clone() for p in given], released))
        super().step()


def _trained(plan: CanaryRun, inside: NDArray[np.bool_], source: SecureRandom) -> _Watching:
    examples = [each for each, taken in zip(plan.canaries, inside, strict=True) if taken] + plan.others
    watching = _Watching([p for p in plan.model.parameters() if p.requires_grad])
    engine = ClientEngine(plan.clipping, MULTIPLIER, RATE, STEPS, random=source)
    engine.size(len(plan.canaries) + len(plan.others))
    data: Any = examples  # a list is a data set
    loader = DataLoader(data, batch_size=len(examples), collate_fn=plan.collate)
    attached = engine.begin(plan.model, watching, loader, plan.step.criterion)
    try:
        with engine.watched():
            engine.probe(lambda: plan.step.loop(attached))
            plan.step.loop(attached)
        engine.finish()
    finally:
        engine.abandon()
    return watching


def _scores(plan: CanaryRun, seen: _Watching) -> NDArray[np.float64]:
    """Each canary's share in what every step released, by ridge regression on all clipped gradients."""
    trained = [p for p in plan.model.parameters() if p.requires_grad]
    scores = np.zeros(len(plan.canaries))
    looked = torch.randperm(sum(p.numel() for p in trained))[:COORDINATES]
    for weights, released in seen.seen:
        with torch.no_grad():
            for p, value in zip(trained, weights, strict=True):
                p.copy_(value)
        rows = torch.stack([_clipped(plan, each)[looked] for each in plan.canaries + plan.others])
        alike = rows @ rows.T
        alike += (0.01 * alike.diagonal().mean() + 1e-30) * torch.eye(len(rows))
        shares = torch.linalg.solve(alike, rows @ (released[looked] * plan.denominator))
        scores += shares[: len(plan.canaries)].numpy()
    return scores


def _clipped(plan: CanaryRun, example: Any) -> torch.Tensor:
    row = _gradient(plan.model, plan.step, plan.collate([example]))
    if not row.isfinite().all():  # the loop counts it as zero, too
        return torch.zeros_like(row)
    return row * min(1.0, plan.clipping.start / max(float(row.norm()), 1e-30))


def _gradient(model: nn.Module, step: LossStep, batch: Any) -> torch.Tensor:
    trained = [p for p in model.parameters() if p.requires_grad]
    value = step(model, batch, step.criterion)
    rows = torch.autograd.grad(value, trained, allow_unused=True)
    flat = [torch.zeros_like(p) if row is None else row for p, row in zip(trained, rows, strict=True)]
    return torch.cat([row.detach().double().reshape(-1).cpu() for row in flat])


def _disturbed(example: Any, generator: torch.Generator) -> Any:
    """The example with noise three times its own spread on its floating point inputs, and its whole numbers in
    another order."""

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.dim():
            return leaf
        if leaf.is_floating_point():
            noise = torch.randn(leaf.shape, generator=generator).to(leaf)
            return leaf + 3 * (leaf.std(correction=0) + 0.1) * noise
        return leaf.reshape(-1)[torch.randperm(leaf.numel(), generator=generator)].reshape(leaf.shape)

    return torch.utils._pytree.tree_map(change, example)
