"""One client's private training through Opacus, living across rounds: what is attached to model, optimizer
and loader.

Opacus gives per-example gradients (its samplers, layers and validators) and an account of its own beside
this project's; noise, sums and batches are this project's. The model is not wrapped where Opacus can do
without, so its parameter names stay the user's. What the steps cost belongs to `dp.accountants`;
calibration and ledger belong to `layer`.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from opacus.accountants import RDPAccountant
from torch import nn

from dp.sample.audit.probe import Probe, Probed
from dp.sample.errors import NonFiniteGradient, UnaccountedStep, tell, tell_silent
from dp.sample.expanded import Expanded
from dp.sample.guard import StepGuard
from dp.sample.hooks import HUNG, RowHooks
from dp.sample.loader import PrivateLoader
from dp.sample.memory import forgets, remembered, written
from dp.sample.optimizers import PrivateOptimizer
from dp.sample.options import AdaptiveClip, Clipping
from dp.sample.targets import OwnLosses
from dp.sample.validation import validate
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom


@dataclass
class Attached:
    """What the loop gets for one round: pass these on, and call `ClientEngine.finish` afterwards."""

    model: nn.Module
    optimizer: Any
    criterion: Any
    loader: PrivateLoader


@dataclass
class ClientEngine:
    """A client's state across rounds: Opacus' account of its steps, its clip, its counters.

    clipping: the mode. noise_multiplier: standard deviation per unit of the clip. rate: each example's
    probability per step; steps: per pass. random: operating system's stream; another is for tests. probed: what a
    check found of the model; checked: whether the client's own examples have passed it.
    """

    clipping: Clipping
    noise_multiplier: float
    rate: float
    steps: int
    random: SecureRandom = field(default_factory=SystemRandom, repr=False)
    guard: StepGuard = field(default_factory=StepGuard)
    taken: int = 0
    probed: Probed | None = None
    checked: bool = False

    def __post_init__(self) -> None:
        self.account = RDPAccountant()
        self._clip: float | None = None
        self._now: Attached | None = None
        self._hooks: RowHooks | Expanded | None = None

    def begin(
        self,
        model: nn.Module,
        optimizer: Any,
        loader: Any,
        criterion: Any = None,
        *,
        passes: int = 1,
        schedule: Sequence[float] = (),
    ) -> Attached:
        """Attach to this round's objects. passes: over the loader, no fewer and no more. schedule: what each of the
        round's steps multiplies learning rates by (none: 1). Raises UnsupportedModule by name, and Misuse for foreign
        parameters."""
        if self._now is not None:
            self.abandon()
        training = model.training
        model.train()
        model.zero_grad()
        validate(model, self.clipping.gradients)
        self._model, self._schedule, self._criterion = model, schedule, criterion
        self._memory = remembered(model, criterion)
        result = self._attach(model, optimizer, loader, criterion)
        model.train(training)
        self.guard.begin(model, passes * self.steps)
        self._now = result
        return result

    def _attach(self, model: nn.Module, optimizer: Any, loader: Any, criterion: Any) -> Attached:
        mode = self.clipping.gradients
        made = self.private_optimizer(optimizer)
        if mode == "ew":
            self._hooks = Expanded(model, self.reduction)
            made.settle = self._hooks.settle
        else:
            self._hooks = made.hooks = self.row_hooks(model)
        made.attach_step_hook(self.account.get_optimizer_hook_fn(sample_rate=self.rate))
        made.freeze()
        batches = PrivateLoader(
            loader, self.rate, self.steps, self.random, self, self.clipping.physical_batch
        )
        batches.sealed = True  # the loop reads its batches alone
        given = self._hooks.wrapped if isinstance(self._hooks, Expanded) else model
        return Attached(given, made, criterion, batches)

    def probe(self, run: Callable[[], object], whose: str = "this client") -> Probed | None:
        """Check that this loop's rows are those of single examples, on a few of them, and that the loss is each
        example's own, on all of them, before it trains; nothing happens where that is known.

        run: calls the loop with what `begin` gave. It is left as soon as the check is done; nothing is trained,
        nothing counted. Later rounds take what was found; `probed` that another client found is taken for layouts
        alone. Where no example has a finite gradient, or there is none, nothing can be checked: in this round each then
        passes alone, for who takes part must not follow all examples together, and the log of the client, `whose`, says
        so. Raises NotPerExample,
        UnaccountedStep.
        """
        now = self._under_way()
        if self.probed is None or not self.checked:
            try:
                if now.loader._examples:
                    self.probed, self.checked = self.check(run).insist(), True
            except NonFiniteGradient:
                tell_silent(whose)
            if not self.checked:
                now.loader.one_by_one()
        return self.probed

    def check(self, run: Callable[[], object], copies: int = 2) -> Probed:
        """The same without a verdict on the whole: what was found, parameter by parameter. copies: how often an
        example is repeated in its reference; 1 needs a loop that takes a batch of one."""
        now, hooks = self._under_way(), self._hooks
        assert hooks is not None  # a round is under way
        probe = Probe(
            self._model,
            now.loader._fetch,
            now.loader._examples,
            now.loader._largest,
            hooks,
            copies,
            self.probed,
            self.checked,
            self._examples,
            self._criterion,
        )
        now.loader.script, now.optimizer.probe = probe.script(), probe
        try:
            return probe.drive(run)
        finally:
            now.loader.script = now.optimizer.probe = None
            hooks.listen(True, 0, self.reduction)

    def watched(self, secret: bool = False) -> OwnLosses:
        """What the loop runs in: losses whose divisor or rounding follows the batch are refused, or put right; so is a
        loop that seeds torch, where its draws are to stay secret as they are."""
        return OwnLosses(lambda: self.guard.pending, self._times, torch.initial_seed() if secret else None)

    def _times(self, loss: torch.Tensor) -> int:
        return 1 if self._hooks is None else self._hooks.times(loss)

    def _under_way(self) -> Attached:
        if self._now is None:
            raise Misuse("expected a round under way: call begin first")
        return self._now

    @property
    def reduction(self) -> str:
        """Of the loop's loss over a batch, as the check found it."""
        return "mean" if self.probed is None else self.probed.reduction

    def finish(self, whose: str = "this client") -> int:
        """End the round: check the counters, take Opacus off the model, return the steps that were
        accounted. whose: whose log tells how many examples counted as zero.

        Raises UnaccountedStep if the model changed in any other way; then nothing may be sent.
        """
        try:
            steps = self.guard.finish()
            constants = {} if self.probed is None else self.probed.constants
            if name := written(self._model, self._memory, constants, self._criterion):
                raise UnaccountedStep(forgets(name) + "; nothing is sent")
            self.taken += steps
            tell(whose, self._under_way().optimizer.lost)
            if self._now is not None and isinstance(self.clipping.clip, AdaptiveClip):
                self._clip = float(self._now.optimizer.max_grad_norm)
        finally:
            self.abandon()
        return steps

    def abandon(self) -> None:
        """Take hooks and per-example gradients off the model, whatever state the round is in."""
        if self._hooks is not None:
            self._hooks.cleanup()
        for p in self._model.parameters():
            p.grad = None
            for name in HUNG:
                if hasattr(p, name):
                    delattr(p, name)
        self._now = self._hooks = None

    # -- what is attached --

    def row_hooks(self, model: nn.Module) -> RowHooks:
        mode = self.clipping.gradients
        layouts = None if self.probed is None else self.probed.layouts
        return RowHooks(
            model,
            functional=mode == "functorch",
            again=mode == "ghost",
            reduction=self.reduction,
            layouts=layouts,
        )

    def private_optimizer(self, optimizer: Any) -> PrivateOptimizer:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names = {id(p): name for name, p in self._model.named_parameters()}
        if held - names.keys():
            raise Misuse("expected the optimizer to hold parameters of the model alone, it holds others too")
        left = [n for n, p in self._model.named_parameters() if p.requires_grad and id(p) not in held]
        if left:
            raise Misuse(
                f"expected the optimizer to hold every trainable parameter, it lacks {', '.join(left)}; "
                "freeze those or add them"
            )
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise Misuse(
                f"{type(optimizer).__name__} calls the loss several times a step, and each look at the examples is a "
                "step of its own here: take an optimizer that steps once (SGD, Adam)"
            )
        if self._schedule and not all("lr" in group for group in optimizer.param_groups):
            raise Misuse("schedule: expected an optimizer whose groups have a learning rate, lr")
        return PrivateOptimizer(
            optimizer,
            self.clipping,
            self._start_clip(),
            self.noise_multiplier,
            self.random,
            self.guard,
            names,
            self.expected_batch,
            self._schedule,
        )

    def _start_clip(self) -> float:
        return self._clip if self._clip is not None else self.clipping.start

    @property
    def expected_batch(self) -> float:
        """The fixed denominator: rate x examples, the same whatever comes."""
        return self._expected

    @property
    def clip(self) -> float | None:
        """Where adaptive clipping stands; None for a fixed clip or before the first round."""
        return self._clip

    def resume(self, taken: int, clip: float | None, *, checked: bool) -> None:
        """Take back what an earlier process kept: steps taken, where the clip stood, whether examples were checked."""
        self.taken, self._clip, self.checked = taken, clip, checked

    def size(self, examples: int) -> None:
        """Tell the number of examples, before `begin`: a public one, where there is one."""
        self._examples, self._expected = examples, self.rate * examples

    # -- what the loader reports --

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.guard.batch(size, first=first, last=last)
        if self._hooks is not None:
            self._hooks.start(size)
        if self._now is not None and not last:
            self._now.optimizer.signal_skip_step(do_skip=True)

    def empty(self) -> None:
        if self._now is not None:
            self._now.optimizer.noise_only()
