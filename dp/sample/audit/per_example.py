"""A proof that a user can run: is every parameter's gradient a sum of clipped gradients of single examples?

Each gradient mode runs on the user's own model, loss and data. It is compared with a loop of single examples,
parameter by parameter, and one example is removed and exchanged for bad ones (`adversary`), to see how many
clips the sum moves. Nothing is trained. A passed audit speaks of the examples and the code paths that it saw.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from dp.sample.audit.adversary import movement
from dp.sample.audit.compare import STILL, ParameterVerdict
from dp.sample.audit.given import LossStep, loader_of
from dp.sample.audit.probe import Probed
from dp.sample.audit.steady import steady
from dp.sample.engine import Attached, ClientEngine
from dp.sample.hooks import holders
from dp.sample.options import GRADIENTS, Clipping
from dp.sample.validation import problems
from protocols.errors import Misuse

SLACK = 0.02
"""Share of a clip that rounding to the grid may add to one example's movement."""
MOVED = (
    "one example moves the clipped sum by {:.2f} clips: for some examples the model or the loss follows the whole "
    "batch (a scale, a norm or a threshold over it), and the others' gradients change with one. Make each its own"
)
"""Why a mode fails whose rows agreed with single examples on the data as they are."""


@dataclass(frozen=True)
class Mode:
    """One gradient mode. status: "sound", "refused" (this layer would not train it, or nothing was measured) or
    "failed" (an example moves the sum by more than a clip). moved: clips, the most that was seen; None if no step
    ran."""

    name: str
    status: str
    reason: str = ""
    moved: float | None = None
    verdicts: tuple[ParameterVerdict, ...] = ()
    reduction: str = "mean"
    seconds: float = 0.0


@dataclass(frozen=True)
class Parameter:
    """One parameter in the mode asked for. status: as `ParameterVerdict`'s. modules: that hold it (several: tied).
    layouts: where the examples lie in each call's input. errors: mode -> distance from single examples, as a
    share of an example's gradient."""

    name: str
    status: str
    reason: str
    modules: tuple[str, ...]
    layouts: tuple[str, ...]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class ExampleAudit:
    """What an audit of one model, loss and data found. gradients: the mode that decides. bound: a measured lower
    bound (`dp.sample.audit.canary_run`), if one was asked for."""

    gradients: str
    clip: float
    examples: int
    modes: tuple[Mode, ...]
    parameters: tuple[Parameter, ...]
    bound: Any = field(default=None)

    @property
    def passed(self) -> bool:
        """Whether the mode that was asked for is sound, and no canary refutes the stated epsilon."""
        decided = next(mode for mode in self.modes if mode.name == self.gradients)
        return decided.status == "sound" and (self.bound is None or self.bound.sound)

    def to_json(self) -> dict[str, Any]:
        """All of it, in plain values."""
        return {
            "passed": self.passed,
            "gradients": self.gradients,
            "clip": self.clip,
            "examples": self.examples,
            "modes": {
                m.name: {"status": m.status, "reason": m.reason, "moved_clips": m.moved, "loss": m.reduction,
                         "seconds": round(m.seconds, 3)}
                for m in self.modes
            },
            "parameters": [
                {"name": p.name, "status": p.status, "reason": p.reason, "modules": list(p.modules),
                 "tied": len(p.modules) > 1, "layouts": list(p.layouts), "errors": dict(p.errors)}
                for p in self.parameters
            ],
            "lower_bound": None if self.bound is None else self.bound.to_json(),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{m.name}: {m.status}" + (f", an example moves the sum by {m.moved:.2f} clips" if m.moved else "")
                 + (f" ({m.reason})" if m.reason else "") for m in self.modes]  # fmt: skip
        lines += [f"{p.name}: {p.status}" + (f" ({p.reason})" if p.reason else "") for p in self.parameters]
        return "\n".join(lines)


def per_example(
    model: nn.Module,
    loss: Any,
    batch: Any,
    *,
    gradients: str = "hooks",
    clip: float = 1.0,
    ascent: int = 10,
    modes: Collection[str] = GRADIENTS,
    engine: type[ClientEngine] = ClientEngine,
) -> ExampleAudit:
    """Compare gradient modes with a loop of single examples, on the user's own model, loss and data.

    loss: a criterion with a `reduction` (None: cross entropy), for batches of (input, target); or a function
    `loss(model, batch)` or `loss(model, batch, criterion)` of the mean or sum over the batch. batch: tensors, nested in
    tuples, lists or dictionaries, examples on the first axis; or a DataLoader or data set. gradients: the mode that
    decides, as `SampleDP` takes it. clip: L2 norm. ascent: steps of gradient ascent on an example. modes: which are
    compared beside it. engine: what is audited. Raises Misuse for another mode or fewer than two examples.

    Example: ``per_example(nn.Linear(4, 3), None, (torch.randn(8, 4), torch.arange(8) % 3)).passed``
    """
    if gradients not in GRADIENTS:
        raise Misuse(f"expected gradients to be one of {GRADIENTS}, got {gradients!r}")
    loader = loader_of(batch)
    if len(loader.dataset) < 2:
        raise Misuse("expected at least two examples")
    bench = Bench(model, LossStep(loss), loader, clip, engine)
    tried = tuple(bench.mode(name, ascent) for name in GRADIENTS if name in {gradients, *modes})
    decided = next(mode for mode in tried if mode.name == gradients)
    return ExampleAudit(gradients, clip, len(loader.dataset), tried, bench.parameters(decided, tried))


class Bench:
    """One model, loss and data set on which modes are tried; the model is left as it was found."""

    def __init__(
        self, model: nn.Module, step: LossStep, loader: Any, clip: float, engine: type[ClientEngine]
    ) -> None:
        self.model, self.step, self.loader, self.clip, self._engine = model, step, loader, clip, engine
        self._probes: dict[str, Probed] = {}
        self.largest = 0
        self._rate = min(1.0, (loader.batch_size or len(loader.dataset)) / len(loader.dataset))

    def mode(self, name: str, ascent: int) -> Mode:
        """The verdict on one gradient mode."""
        began = time.perf_counter()
        try:
            probed = self._probes[name] = self._checked(name)
        except Exception as refused:  # the user's own model and loss may raise anything: never "sound"
            said = str(refused) if isinstance(refused, Misuse) else f"{type(refused).__name__}: {refused}"
            return Mode(name, "refused", said, seconds=time.perf_counter() - began)
        wrong = [v for v in probed.verdicts if v.status in ("refused", "unused")]
        reason = "; ".join(sorted({f"{v.name}: {v.reason}" for v in wrong}))
        moved = None
        try:
            moved = movement(self, lambda data: self.summed(name, probed, data), self.clip, ascent)
        except Exception as error:  # a step that refuses, or the user's model may: never "sound"
            reason = reason or f"no movement was measured: {type(error).__name__}: {error}"
        if moved == 0.0:
            reason = reason or STILL
        if failed := moved is not None and moved > 1 + SLACK:
            reason = reason or MOVED.format(moved)
        status = "failed" if failed else "refused" if reason else "sound"
        return Mode(
            name, status, reason, moved, probed.verdicts, probed.reduction, time.perf_counter() - began
        )

    def _checked(self, name: str) -> Probed:
        optimizer = torch.optim.SGD(self._trained(), lr=0.1)
        engine, attached = self._begun(name, self.loader, optimizer, rate=self._rate)
        self.largest = attached.loader._largest
        try:
            with engine.watched():
                return engine.check(lambda: self.step.loop(attached), copies=1)
        finally:
            engine.abandon()

    def _begun(
        self, name: str, loader: Any, optimizer: Any, probed: Probed | None = None, rate: float = 1.0
    ) -> tuple[ClientEngine, Attached]:
        engine = self._engine(Clipping(self.clip, gradients=name), 0.0, rate, 1)
        engine.probed = probed
        engine.size(len(loader.dataset))
        return engine, engine.begin(self.model, optimizer, loader, self.step.criterion)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def summed(self, name: str, probed: Probed | None, data: Any) -> torch.Tensor:
        """The clipped sum over all examples of `data`, as one private step without noise makes it; random numbers are
        held still, as in the check: in training they are secret, and alike in distribution for both neighbours."""
        loader = DataLoader(data, batch_size=len(data), collate_fn=self.loader.collate_fn)
        engine, attached = self._begun(name, loader, _NoSteps(self._trained(), lr=1.0), probed)
        optimizer, seen = attached.optimizer, list[torch.Tensor]()
        released = optimizer.add_noise

        def add_noise() -> None:
            seen.extend(p.summed_grad.double().reshape(-1).cpu() * optimizer.grid for p in optimizer.params)
            released()

        optimizer.add_noise = add_noise  # before the sum takes the parameters' number format
        try:
            with engine.watched(), steady() as again:
                again(0)
                self.step.loop(attached)
        finally:
            engine.abandon()
        return torch.cat(seen)

    def few(self, count: int) -> Any:
        """Up to `count` of the examples, spread over the data."""
        data, every = self.loader.dataset, max(1, len(self.loader.dataset) // count)
        return Subset(data, range(0, min(len(data), count * every), every))

    def parameters(self, decided: Mode, modes: tuple[Mode, ...]) -> tuple[Parameter, ...]:
        """What is said of each parameter in the mode that decides."""
        found = {v.name: v for v in decided.verdicts}
        held = self._held()
        probed = self._probes.get(decided.name)
        calls = {} if probed is None or probed.layouts.calls is None else probed.layouts.calls
        refused = problems(self.model)
        made = []
        for name, p in self.model.named_parameters():
            modules = held.get(id(p), ())
            bad = next(
                (f"{m}: {why}" for m, why in refused.items() if name.startswith(m + ".")), decided.reason
            )
            verdict = found.get(name, ParameterVerdict(name, "refused" if p.requires_grad else "frozen", bad))
            layouts = tuple(f"{m}: {each}" for m in modules for each in calls.get(m, ()))
            errors = {m.name: v.error for m in modes for v in m.verdicts if v.name == name}
            made.append(Parameter(name, verdict.status, verdict.reason, modules, layouts, errors))
        return tuple(made)

    def _held(self) -> dict[int, tuple[str, ...]]:
        held: dict[int, tuple[str, ...]] = {}
        for name, module in holders(self.model):
            for p in module.parameters():
                held[id(p)] = (*held.get(id(p), ()), name)
        return held


class _NoSteps(torch.optim.SGD):
    """Moves nothing."""

    def step(self, closure: Any = None) -> Any:
        return None
