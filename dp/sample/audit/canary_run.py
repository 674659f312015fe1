"""A measured lower bound on epsilon for a user's own private loop: one run with canaries among the data.

Each canary is an example with disturbed inputs, in or out by a fair coin. The loop trains privately; the
adversary sees what every step released and all weights, and guesses the coins from how well each canary's own
gradient fits (Steinke, Nasr and Jagielski, NeurIPS 2023: `dp.audit.one_run`). What it costs is told before.
"""

import copy
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from dp.sample.audit.steady import steady
from dp.sample.engine import ClientEngine
from dp.sample.layer import SampleDP
from dp.sample.options import Clipping
from dp.sample.validation import validate
from protocols.errors import Misuse
from protocols.layers import RunFacts
from protocols.randomness import SecureRandom, SystemRandom

OTHERS = 64
"""Of the user's own examples, beside the canaries."""
COORDINATES = 50_000
"""Of the gradient that the adversary looks at, at most; a random choice of them in larger models."""
MULTIPLIER, RATE, STEPS = 24.0, 0.5, 4
"""Of the noise, of a batch, and how many steps: a run of little epsilon, which few right guesses refute."""
DELTA, ALARM = 1e-10, 1e-3
APART = 0.9
"""Share of the canaries with a gradient of its own, at least: of copies fewer guesses than it takes are right."""
FEWEST = 60
"""Canaries, a quarter of which is guessed: of fewer, right guesses alone do not exceed what the run is accounted at."""


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

    canaries: at least 60. The run is accounted at an epsilon of about 0.25, which most loops without noise, or whose
    gradients are many clips long, refute with 100 canaries or more. Missed is noise that is merely too small, by
    a factor of twenty, and a loop whose examples' gradients are hardly told apart: fewer parameters, or fewer
    independent gradients, than canaries and examples. A sound loop is refuted with probability `ALARM`. Raises Misuse
    where no guesses of so few canaries could refute anything, UnsupportedModule as the layer.
    """
    if canaries < FEWEST:
        raise Misuse(
            f"expected at least {FEWEST} canaries, of which right guesses can refute, got {canaries}"
        )
    validate(model, gradients)
    loader, step = loader_of(batch), LossStep(loss)
    data: Any = loader.dataset
    generator = torch.Generator().manual_seed(0)
    drawn = [data[at % len(data)] for at in range(canaries)]
    made = [_disturbed(each, drawn, generator) for each in drawn]
    others = [data[(canaries + at) % len(data)] for at in range(min(OTHERS, len(data)))]
    began = time.perf_counter()
    with _still(model):
        for each in made[:3]:
            _gradient(model, step, loader.collate_fn([each]))
    single = (time.perf_counter() - began) / 3
    clipping = Clipping(clip, gradients=gradients)
    work = single * (canaries + STEPS * (canaries + len(others)) * (1 + RATE))
    return CanaryRun(model, step, loader.collate_fn, made, others, clipping, canaries // 4, work)


def lower_bound(plan: CanaryRun) -> Bound:
    """Train once, without dropout, and guess. The model is put back, and the global random numbers. Raises Misuse where
    canaries' gradients are copies or drawn at random, and what the loop raises."""
    began, source = time.perf_counter(), SystemRandom()
    inside = (np.frombuffer(source.bytes(len(plan.canaries)), dtype=np.uint8) & 1).astype(bool)
    with _still(plan.model):
        _told_apart(plan)
        scores = _scores(plan, _trained(plan, inside, source))
    # Only presence is guessed: a canary that is in and that no batch drew looks like one that is out.
    right = int(np.sum(inside[np.argsort(scores, kind="stable")[-plan.guesses :]]))
    found = one_run_epsilon(len(inside), plan.guesses, right, DELTA, ALARM)
    audit = CanaryAudit(found, DELTA, ALARM, len(inside), plan.guesses, right)
    return Bound(_stated(plan), audit, time.perf_counter() - began)


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """No dropout, for an example's gradient is looked for as it was drawn, also where the loss calls `model.train()`.
    Weights, their `.grad`, modes and the global random numbers are put back."""
    kept = [(p, p.detach().clone(), p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with steady():
            yield
    finally:
        _put_back([p for p, _, _ in kept], [value for _, value, _ in kept])
        for p, _, gradient in kept:
            p.grad = gradient
        for module, mode in modes:
            module.training = mode


def _told_apart(plan: CanaryRun) -> None:
    """Raises Misuse where no guess could be right: copies among the canaries, or a gradient that is drawn."""
    made = (_gradient(plan.model, plan.step, plan.collate([each])) for each in plan.canaries)
    apart = len({hash(row.numpy().tobytes()) for row in made})
    if apart < APART * len(plan.canaries):
        raise Misuse(
            f"expected canaries with gradients of their own, got {apart} different ones of {len(plan.canaries)}, so "
            "that no guess tells a sound loop from another: give more examples, whose inputs are tensors, arrays or "
            "numbers and whose loss is not zero, or ask for no canaries"
        )
    for each in plan.canaries[:3]:
        first, again = (_gradient(plan.model, plan.step, plan.collate([each])) for _ in range(2))
        if (first - again).norm() > 1e-3 * first.norm():
            raise Misuse(
                "expected an example to have the same gradient each time, got another: model or loss draw random "
                "numbers beside dropout, which hide canaries. Audit them without, or ask for no canaries"
            )


def _stated(plan: CanaryRun) -> float:
    layer = SampleDP(noise_multiplier=MULTIPLIER)
    dims = sum(p.numel() for p in plan.model.parameters() if p.requires_grad)
    run = RunFacts(1, 1, 1, dimension=dims, delta=DELTA)
    return epsilon([layer.step_event(MULTIPLIER, RATE, 1, run)] * STEPS, DELTA, "rdp")


class _KeepingSGD(torch.optim.SGD):
    """Plain SGD that keeps the weights and the released gradient of every step."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.05)
        self.seen: list[tuple[list[torch.Tensor], torch.Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        given = [p for group in self.param_groups for p in group["params"]]
        released = torch.cat([p.grad.detach().double().reshape(-1).cpu() for p in given])
        self.seen.append(([p.detach().clone() for p in given], released))
        super().step()


def _trained(plan: CanaryRun, inside: NDArray[np.bool_], source: SecureRandom) -> _KeepingSGD:
    examples = [each for each, taken in zip(plan.canaries, inside, strict=True) if taken] + plan.others
    watching = _KeepingSGD(_parameters(plan.model))
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


def _scores(plan: CanaryRun, seen: _KeepingSGD) -> NDArray[np.float64]:
    """Each canary's share in what every step released, by ridge regression on all clipped gradients."""
    trained = _parameters(plan.model)
    scores = np.zeros(len(plan.canaries))
    looked = torch.randperm(sum(p.numel() for p in trained))[:COORDINATES]
    for weights, released in seen.seen:
        _put_back(trained, weights)
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
    trained = _parameters(model)
    value = step(model, batch, step.criterion)
    rows = torch.autograd.grad(value, trained, allow_unused=True)
    flat = [torch.zeros_like(p) if row is None else row for p, row in zip(trained, rows, strict=True)]
    return torch.cat([row.detach().double().reshape(-1).cpu() for row in flat])


def _parameters(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _put_back(parameters: list[nn.Parameter], values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)


def _disturbed(example: Any, drawn: list[Any], generator: torch.Generator) -> Any:
    """The example with noise three times its own spread on its floating point inputs, and its whole numbers drawn
    again from among themselves; where that changes nothing, with each of its parts from one of the `drawn` examples."""
    moved = False

    def noisy(leaf: Any, path: tuple[Any, ...]) -> Any:
        nonlocal moved
        if isinstance(leaf, list):
            return noisy(np.array(leaf), path).tolist()
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
            return noisy(torch.tensor(leaf), path).numpy()
        if not isinstance(leaf, torch.Tensor) or not leaf.dim():
            return leaf
        if leaf.is_floating_point():
            noise = torch.randn(leaf.shape, generator=generator).to(leaf)
            made = leaf + 3 * (leaf.std(correction=0) + 0.1) * noise
        else:
            made = leaf.reshape(-1)[torch.randint(max(1, leaf.numel()), leaf.shape, generator=generator)]
        moved = moved or not torch.equal(made, leaf)
        return made

    def exchanged(leaf: Any, path: tuple[Any, ...]) -> Any:
        other = drawn[int(torch.randint(len(drawn), (), generator=generator))]
        with suppress(LookupError, TypeError):  # another example may lack this part
            for key in path:
                other = other[key]
            return other
        return leaf

    made = _mapped(noisy, example)
    return made if moved else _mapped(exchanged, example)


def _mapped(change: Callable[[Any, tuple[Any, ...]], Any], example: Any, path: tuple[Any, ...] = ()) -> Any:
    """The example with every leaf changed. A list of numbers within it is one leaf."""
    if isinstance(example, dict | UserDict):
        made = copy.copy(example)
        made.update({key: _mapped(change, value, (*path, key)) for key, value in example.items()})
        return made
    numbers = path and type(example) is list and all(isinstance(each, int | float) for each in example)
    if numbers or not isinstance(example, list | tuple):
        return change(example, path)
    parts = [_mapped(change, each, (*path, at)) for at, each in enumerate(example)]
    return type(example)(*parts) if hasattr(example, "_fields") else type(example)(parts)
