"""Deliberately broken variants of the layers. Never shipped; each has one of the field's known defects.

They change as little as possible of the sound layer, so that a check that catches one catches the same
mistake made there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping

from dp import ClientDP, DistributedDP, LocalDP
from dp.clipping import clip
from dp.mechanisms import discrete_gaussian, to_grid
from dp.rotation import rotate
from dp.sample import engine, factors, memory, optimizers, sums, targets
from dp.sample.engine import Attached, ClientEngine
from dp.sample.hooks import RowHooks
from dp.sample.optimizers import PrivateOptimizer
from protocols.layers import Aggregate, Contribution, RoundFacts, Signal, SumFacts
from protocols.randomness import SystemRandom

# -- what is left of the clip --


def unclipped(vector: np.ndarray, bound: float) -> np.ndarray:
    return vector


def per_tensor(vector: np.ndarray, bound: float) -> np.ndarray:
    """Eight tensors, each clipped by itself to the whole bound."""
    return np.concatenate([clip(part, bound).vector for part in np.array_split(vector, 8)])


def rank_0_skipped(vector: np.ndarray, bound: float) -> np.ndarray:
    """The last coordinate is a tensor of rank 0 that the clip passes over."""
    return np.concatenate([clip(vector[:-1], bound).vector, vector[-1:]])


def client_clipped_by(how: Any) -> type[ClientDP]:
    class Broken(ClientDP):
        def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
            return Contribution(how(contribution.vector, self.clip), 1)

    return Broken


def local_clipped_by(how: Any) -> type[LocalDP]:
    class Broken(LocalDP):
        def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
            step, _, sigma = self._grid(facts.run, given.block)
            noise = discrete_gaussian(facts.random, sigma, given.dimension)
            return Contribution(to_grid(how(contribution.vector, self.clip), step) + noise, 1)

    return Broken


def distributed_clipped_by(how: Any) -> type[DistributedDP]:
    class Broken(DistributedDP):
        def _client_level(self, vector: Any, block: str, plan: Any, facts: RoundFacts) -> Any:
            return to_grid(rotate(how(vector, self.clip), facts.seed), plan.grid.step)

    return Broken


# -- too little noise --


def client_noise(factor: float) -> type[ClientDP]:
    class Broken(ClientDP):
        def _vector_multiplier(self, run: Any) -> float:
            return factor * super()._vector_multiplier(run)

    return Broken


def local_noise(factor: float) -> type[LocalDP]:
    class Broken(LocalDP):
        def _grid(self, run: Any, name: str) -> tuple[float, float, float]:
            step, bound, sigma = super()._grid(run, name)
            return step, bound, sigma * factor

    return Broken


def distributed_noise(factor: float) -> type[DistributedDP]:
    class Broken(DistributedDP):
        def _share(self, plan: Any, facts: RoundFacts) -> Any:
            grid = replace(plan.grid, share_variance=plan.grid.share_variance * factor**2)
            return super()._share(replace(plan, grid=grid), facts)

    return Broken


class TooManyExpected(DistributedDP):
    """Each share is what would do if all clients survived; but the fewest that are allowed come."""

    def _share(self, plan: Any, facts: RoundFacts) -> Any:
        share = plan.grid.share_variance * plan.shares / len(facts.clients)
        return super()._share(replace(plan, grid=replace(plan.grid, share_variance=share)), facts)


# -- noise that is not fresh --


class Seeded:
    """A user's seed where noise is drawn: every run has the same noise, every round its own."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def bytes(self, count: int) -> bytes:
        return self.generator.bytes(count)


class Replayed:
    """The first round's bytes, given out again in every round."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.at = 0

    def rewind(self) -> "Replayed":
        self.at = 0
        return self

    def bytes(self, count: int) -> bytes:
        if self.at == len(self.kept):
            self.kept.append(SystemRandom().bytes(count))
        self.at += 1
        return self.kept[self.at - 1]


def drawing_from(base: type[Any], source: Any) -> type[Any]:
    """The layer with its randomness, on client and server, taken from `source(layer, facts)`."""

    class Broken(base):  # type: ignore[misc]
        def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
            return super().encode(contribution, given, replace(facts, random=source(self, facts)))

        def decode(self, a: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
            return super().decode(a, opened, replace(facts, random=source(self, facts)))

    return Broken


def by_seed(layer: Any, facts: RoundFacts) -> Seeded:
    return Seeded(facts.number * 100_000 + sum(facts.client.encode()))


def by_replay(layer: Any, facts: RoundFacts) -> Replayed:
    kept: dict[str, Replayed] = layer.__dict__.setdefault("_replayed", {})
    return kept.setdefault(facts.client, Replayed()).rewind()


# -- example level: the optimizer's own methods replaced --


@contextmanager
def optimizer_with(name: str, method: Any) -> Iterator[None]:
    """`PrivateOptimizer` with one method replaced."""
    had = name in PrivateOptimizer.__dict__
    before = PrivateOptimizer.__dict__.get(name)
    setattr(PrivateOptimizer, name, method)
    try:
        yield
    finally:
        if had:
            setattr(PrivateOptimizer, name, before)
        else:
            delattr(PrivateOptimizer, name)


def no_clip(self: Any, squares: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.ones_like(sums.clip_factors(s.cpu(), 1.0)) for s in squares]


def clip_each_tensor(self: Any, squares: list[torch.Tensor]) -> list[torch.Tensor]:
    return [sums.clip_factors(s.cpu(), float(self.max_grad_norm)) for s in squares]


def weaker_noise(factor: float) -> Any:
    def noise(self: Any, sigma: float) -> torch.Tensor:
        return torch.from_numpy(discrete_gaussian(self.random, sigma * factor, self.dims))

    return noise


def torch_noise(self: Any, sigma: float) -> torch.Tensor:
    """What follows torch's generator: a user's `torch.manual_seed` makes it known."""
    return torch.normal(0.0, sigma, (self.dims,), dtype=torch.float64).round().to(torch.int64)


def kept_noise(self: Any, sigma: float) -> torch.Tensor:
    """Drawn once per optimizer, used in every step."""
    return self.__dict__.setdefault(
        "_kept", torch.from_numpy(discrete_gaussian(self.random, sigma, self.dims))
    )


# -- example level: per-example gradients as the library under it makes them, nothing checked --


class LibraryHooks(RowHooks):
    """Opacus' own hooks in place of ours: the first axis is the batch's, whatever it holds; padding trains; the
    factors of a linear layer are kept once, however often it is called; a use that no module makes is not seen."""

    def __init__(self, model: Any, *, functional: bool, norms: bool, reduction: str) -> None:
        super().__init__(model, functional=functional, reduction=reduction)
        for handle in self._handles:
            handle.remove()
        kind = GradSampleHooksFastGradientClipping if norms else LastFactors
        self.library = kind(model, force_functorch=functional)

    def listen(self, listen: bool, size: int, reduction: str) -> None:
        super().listen(listen, size, reduction)
        if isinstance(self.library, GradSampleHooksFastGradientClipping):  # a check compares its rows
            self.library.cleanup()
            self.library = LastFactors(self.model)
        self.library.hooks_enabled = listen
        for module in self.model.modules():
            module.__dict__.pop("activations", None)
            module.__dict__.pop("max_batch_len", None)
        for p in self.model.parameters():
            p._forward_counter = 0
            p.__dict__.pop("_current_grad_sample", None)

    def start(self, size: int) -> None:
        super().start(size)
        self.calls.clear()

    def times(self, loss: torch.Tensor) -> int:
        return 1  # rows are multiplied by what a mean has divided by

    def cleanup(self) -> None:
        super().cleanup()
        for p in self.model.parameters():
            p.grad_sample = None
        self.library.cleanup()


class LastFactors(GradSampleHooks):
    """A plain nn.Linear leaves the factors of one call; those of a second call take their place."""

    def capture_backprops_hook(
        self, module: Any, given: Any, made: Any, loss_reduction: str, batch_first: bool
    ) -> None:
        enabled = self.hooks_enabled and not self.force_functorch and type(module) is torch.nn.Linear
        if not enabled or module.activations[-1][0].dim() != 2:
            super().capture_backprops_hook(module, given, made, loss_reduction, batch_first)
            return
        x, d = self.rearrange_grad_samples(
            module=module, backprops=made[0].detach(), loss_reduction=loss_reduction, batch_first=batch_first
        )
        module.weight.factors = (d.contiguous(), x[0].contiguous())
        if module.bias is not None:
            module.bias.grad_sample = d
        del module.max_batch_len


class TwoPasses(PrivateOptimizer):
    """Takes the clipped sum that a second backward pass made, in floats."""

    size = 0

    def _examples(self) -> int:
        return self.size

    def clip_and_accumulate(self) -> None:
        for p in self.params:
            total = torch.round(p.grad.double().reshape(-1) / self.grid).to(torch.int64)
            p.summed_grad = total if p.summed_grad is None else p.summed_grad + total


class LibraryGhost:
    """Opacus' ghost clipping: norms by sums of products in the first backward pass, the clipped sum of a loss with
    weights in the second; unclipped examples are counted in every pass."""

    def __init__(self, criterion: Any, hooks: "LibraryHooks", optimizer: TwoPasses) -> None:
        self.criterion, self.hooks, self.optimizer = criterion, hooks, optimizer

    def __call__(self, *given: Any) -> Any:
        if self.optimizer.probe is not None:
            return self.criterion(*given)
        self.losses = type(self.criterion)(reduction="none")(*given).reshape(len(given[0]), -1).mean(dim=1)
        return self

    def detach(self) -> torch.Tensor:
        return self.losses.detach().mean()

    def backward(self) -> None:
        self.losses.mean().backward(retain_graph=True)
        norms = torch.stack([p._norm_sample for p in self.optimizer.params]).norm(2, dim=0).double()
        self.optimizer._count(norms)
        self.optimizer.size = len(norms)
        for p in self.optimizer.params:
            p.grad = None
        self.hooks.library.hooks_enabled = False
        factors = sums.clip_factors(norms**2, float(self.optimizer.max_grad_norm))
        (factors.to(self.losses) * self.losses).sum().backward()
        self.hooks.library.hooks_enabled = True


class LibraryEngine(ClientEngine):
    """Trains on the library's rows, and with its ghost clipping."""

    def row_hooks(self, model: Any) -> RowHooks:
        mode = self.clipping.gradients
        return LibraryHooks(
            model, functional=mode == "functorch", norms=mode == "ghost", reduction=self.reduction
        )

    def private_optimizer(self, optimizer: Any) -> PrivateOptimizer:
        made = super().private_optimizer(optimizer)
        if self.clipping.gradients == "ghost":
            made.__class__ = TwoPasses
        return made

    def _attach(self, model: Any, optimizer: Any, loader: Any, criterion: Any) -> Attached:
        made = super()._attach(model, optimizer, loader, criterion)
        if self.clipping.gradients == "ghost":
            made.criterion = LibraryGhost(criterion, self._hooks, made.optimizer)
        return made


class DividedHooks(RowHooks):
    """A mean's gradient divided by the number of examples, rounded, and multiplied by it."""

    def times(self, loss: torch.Tensor) -> int:
        return 1


class DividingEngine(ClientEngine):
    """Trains on such rows."""

    def row_hooks(self, model: Any) -> RowHooks:
        made = super().row_hooks(model)
        made.__class__ = DividedHooks
        return made


@contextmanager
def unchecked() -> Iterator[None]:
    """Steps that take whatever rows there are, as many as there are, in whatever number format; the library's hooks
    keep what a module reads in its attributes, and in theirs.
    """
    kept = optimizers.checked_part, optimizers.agreed, engine.validate, targets.insist_wide
    own, called, memory._CALLED = memory._OWN, memory._CALLED, ()
    memory._OWN |= {"activations", "autograd_grad_sample_hooks", "ddp_hooks"}
    targets.insist_wide = lambda *given: None
    engine.validate = lambda *given: None
    optimizers.checked_part = lambda p, name, size: factors.part_of(p)
    optimizers.agreed = lambda *given: None
    try:
        yield
    finally:
        optimizers.checked_part, optimizers.agreed, engine.validate, targets.insist_wide = kept
        memory._OWN, memory._CALLED = own, called
