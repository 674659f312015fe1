"""Per-example gradients of a batch, made while its loss is differentiated: what is hung on a model.

A forward hook on every module that holds trainable parameters keeps what one call read, and a hook on what
that call gave turns the gradient there into a row for each example; calls add up. A hook on every parameter
keeps autograd's own gradient beside the rows: where the rows do not add up to it, a use of the parameter was
not seen (`agreed`). How a call's rows are made belongs to `samplers`, where examples lie to `layout`.
"""

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN
from torch import nn
from torch.nn.utils import parametrize

from dp.sample import factors, remade, samplers, targets
from dp.sample.errors import UnaccountedStep, UnsupportedModule
from dp.sample.layout import Layouts, Seen
from dp.sample.remade import Again, Calls, LookedUp, Make

HUNG = ("grad_sample", "factors", "total", "summed_grad")
"""What is hung on a parameter while hooks are on."""


def holders(
    module: nn.Module, name: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """The modules that answer for parameters, by name. One without a sampler of its own answers for all within it."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    own = any(p.requires_grad for p in module.parameters(recurse=False)) or parametrize.is_parametrized(
        module
    )
    if own and type(module) not in (DPRNN, DPLSTM, DPGRU):
        yield name, module
        if not samplers.known(module):
            return
    for child, inner in module.named_children():
        yield from holders(inner, f"{name}.{child}" if name else child, seen)


class RowHooks:
    """Puts `grad_sample` (rows (n, *shape)) on parameters, or `factors`: what takes less memory than rows.

    functional: use torch.func for every module. again: keep few rows (`remade.KEPT`), and of the others what makes them
    (ghost clipping; Bu et al. 2023, "book-keeping"). reduction: "mean" or "sum", of the loss over the batch.
    layouts: what a probe found. `start` is called with the size of each batch before the loop gets it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        functional: bool = False,
        again: bool = False,
        reduction: str = "mean",
        layouts: Layouts | None = None,
    ) -> None:
        self.model, self.functional, self.again, self.reduction = model, functional, again, reduction
        self.layouts = layouts or Layouts()
        self.enabled = True
        self.seen: list[Seen] | None = None
        self.faults: dict[str, str] | None = None
        self.watching = False
        self.start(0)
        self.modules = dict(holders(model))
        for p in model.parameters():
            p.grad_sample = p.factors = p.total = None  # type: ignore[attr-defined]  # hung on it
        self._handles: list[Any] = [
            module.register_forward_hook(partial(self._forward, name), with_kwargs=True)
            for name, module in self.modules.items()
        ]
        self._handles += [
            p.register_hook(partial(self._total, p))  # type: ignore[no-untyped-call]  # torch has not typed it
            for p in model.parameters()
            if p.requires_grad
        ]

    def start(self, size: int) -> None:
        """A batch of this many examples goes to the loop."""
        self.size, self.calls, self.uses, self.room = size, Counter[str](), Counter[int](), remade.KEPT
        self._multiplied = False

    def times(self, loss: torch.Tensor) -> int:
        """What the gradient of the loop's loss is multiplied by before it goes to the model; rows are not, then."""
        self._multiplied = self.enabled and self.reduction == "mean" and reaches(loss, self.model)
        return self.size if self._multiplied else 1

    @property
    def scale(self) -> int:
        """What the gradients that autograd gives are multiplied by."""
        return 1 if self._multiplied or self.reduction == "sum" else self.size

    def listen(self, listen: bool, size: int, reduction: str) -> None:
        """Turn the making of rows on or off, for a batch of this size, of a loss with this reduction."""
        self.clear()
        self.enabled, self.watching, self.reduction = listen, not listen, reduction
        self.start(size)

    def _forward(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not torch.is_grad_enabled() or not (self.enabled or self.seen is not None):
            return
        own = samplers.trainable(module).values()
        if not own:
            return
        if not isinstance(output, torch.Tensor):
            raise UnsupportedModule(
                {name: f"{type(module).__name__} gives a {type(output).__name__}, not one tensor"}
            )
        inputs = targets.tensors_in((args, kwargs))
        if self.seen is not None:
            self.seen.append(_seen(name, module, inputs, output))
        if not self.enabled or not output.requires_grad:
            return
        targets.insist_wide(name, output)
        self.uses.update(id(p) for p in own)
        read = torch.utils._pytree.tree_map(_detached, (args, kwargs))
        hook = partial(self._backward, name, module, read, self.calls[name])
        output.register_hook(hook)  # type: ignore[no-untyped-call]  # torch has not typed it
        self.calls[name] += 1

    def _backward(self, name: str, module: nn.Module, read: Any, call: int, grad: torch.Tensor) -> None:
        if not self.enabled:
            return
        try:
            self._rows(name, module, read, call, grad)
        except Exception as error:  # a check collects faults by name; else it is raised
            if self.faults is None:
                raise
            self.faults[name] = str(error)

    def _rows(self, name: str, module: nn.Module, read: Any, call: int, grad: torch.Tensor) -> None:
        inputs = targets.tensors_in(read)
        layout = self.layouts.of(_seen(name, module, inputs, grad), module, call, self.size)
        scaled = grad.detach() * self.scale
        own = list(samplers.trainable(module).values())
        once = all(self.uses[id(p)] == 1 for p in own)
        bag = isinstance(module, nn.EmbeddingBag)  # torch.func knows no bags
        if not bag and (self.functional or not samplers.known(module)):
            make = partial(self._quietly, samplers.functional(module, read, scaled, layout, self.size))
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            words = samplers.words(module, inputs, scaled, layout, self.size)
            if once:
                own[0].factors = words  # type: ignore[attr-defined]  # hung on it
                return
            make = partial(_written, module.weight, words)
        else:
            x, d = samplers.split(module, inputs, scaled, layout, self.size)
            if once and samplers.factored(module, x):
                self._factor(module, x, d)
                return
            make = partial(samplers.rows, module, x, d)
        if self._room(own, once, grad.numel() + sum(t.numel() for t in inputs)):
            self._keep(make(slice(None)))
        else:
            self._remember(own, make, inputs)

    def _room(self, own: list[Any], once: bool, given: int) -> bool:
        """Whether rows of these parameters are kept: they are no longer than what the call read and gave, or there is
        room."""
        values = self.size * sum(p.numel() for p in own)
        if not self.again or (once and values <= given):
            return True
        if not once or values > self.room:
            return False
        self.room -= values
        return True

    def _quietly(self, make: Make, some: slice) -> samplers.Rows:
        """Rows from a forward pass of the module, which is no call of the loop's."""
        (self.enabled, self.seen), kept = (False, None), (self.enabled, self.seen)
        try:
            return make(some)
        finally:
            self.enabled, self.seen = kept

    def _remember(self, own: list[Any], make: Make, inputs: list[torch.Tensor]) -> None:
        """Rows are made in the step, twice."""
        calls = Calls(self.size)
        for other in {id(p.factors.calls): p.factors.calls for p in own if p.factors is not None}.values():
            calls.take(other)
        calls.add(own, make, inputs)
        for p in calls.parameters:
            p.factors = Again(calls, p)

    def _factor(self, module: Any, x: torch.Tensor, d: torch.Tensor) -> None:
        d = d.float().contiguous()
        if module.weight.requires_grad:
            module.weight.factors = (d, x.float().contiguous())
        if module.bias is not None and module.bias.requires_grad:
            module.bias.grad_sample = d

    def _keep(self, rows: samplers.Rows) -> None:
        for p, made in rows.items():
            if p.requires_grad:
                before = p.grad_sample  # type: ignore[attr-defined]  # hung on it
                p.grad_sample = made if before is None else before + made  # type: ignore[attr-defined]  # hung on it

    def _total(self, p: Any, grad: torch.Tensor) -> None:
        if not (self.enabled or self.watching):
            return
        if p.total is not None and self.enabled:
            raise UnaccountedStep(
                "two backward passes in one batch: call optimizer.step() and zero_grad() after each"
            )
        kept = grad.detach().clone()
        p.total = kept if p.total is None else p.total + kept

    def clear(self) -> None:
        """Forget the batch's gradients."""
        for p in self.model.parameters():
            p.grad_sample = p.factors = p.total = None  # type: ignore[attr-defined]  # hung on it

    def cleanup(self) -> None:
        """Take everything off the model."""
        for handle in self._handles:
            handle.remove()
        for p in self.model.parameters():
            for name in HUNG:
                if hasattr(p, name):
                    delattr(p, name)

    def forbid_grad_accumulation(self) -> None:
        """What Opacus' engine asks for: a second backward pass in one batch is refused anyway."""


def gradient_left(model: nn.Module) -> dict[str, torch.Tensor]:
    """Autograd's gradient of a batch by parameter, whatever the loop did to `p.grad` afterwards where hooks saw it."""
    seen = {name: getattr(p, "total", None) for name, p in model.named_parameters()}
    if any(isinstance(total, torch.Tensor) for total in seen.values()):
        return {name: total for name, total in seen.items() if total is not None}
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def rows_left(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a batch left: rows (n, k) by parameter."""
    parts = {name: factors.part_of(p) for name, p in model.named_parameters()}
    return {name: factors.written_out(part) for name, part in parts.items() if part is not None}


def agreed(
    parts: list[factors.Part],
    squares: list[torch.Tensor],
    totals: list[torch.Tensor | None],
    scale: float,
    names: list[str],
    only: int | None = None,
) -> None:
    """Raises UnaccountedStep unless each parameter's (or the one's at `only`) rows add up to autograd's own
    gradient, times `scale`.

    The tolerance is the square root of the number format's precision, of the sum of the examples' norms at most.
    """
    whole = torch.stack([s.cpu() for s in squares]).sum(dim=0)
    reach = math.sqrt(len(whole) * float(whole.sum()))
    for at, (part, total, name) in enumerate(zip(parts, totals, names, strict=True)):
        if total is None or only not in (None, at):
            continue
        apart = float((factors.plain_sum(part).to(total.device) - total.reshape(-1).float() * scale).norm())
        if not apart <= 3 * math.sqrt(torch.finfo(total.dtype).eps) * reach + 1e-30:
            raise UnaccountedStep(unseen(name, used=True))


def unseen(name: str, used: bool) -> str:
    """Why a parameter has no rows, or wrong ones, and what to do."""
    if used:
        return (
            f"{name} is used outside the module that holds it, or by a module that does not treat examples alike: its "
            "per-example gradients are not those of the loss, and the clip would bound nothing. Call a module in place "
            "of a function of the weight (a second nn.Linear whose weight is the same parameter, say)"
        )
    return (
        f"{name} has no fresh per-example gradients: expected one backward pass through the given model for every "
        "batch, and every trainable parameter in use; call optimizer.zero_grad() once per batch, freeze parameters "
        "that are not used"
    )


def reaches(loss: torch.Tensor, model: nn.Module) -> bool:
    """Whether differentiating the loss gives a parameter of the model a gradient."""
    parameters = {id(p) for p in model.parameters() if p.requires_grad}
    seen, todo = set[Any](), [loss.grad_fn]
    while todo:
        node = todo.pop()
        held = getattr(node, "variable", None)
        # expanded weights stand before the parameter
        if id(getattr(held, "orig_weight", held)) in parameters:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            todo += [each for each, _ in node.next_functions]
    return False


def _seen(name: str, module: nn.Module, inputs: list[torch.Tensor], output: torch.Tensor) -> Seen:
    shapes = tuple(tuple(t.shape) for t in inputs)
    return Seen(name, shapes, tuple(output.shape), isinstance(module, nn.EmbeddingBag))


def _written(table: torch.Tensor, words: LookedUp, some: slice) -> samplers.Rows:
    return {table: words.rows(some)}


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
