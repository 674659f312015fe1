"""The sum of clipped per-example gradients of one secret batch, as exact integers: what a client gives to a
distributed sum.

No optimizer and no noise here: the model stays as it is, and the integers leave through a layer that adds
the noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dp.sample import factors, sums
from dp.sample.audit.probe import Probe, Probed
from dp.sample.errors import NonFiniteGradient, UnaccountedStep, tell
from dp.sample.hooks import RowHooks, agreed
from dp.sample.loader import PrivateLoader
from dp.sample.memory import forgets, remembered, written
from dp.sample.optimizers import checked_part
from dp.sample.targets import OwnLosses
from dp.sample.validation import validate
from protocols.randomness import SecureRandom, SystemRandom


@dataclass
class _Expected:
    """Counts what the loader hands out; an empty secret batch adds nothing to the sum."""

    hooks: RowHooks
    size: int = 0

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.size = size
        self.hooks.start(size)

    def empty(self) -> None:
        """Nothing: the loop does not see it."""


def clipped_sum(
    model: nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    loader: Any,
    *,
    rate: float,
    clip: float,
    step: float,
    random: SecureRandom,
    reduction: str = "mean",
    physical_batch: int | None = 256,
    probed: Probed | None = None,
    whose: str = "this client",
    rows: list[int] | None = None,
    criterion: Any = None,
) -> tuple[dict[str, NDArray[np.int64]], dict[str, float]]:
    """Sum of rint(clipped gradient / step) over a Poisson sample of the loader's examples, by parameter
    name.

    loss: `loss(model, batch)`, the mean (or sum, see `reduction`) over the batch. probed: what `prove` found, its
    reduction included; without it the examples must lie first everywhere. whose: whose
    log tells how many examples count as zero, because their gradient holds NaN or infinity. Each example's integer
    vector has L2 norm at most clip / step + sqrt(d) / 2. rows: the batch, where it is chosen already (default: by
    secret coins). criterion: what the loss is or holds, which remembers nothing either. Returns int64 arrays of the
    parameters' shapes, and private figures (mean loss). Raises UnsupportedModule, UnaccountedStep, Misuse.
    """
    training = model.training
    model.train()
    validate(model)
    named: list[tuple[str, Any]] = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    totals = [torch.zeros(p.numel(), dtype=torch.int64, device=p.device) for _, p in named]
    layouts, reduction = (None, reduction) if probed is None else (probed.layouts, probed.reduction)
    hooks = RowHooks(model, reduction=reduction, layouts=layouts)
    arrivals, seen, lost, broken, before = _Expected(hooks), 0, 0.0, 0, remembered(model, criterion)
    seed = torch.initial_seed()
    try:
        batches = PrivateLoader(loader, rate, 1, random, arrivals, physical_batch, rows)
        for batch in batches:
            hooks.clear()
            with OwnLosses(lambda: arrivals.size, hooks.times, seed):
                value = loss(model, batch)
                value.backward()  # type: ignore[no-untyped-call]  # torch has not typed it
            lost += float(value.detach()) * (arrivals.size if reduction == "mean" else 1)
            seen += arrivals.size
            broken += _add(named, totals, hooks, clip, step)
    finally:
        hooks.cleanup()
        for _, p in named:
            p.grad = None
        model.train(training)
    if name := written(model, before, {} if probed is None else probed.constants, criterion):
        raise UnaccountedStep(forgets(name) + "; nothing is sent")
    tell(whose, broken)
    result = {
        name: t.cpu().numpy().reshape(tuple(p.shape)) for (name, p), t in zip(named, totals, strict=True)
    }
    return result, ({"loss": lost / seen} if seen else {})


def prove(
    model: nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    loader: Any,
    known: Probed | None = None,
    rate: float = 1.0,
    physical_batch: int | None = None,
    criterion: Any = None,
) -> Probed | None:
    """Check that the rows of this loss are those of single examples (on a few), and that it is each example's own (on
    all); once per run and client. known: what another client's check found, by which only the data are new. rate,
    physical_batch, criterion: as `clipped_sum` takes them; batches as large as they allow are among what is checked.

    Returns what `clipped_sum` takes as `probed`; None where no example has a finite gradient, so that nothing can be
    checked, and examples may only pass one at a time. Raises NotPerExample by parameter, UnsupportedModule.
    """
    training = model.training
    model.train()
    validate(model)
    hooks = RowHooks(model)
    batches = PrivateLoader(loader, rate, 1, SystemRandom(), _Expected(hooks), physical_batch)
    probe = Probe(
        model, batches._fetch, batches._examples, batches._largest, hooks, known=known, criterion=criterion
    )
    script = probe.script()

    def run() -> None:
        for batch in script:
            loss(model, batch).backward()  # type: ignore[no-untyped-call]  # torch has not typed it
            probe.step()

    try:
        return probe.drive(run).insist()
    except NonFiniteGradient:
        return None
    finally:
        hooks.cleanup()
        model.train(training)


def _add(
    named: list[tuple[str, Any]], sums_so_far: list[torch.Tensor], hooks: RowHooks, clip: float, step: float
) -> int:
    """Add a batch; return how many of its examples count as zero, because their gradient is not finite."""
    parts = [checked_part(p, name, hooks.size) for name, p in named]
    parts, squares, lost = factors.counted(parts, [factors.squared(part) for part in parts])
    totals, names = [None if lost else p.total for _, p in named], [name for name, _ in named]
    agreed(parts, squares, totals, hooks.scale, names)
    scale = sums.clip_factors(torch.stack(squares).sum(dim=0), clip)
    for total, part in zip(sums_so_far, parts, strict=True):
        total += factors.summed(part, scale, step)
    return lost
