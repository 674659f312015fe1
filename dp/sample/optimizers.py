"""Opacus' optimizers with what follows torch's generator taken out: exact integer sums and noise from a
cryptographic stream.

Each step: clip every example, round it to the grid, add the integers (`sums`), add discrete Gaussian
integers calibrated to the norm bound after rounding, multiply by the step width. The user's optimizer then
sees floats that are post-processing of an integer release. Steps are reported to a `StepGuard`. Attaching
to models and loaders belongs to `engine`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from opacus.optimizers import DPOptimizer

from dp.layering import integer_sigma
from dp.mechanisms import discrete_gaussian
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.sample import factors, sums
from dp.sample.errors import UnaccountedStep
from dp.sample.guard import (
    StepGuard,
    changed_number,
    kept,
    numbers,
    raw_gradient,
    set_by_the_loop,
    stepped_raw,
)
from dp.sample.hooks import RowHooks, agreed, unseen
from dp.sample.memory import It
from dp.sample.options import AdaptiveClip, Clipping
from protocols.randomness import SecureRandom

if TYPE_CHECKING:
    from dp.sample.audit.probe import Probe


def checked_part(p: Any, name: str, size: int) -> factors.Part:
    """A parameter's gradients of a batch of `size`. Raises UnaccountedStep where there are none, or others."""
    part = factors.part_of(p)
    if part is None:
        raise UnaccountedStep(unseen(name, getattr(p, "total", None) is not None))
    rows = factors.count(part)
    if rows != size:
        raise UnaccountedStep(
            f"{name} has gradients of {rows} examples where {size} were drawn; let every trainable module see the "
            "whole batch, examples first, once"
        )
    return part


def forget(p: Any) -> None:
    """Drop what is left of a batch on a parameter."""
    p.factors = p.grad_sample = p.total = None


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Clips per-example gradients: flat (Abadi et al. 2016), a norm for every tensor, or a clip that follows a
    quantile (Andrew et al. 2021).

    random: stream of the noise. guard: hears of every step. names: of the parameters. denominator: the fixed one, the
    expected batch size. clip: where the clip stands, L2. schedule: what each step of the round multiplies the learning
    rates by (nothing: 1). Numbers are frozen from here on.

    Under an `AdaptiveClip` one integer is released beside the gradient: unclipped minus clipped examples, which one
    example changes by one. By Andrew et al.'s Theorem 1 both releases together cost what the stated noise multiplier
    costs alone. The share's denominator is the expected batch size, since the actual one is secret.
    """

    max_grad_norm: float
    hooks: RowHooks | None = None
    lost: int = 0
    settle: Callable[[], None] = staticmethod(lambda: None)
    probe: "Probe | None" = None
    original_optimizer: Any

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        clipping: Clipping,
        clip: float,
        noise_multiplier: float,
        random: SecureRandom,
        guard: StepGuard,
        names: dict[int, str],
        denominator: float,
        schedule: Sequence[float] = (),
    ) -> None:
        super().__init__(
            optimizer, noise_multiplier=noise_multiplier, max_grad_norm=clip, expected_batch_size=1
        )
        self.random, self.guard, self.denominator = random, guard, denominator
        self.names = [names[id(p)] for p in self.params]
        self.clips = clipping.layer_clips(len(self.params)) if clipping.per_layer else None
        self.adaptive = clipping.clip if isinstance(clipping.clip, AdaptiveClip) else None
        self._balance = 0
        self._named, self.schedule = names, schedule
        self.freeze()

    def freeze(self) -> None:
        """From here on the loop changes no number."""
        self._frozen = kept(self._numbers())

    def _numbers(self) -> dict[str, Any]:
        """What the loop may not change: the optimizer's numbers, and this one's own."""
        own = ("noise_multiplier", "max_grad_norm", "clips", "adaptive", "denominator", "schedule")
        objects = {name: It(getattr(self, name)) for name in ("step_hook", "original_optimizer")}
        return (
            {name: getattr(self, name) for name in own}
            | objects
            | numbers(self.original_optimizer, self._named)
        )

    def _insist(self) -> None:
        name = changed_number(self._frozen, self._numbers())
        if name is not None:
            raise UnaccountedStep(set_by_the_loop(name))
        name = raw_gradient(self.original_optimizer, self._named)
        if name is not None:
            raise UnaccountedStep(stepped_raw(name))

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
        z = float(self.noise_multiplier)
        return (z**-2 - self._count_noise() ** -2) ** -0.5 if self.adaptive and z else z

    def _count_noise(self) -> float:
        """Standard deviation of the noise on unclipped minus clipped examples."""
        return 2 * self.adaptive.count_std(self.denominator) if self.adaptive else 0.0

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
        self.guard.after_step(self.names)
        self.freeze()
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
        """Adaptive clipping, once the noised count is known."""
        if self.adaptive is None:
            return
        noise = int(discrete_gaussian(self.random, integer_sigma(self._count_noise(), 1.0), 1)[0])
        fraction = 0.5 + (self._balance + noise) / (2 * self.denominator)
        self._balance = 0
        change = math.exp(-self.adaptive.rate * (fraction - self.adaptive.quantile))
        self.max_grad_norm = min(max(self.max_grad_norm * change, self.adaptive.least), self.adaptive.most)

    def _count(self, norms: torch.Tensor) -> None:
        if self.adaptive:
            self._balance += 2 * int((norms <= float(self.max_grad_norm)).sum()) - len(norms)

    def step(self, closure: Any = None) -> float | None:
        """Clip, add, and, unless a part of a larger batch is still to come, noise and step."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        with (
            torch._C.DisableTorchFunction()
        ):  # no loop's loss is taken in here: what watches them has nothing to see
            return self._step()

    def _step(self) -> float | None:
        self._insist()
        self.settle()
        if self.probe is not None:
            self._examples()
            self.probe.step()
            return None
        self.guard.before_step(self._examples())
        self.clip_and_accumulate()
        skip: bool = self._check_skip_next_step()
        self._is_last_step_skipped = skip
        if skip:
            self.guard.part_done()
            return None
        return self._release()

    def _examples(self) -> int:
        parts = [factors.part_of(p) for p in self.params]
        return max((factors.count(part) for part in parts if part is not None), default=0)

    def clip_and_accumulate(self) -> None:
        """Clip, round and add the per-example gradients of all parameters into int64 sums."""
        size = self.guard.pending
        parts = [checked_part(p, name, size) for p, name in zip(self.params, self.names, strict=True)]
        parts, squares, lost = factors.counted(parts, [factors.squared(part) for part in parts])
        self.lost += lost
        step, scale = self.grid, size if self.hooks is None else self.hooks.scale
        totals = [None if lost else getattr(p, "total", None) for p in self.params]
        agreed(parts, squares, totals, scale, self.names, self._turn())
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
        super().zero_grad(set_to_none)

    def _factors(self, squares: list[torch.Tensor]) -> list[torch.Tensor]:
        """What each tensor's rows are shrunk by; but for clips of each tensor, an example's gradient is one vector."""
        if self.clips is not None:
            return [sums.clip_factors(s.cpu(), clip) for s, clip in zip(squares, self.clips, strict=True)]
        total = torch.stack([s.cpu() for s in squares]).sum(dim=0)
        self._count(total.sqrt())
        return [sums.clip_factors(total, float(self.max_grad_norm))] * len(squares)
