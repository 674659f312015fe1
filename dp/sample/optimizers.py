"""Opacus' optimizers with what follows torch's generator taken out: exact integer sums and noise from a
cryptographic stream.

Each step: clip every example, round it to the grid, add the integers (`sums`), add discrete Gaussian
integers calibrated to the norm bound after rounding, multiply by the step width. The user's optimizer then
sees floats that are post-processing of an integer release. Steps are reported to a `StepGuard`. Attaching
to models and loaders belongs to `engine`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from opacus.optimizers import (
    AdaClipDPOptimizer,
    DPOptimizer,
    DPOptimizerFastGradientClipping,
    DPPerLayerOptimizer,
)

from dp.layering import integer_sigma
from dp.mechanisms import discrete_gaussian
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.sample import factors, sums
from dp.sample.errors import UnaccountedStep
from dp.sample.guard import StepGuard, changed_number, numbers, set_by_the_loop
from dp.sample.hooks import RowHooks, agreed, unseen
from protocols.randomness import SecureRandom

if TYPE_CHECKING:
    from dp.sample.audit.probe import Probe

GHOST_MARGIN = 0.01
"""Ghost clipping sums in floats inside the backward pass: no order of additions is known, so no bound on
its rounding can be proved. The accounted sensitivity is this much larger than the clip; typical errors are
10^-5 of it."""


def checked_part(p: Any, name: str, size: int) -> factors.Part:
    """A parameter's gradients of a batch of `size`. Raises UnaccountedStep where there are none, or others."""
    part = factors.part_of(p)
    if part is None:
        raise UnaccountedStep(unseen(name, getattr(p, "total", None) is not None))
    rows = len(part[0]) if isinstance(part, tuple) else len(part)
    if rows != size:
        raise UnaccountedStep(
            f"{name} has gradients of {rows} examples where {size} were drawn; let every trainable module see the "
            "whole batch, examples first, once"
        )
    return part


def forget(p: Any) -> None:
    """Drop what is left of a batch on a parameter."""
    p.factors = p.grad_sample = p.total = p.norm_sample = None


class GridMixin:
    """What all four optimizers share. Mixed in before an Opacus optimizer class."""

    params: list[Any]  # parameters, with what Opacus hangs on them
    max_grad_norm: float
    noise_multiplier: float
    random: SecureRandom
    guard: StepGuard
    names: list[str]
    denominator: float
    hooks: RowHooks | None = None
    lost: int = 0
    probe: "Probe | None" = None
    original_optimizer: Any

    def arm(
        self,
        random: SecureRandom,
        guard: StepGuard,
        names: list[str],
        denominator: float,
        schedule: Sequence[float] = (),
    ) -> None:
        """Give the stream, the guard, the parameters' names, the fixed denominator (the expected batch size) and
        what each step of the round multiplies learning rates by (nothing: 1). Numbers are frozen from here on."""
        self.random, self.guard, self.names, self.denominator = random, guard, names, denominator
        self._named = {id(p): name for p, name in zip(self.params, names, strict=True)}
        self.schedule, self._frozen = schedule, self._numbers()

    def _numbers(self) -> dict[str, Any]:
        """What the loop may not change: the optimizer's numbers, and this one's own."""
        own = ("noise_multiplier", "max_grad_norm", "max_grad_norms", "denominator")
        held = {name: getattr(self, name) for name in own if hasattr(self, name)}
        return held | numbers(self.original_optimizer, self._named)

    def _insist(self) -> None:
        name = changed_number(self._frozen, self._numbers())
        if name is not None:
            raise UnaccountedStep(set_by_the_loop(name))

    @property
    def accumulated_iterations(self) -> int:
        """Batches in a step, which Opacus' account multiplies the rate by: always one."""
        return 1

    @property
    def dims(self) -> int:
        """Coordinates that are released in a step."""
        return sum(p.numel() for p in self.params)

    @property
    def grid(self) -> float:
        """Width of the grid in the gradient's unit: a power of two, public."""
        return noise_step(max(self.gradient_noise(), 2.0**-20) * self.max_grad_norm)

    def gradient_noise(self) -> float:
        """Noise multiplier of the gradient alone."""
        return float(self.noise_multiplier)

    def bound(self) -> float:
        """L2 norm of what one example adds to the integer sum, at most, with probability one."""
        return rounded_bound(float(self.max_grad_norm), self.dims, self.grid)

    def add_noise(self) -> None:
        """Integer sum plus discrete Gaussian integers, times the step width, into p.grad."""
        step, multiplier = self.grid, self.gradient_noise()
        noise = self._noise(integer_sigma(multiplier, self.bound()) if multiplier else 0.0)
        at = 0
        for p in self.params:
            total: torch.Tensor = p.summed_grad
            share = noise[at : at + p.numel()].to(total.device)
            at += p.numel()
            p.grad = ((total.reshape(-1) + share).to(torch.float64) * step).to(p.dtype).reshape(p.shape)
            p.summed_grad = None

    def _noise(self, sigma: float) -> torch.Tensor:
        if sigma == 0:
            return torch.zeros(self.dims, dtype=torch.int64)
        return torch.from_numpy(discrete_gaussian(self.random, sigma, self.dims))

    def scale_grad(self) -> None:
        """Divide by the fixed denominator: the number of examples that came is secret."""
        for p in self.params:
            if p.grad is not None:
                p.grad /= self.denominator

    def noise_only(self) -> None:
        """The step of an empty secret batch: noise alone, counted like any other."""
        for p in self.params:
            p.summed_grad = torch.zeros(p.numel(), dtype=torch.int64, device=p.device)
        self.guard.batch(0, first=True, last=True)
        self._insist()
        self._release()
        self.zero_grad()

    def _release(self) -> float | None:
        self.guard.before_step(None)
        self.add_noise()
        self.scale_grad()
        self._after_noise()
        hook = getattr(self, "step_hook", None)
        if hook:
            hook(self)
        result = self._scheduled()
        self.guard.after_step()
        self._frozen = self._numbers()
        return result

    def _scheduled(self) -> float | None:
        """The user's optimizer's step, at its own learning rates times the schedule's factor."""
        groups = self.original_optimizer.param_groups if self.schedule else []
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = group["lr"] * self.schedule[self.guard.accounted]
        result: float | None = self.original_optimizer.step()
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        return result

    def _after_noise(self) -> None:
        """What adaptive clipping does once the noised count is known."""

    def step(self, closure: Any = None) -> float | None:
        """Clip, add, and, unless a part of a larger batch is still to come, noise and step."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        self._insist()
        if self.probe is not None:
            self._examples()
            self.probe.step()
            return None
        self.guard.before_step(self._examples())
        self.clip_and_accumulate()
        skip: bool = self._check_skip_next_step()  # type: ignore[attr-defined]  # Opacus' queue
        self._is_last_step_skipped = skip
        if skip:
            self.guard.part_done()
            return None
        return self._release()

    def _examples(self) -> int:
        return max((factors.examples(p) for p in self.params), default=0)

    def clip_and_accumulate(self) -> None:
        """Clip, round and add the per-example gradients of all parameters into int64 sums."""
        size = self.guard.pending
        parts = [checked_part(p, name, size) for p, name in zip(self.params, self.names, strict=True)]
        parts, squares, lost = factors.counted(parts, [factors.squared(part) for part in parts])
        self.lost += lost
        step, scale = self.grid, size if self.hooks is None or self.hooks.reduction == "mean" else 1
        totals = [None if lost else getattr(p, "total", None) for p in self.params]
        precision = 2.0**-23 if self.hooks is None else self.hooks.precision
        agreed(parts, squares, totals, scale, self.names, self._turn(), precision)
        for p, part, shrink in zip(self.params, parts, self._factors(squares), strict=True):
            total = factors.summed(part, shrink, step)
            p.summed_grad = total if p.summed_grad is None else p.summed_grad + total
            forget(p)  # used once, whether or not the loop forgets zero_grad()

    def _turn(self) -> int | None:
        """Which parameter's rows are compared with autograd's gradient in this step: all (None) in a round's first
        and where no probe came before, one after the other in later ones."""
        if self.hooks is None or not self.hooks.layouts.known or not self.guard.accounted:
            return None
        return self.guard.accounted % len(self.params)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Forget gradients, per-example ones too."""
        for p in self.params:
            forget(p)
        super().zero_grad(set_to_none)  # type: ignore[misc]  # Opacus' optimizer, mixed in after this class

    def _factors(self, squares: list[torch.Tensor]) -> list[torch.Tensor]:
        """Flat clipping: the whole gradient of an example is one vector."""
        total = torch.stack([s.cpu() for s in squares]).sum(dim=0)
        return [sums.clip_factors(total, float(self.max_grad_norm))] * len(squares)


class FlatOptimizer(GridMixin, DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """One clip for an example's whole gradient (Abadi et al. 2016)."""


class PerLayerOptimizer(GridMixin, DPPerLayerOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """A clip for every parameter tensor; the bound on all is the root of their squares' sum."""

    max_grad_norms: list[float]

    def _factors(self, squares: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            sums.clip_factors(s.cpu(), clip) for s, clip in zip(squares, self.max_grad_norms, strict=True)
        ]


class _Adaptive(GridMixin):
    """The quantile estimate of Andrew et al. 2021: the clip follows a noised count of unclipped examples.

    One integer is released beside the gradient: unclipped minus clipped examples, which one example changes
    by one. Its noise is 2 unclipped_num_std; by their Theorem 1 both releases together cost what the stated
    noise multiplier costs alone. The denominator is the expected batch size, since the actual one is
    secret.
    """

    unclipped_num_std: float
    target_unclipped_quantile: float
    clipbound_learning_rate: float
    max_clipbound: float
    min_clipbound: float
    _balance: int = 0

    def gradient_noise(self) -> float:
        z, count = float(self.noise_multiplier), 2 * self.unclipped_num_std
        return (z**-2 - count**-2) ** -0.5 if z else 0.0

    def _count(self, squared: torch.Tensor) -> None:
        unclipped = int((squared.sqrt() <= float(self.max_grad_norm)).sum())
        self._balance += 2 * unclipped - len(squared)

    def _after_noise(self) -> None:
        noise = int(discrete_gaussian(self.random, integer_sigma(2 * self.unclipped_num_std, 1.0), 1)[0])
        fraction = 0.5 + (self._balance + noise) / (2 * self.denominator)
        self._balance = 0
        change = math.exp(-self.clipbound_learning_rate * (fraction - self.target_unclipped_quantile))
        self.max_grad_norm = float(
            np.clip(self.max_grad_norm * change, self.min_clipbound, self.max_clipbound)
        )


class AdaptiveOptimizer(_Adaptive, AdaClipDPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Adaptive flat clipping on per-example gradients."""

    step = GridMixin.step

    def _factors(self, squares: list[torch.Tensor]) -> list[torch.Tensor]:
        total = torch.stack([s.cpu() for s in squares]).sum(dim=0)
        self._count(total)
        return [sums.clip_factors(total, float(self.max_grad_norm))] * len(squares)


class GhostOptimizer(GridMixin, DPOptimizerFastGradientClipping):  # type: ignore[misc]  # Opacus ships no types
    """Ghost clipping (Li et al. 2022): per-example norms without per-example gradients, so that memory does
    not grow with them."""

    _seal: list[tuple[int, int]] | None = None
    _sealed_examples: int = 0

    def bound(self) -> float:
        return rounded_bound(float(self.max_grad_norm) * (1 + GHOST_MARGIN), self.dims, self.grid)

    def seal(self, examples: int, norms: torch.Tensor | None = None) -> None:
        """The private criterion has just put a sum into p.grad; anything else that writes there breaks the seal.
        norms: of the examples' gradients, to be counted; none before training."""
        self._seal = [(id(p.grad), p.grad._version if p.grad is not None else -1) for p in self.params]
        self._sealed_examples = examples
        if norms is not None:
            self._seen(norms)

    def _seen(self, norms: torch.Tensor) -> None:
        """What adaptive clipping counts."""

    def _examples(self) -> int:
        from dp.sample.errors import UnclippedLoss

        now = [(id(p.grad), p.grad._version if p.grad is not None else -1) for p in self.params]
        if self._seal is None or now != self._seal:
            raise UnclippedLoss(
                "the gradient did not come from the criterion that the loop was given; under ghost "
                "clipping that criterion clips, "
                "and a loss of one's own trains without clipping; call criterion(output, "
                "target).backward() once per batch"
            )
        return self._sealed_examples

    def clip_and_accumulate(self) -> None:
        """Round the clipped sum that the criterion's second backward pass made, after proving its norm
        bound once more."""
        norm = math.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in self.params if p.grad is not None))
        most = self._sealed_examples * float(self.max_grad_norm) * (1 + GHOST_MARGIN)
        if not norm <= most + 1e-12:
            raise UnaccountedStep(
                f"the clipped sum of {self._sealed_examples} examples has norm {norm:.4g}, beyond "
                f"{most:.4g}: "
                "a gradient bypassed clipping, or is NaN or infinite"
            )
        for p in self.params:
            forget(p)
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            total = torch.round(gradient.detach().double().reshape(-1) / self.grid).to(torch.int64)
            before = p.summed_grad
            p.summed_grad = total if before is None else before + total
        self._seal = None


class AdaptiveGhostOptimizer(_Adaptive, GhostOptimizer):
    """Ghost clipping whose clip follows the noised quantile."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        adaptive = (
            "target_unclipped_quantile",
            "clipbound_learning_rate",
            "max_clipbound",
            "min_clipbound",
            "unclipped_num_std",
        )
        for name in adaptive:
            setattr(self, name, options.pop(name))
        super().__init__(*arguments, **options)

    def _seen(self, norms: torch.Tensor) -> None:
        self._count(norms.detach().double().cpu() ** 2)
