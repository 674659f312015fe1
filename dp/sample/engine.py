"""One client's private training through Opacus, living across rounds: what is attached to model, optimizer
and loader.

Opacus gives per-example gradients (its hooks, layers and validators) and the bookkeeping of its
PrivacyEngine; noise, sums and batches are this project's. The model is not wrapped where Opacus can do
without, so its parameter names stay the user's. What the steps cost belongs to `dp.accountants`;
calibration and ledger belong to `layer`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from opacus import PrivacyEngine
from torch import nn

from dp.sample.audit.probe import Expanded, Probe, Probed
from dp.sample.errors import NonFiniteGradient, tell, tell_silent
from dp.sample.ghost import GhostCriterion
from dp.sample.guard import StepGuard
from dp.sample.hooks import HUNG, RowHooks
from dp.sample.loader import PrivateLoader
from dp.sample.optimizers import (
    AdaptiveGhostOptimizer,
    AdaptiveOptimizer,
    FlatOptimizer,
    GridMixin,
    PerLayerOptimizer,
)
from dp.sample.options import AdaptiveClip, Clipping
from dp.sample.validation import validate
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom


class _Engine(PrivacyEngine):  # type: ignore[misc]  # Opacus ships no types
    """Opacus' engine with this project's optimizers and batches in place of those that follow torch's
    generator."""

    def __init__(self, owner: "ClientEngine") -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of torch's generator, which is not used here
            super().__init__(accountant="rdp")
        self._owner = owner

    def _prepare_model(self, module: Any, *, grad_sample_mode: str = "hooks", **options: Any) -> Any:
        if grad_sample_mode == "ew":
            made = super()._prepare_model(module, grad_sample_mode=grad_sample_mode, **options)
            made.loss_reduction = self._owner.reduction
            return made
        return self._owner.row_hooks(module)

    def _prepare_data_loader(self, data_loader: Any, **_: Any) -> PrivateLoader:
        return self._owner.private_loader(data_loader)

    def _prepare_optimizer(self, *, optimizer: Any, **_: Any) -> Any:
        return self._owner.private_optimizer(optimizer)

    def _prepare_criterion(self, *, module: Any, optimizer: Any, criterion: Any, **_: Any) -> Any:
        return GhostCriterion(criterion, module, optimizer)


@dataclass
class Attached:
    """What the loop gets for one round: pass these on, and call `ClientEngine.finish` afterwards."""

    model: nn.Module
    optimizer: Any
    criterion: Any
    loader: PrivateLoader


@dataclass
class ClientEngine:
    """A client's state across rounds: its Opacus engine and account, its clip, its counters.

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
        self.opacus = _Engine(self)
        self._clip: float | None = None
        self._now: Attached | None = None
        self._hooks: Any = None

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
        validate(model, self.clipping.gradients)
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._model, self._schedule = model, schedule
        result = self._attach(model, optimizer, loader, criterion)
        model.train(training)
        self.guard.begin(model, passes * self.steps)
        self._now = result
        return result

    def _attach(self, model: nn.Module, optimizer: Any, loader: Any, criterion: Any) -> Attached:
        mode, whole = self.clipping.gradients, self.clipping.gradients == "ew"
        made = self.opacus.make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            criterion=criterion if criterion is not None else nn.CrossEntropyLoss(),
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self._start_clip(),
            grad_sample_mode=mode,
            clipping="flat",
            wrap_model=whole,
            poisson_sampling=True,
        )
        self._hooks = made[0]
        made[1].hooks = None if whole else self._hooks
        made[1].attach_step_hook(self.opacus.accountant.get_optimizer_hook_fn(sample_rate=self.rate))
        private_criterion = made[2] if mode == "ghost" else criterion
        made[-1].sealed = True  # Opacus has asked for the data set's length
        return Attached(self._hooks if whole else model, made[1], private_criterion, made[-1])

    def probe(self, run: Callable[[], object], whose: str = "this client") -> Probed | None:
        """Check that this loop's rows are those of single examples, on a few of them, and that the loss is each
        example's own, on all of them, before it trains; nothing happens where that is known.

        run: calls the loop with what `begin` gave. It is left as soon as the check is done; nothing is trained,
        nothing counted. Later rounds take what was found; `probed` that another client found is taken for layouts
        alone. Where no example has a finite gradient, or there is none, nothing can be checked: none takes part in this
        round, whose steps are noise alone, and the log of the client, `whose`, says so. Raises NotPerExample,
        UnaccountedStep.
        """
        now = self._under_way()
        if self.probed is None or not self.checked:
            try:
                if now.loader._examples:
                    self.probed, self.checked = self.check(run).insist(), True
            except NonFiniteGradient:
                tell_silent(whose)
            now.loader.silent = not self.checked
        return self.probed

    def check(self, run: Callable[[], object], copies: int = 2) -> Probed:
        """The same without a verdict on the whole: what was found, parameter by parameter. copies: how often an
        example is repeated in its reference; 1 needs a loop that takes a batch of one."""
        now = self._under_way()
        hooks = self._hooks if isinstance(self._hooks, RowHooks) else Expanded(self._hooks, self._model)
        probe = Probe(
            self._model, now.loader._fetch, now.loader._examples, hooks, copies, self.probed, self.checked
        )
        now.loader.script, now.optimizer.probe = probe.script(), probe
        try:
            return probe.drive(run)
        finally:
            now.loader.script = now.optimizer.probe = None
            hooks.listen(True, 0, self.reduction)

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

    # -- what Opacus' engine asks for --

    def row_hooks(self, model: nn.Module) -> RowHooks:
        mode = self.clipping.gradients
        layouts = None if self.probed is None else self.probed.layouts
        return RowHooks(
            model,
            functional=mode == "functorch",
            norms=mode == "ghost",
            reduction=self.reduction,
            layouts=layouts,
        )

    def private_loader(self, loader: Any) -> PrivateLoader:
        return PrivateLoader(loader, self.rate, self.steps, self.random, self, self.clipping.physical_batch)

    def private_optimizer(self, optimizer: Any) -> Any:
        common = {
            "noise_multiplier": self.noise_multiplier,
            "expected_batch_size": 1,
            "loss_reduction": "mean",
        }
        made: Any
        clip = self._start_clip()
        if isinstance(self.clipping.clip, AdaptiveClip):
            kind = AdaptiveGhostOptimizer if self.clipping.gradients == "ghost" else AdaptiveOptimizer
            made = kind(
                optimizer, max_grad_norm=clip, **common, **self.clipping.clip.options(self.expected_batch)
            )
        elif self.clipping.gradients == "ghost":
            from dp.sample.optimizers import GhostOptimizer

            made = GhostOptimizer(optimizer, max_grad_norm=clip, **common)
        elif self.clipping.per_layer:
            clips = self.clipping.layer_clips(
                sum(p.requires_grad for g in optimizer.param_groups for p in g["params"])
            )
            made = PerLayerOptimizer(optimizer, max_grad_norm=clips, **common)
        else:
            made = FlatOptimizer(optimizer, max_grad_norm=clip, **common)
        return self._armed(made)

    def _armed(self, made: GridMixin) -> GridMixin:
        trained = {id(p) for p in made.params}
        left = [
            self._names[id(p)] for p in self._model.parameters() if p.requires_grad and id(p) not in trained
        ]
        if left:
            raise Misuse(
                f"expected the optimizer to hold every trainable parameter, it lacks {', '.join(left)}; "
                "freeze those or add them"
            )
        if self._schedule and not all("lr" in group for group in made.original_optimizer.param_groups):
            raise Misuse("schedule: expected an optimizer whose groups have a learning rate, lr")
        names = [self._names[id(p)] for p in made.params]
        made.arm(self.random, self.guard, names, self.expected_batch, self._schedule)
        return made

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

    def resume(self, taken: int, clip: float | None) -> None:
        """Take back what an earlier process kept: steps taken, and where the clip stood."""
        self.taken, self._clip, self.checked = taken, clip, taken > 0

    def size(self, examples: int) -> None:
        """Tell the number of examples, before `begin`."""
        self._expected = self.rate * examples

    # -- what the loader reports --

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.guard.batch(size, first=first, last=last)
        if isinstance(self._hooks, RowHooks):
            self._hooks.start(size)
        if self._now is not None and not last:
            self._now.optimizer.signal_skip_step(do_skip=True)

    def empty(self) -> None:
        if self._now is not None:
            self._now.optimizer.noise_only()
