"""The example that moves a clipped sum most, as far as it is found: removals, exchanges and gradient ascent.

Candidates are the data's own examples, the same with labels and inputs changed, examples whose floating
point inputs climb the norm of their own gradient, whole and parameter by parameter, and these far from nought, where
what inputs have in common cancels; then one more of many alike, where what is divided by their number is rounded. No
verdicts here.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from protocols.errors import SecAggError

OTHERS = 16
"""Examples in the sum, the one that is exchanged among them."""

ALIKE = (509, 998)
"""Examples all alike, to which another is added: no powers of two, by which nothing is rounded."""
FAR = 1e4
"""How far from nought, in its largest values, the second of two kinds of such examples is."""
ROWS = 2**24
"""Values of rows that as many may take in memory; larger crowds are left out."""
OFFSETS = tuple(10.0 ** (at / 2) for at in range(2, 12))
"""Added to all of an input, times its largest value."""


class Tried(Protocol):
    """What is audited: a model, its step and a few of its examples."""

    model: nn.Module
    step: Any
    loader: Any
    largest: int

    def few(self, count: int) -> Any: ...


def movement(bench: Tried, summed: Callable[[Any], torch.Tensor], clip: float, ascent: int) -> float:
    """The most clips by which one more example changes `summed(data)`, over all candidates, and over the first few in
    a batch as large as any. Raises what a step raises on the data's own examples; a candidate that the model does not
    take is passed over."""
    few, data = list(bench.few(OTHERS)), bench.loader.dataset
    large = [data[at % len(data)] for at in range(bench.largest)]
    most = _moved(summed, few, 6, candidates(bench, few, ascent))
    most = max(most, _moved(summed, large, 2, islice(candidates(bench, few, 0), 7)))
    return max(most, _crowded(bench, summed, few[0]) if ascent else 0.0) / clip


def _crowded(bench: Tried, summed: Callable[[Any], torch.Tensor], example: Any) -> float:
    """The most by which one more of many examples alike moves their sum."""
    width, most = sum(p.numel() for p in bench.model.parameters() if p.requires_grad), 0.0
    for alike in (example, _mapped(example, partial(_far, FAR))):
        for many in ALIKE:
            if many * width > ROWS:
                break
            try:
                one, more = summed([alike] * many), summed([alike] * (many + 1))
            except (RuntimeError, ValueError, IndexError, SecAggError):  # the model takes no such example
                continue
            most = max(most, float((more - one).norm()))
    return most


def _moved(
    summed: Callable[[Any], torch.Tensor], examples: list[Any], removals: int, tried: Iterator[Any]
) -> float:
    most, whole, rest = 0.0, summed(examples), examples[1:]
    for at in range(min(removals, len(examples))):
        most = max(most, float((whole - summed(examples[:at] + examples[at + 1 :])).norm()))
    without = summed(rest)
    for candidate in tried:
        try:
            most = max(most, float((summed([*rest, candidate]) - without).norm()))
        except (RuntimeError, ValueError, IndexError, SecAggError):  # the model takes no such example
            continue
    return most


def candidates(bench: Tried, examples: list[Any], ascent: int) -> Iterator[Any]:
    """Examples that may move a sum by more than their share."""
    first = examples[0]
    for other in examples[1:3]:
        yield _joined(first, other)
        yield _joined(other, first)
    for factor in (0.0, 10.0, 1000.0):
        yield _mapped(first, partial(_scaled, factor))
    for other in examples[:4]:
        yield _mapped(first, partial(_filled, other))
    names: list[str | None] = [None, *[n for n, p in bench.model.named_parameters() if p.requires_grad]][:5]
    for name in names if ascent else ():
        climbed = _climbed(bench, first, name, ascent)
        if climbed is not None:
            yield climbed
            for base in (first, climbed) if name is None else ():
                yield from (_mapped(base, partial(_far, offset)) for offset in OFFSETS)


def _leaves(example: Any) -> tuple[list[Any], Any]:
    return tree_flatten(example)


def _mapped(example: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    leaves, spec = _leaves(example)
    return tree_unflatten([change(x) if isinstance(x, torch.Tensor) else x for x in leaves], spec)


def _joined(one: Any, other: Any) -> Any:
    """The first leaf of one example, the rest of another: its input under a foreign label."""
    (a, spec), (b, _) = _leaves(one), _leaves(other)
    return tree_unflatten([*a[:1], *b[1:]], spec)


def _scaled(factor: float, leaf: torch.Tensor) -> torch.Tensor:
    return leaf * factor if leaf.is_floating_point() else leaf


def _far(offset: float, leaf: torch.Tensor) -> torch.Tensor:
    """All of an input moved the same way: what its places have in common grows, their differences stay."""
    return leaf + offset * float(leaf.abs().max()) if leaf.is_floating_point() and leaf.numel() else leaf


def _filled(other: Any, leaf: torch.Tensor) -> torch.Tensor:
    """Every whole number of an input the same, one that another example holds."""
    values = [
        x for x in _leaves(other)[0] if isinstance(x, torch.Tensor) and x.dtype == leaf.dtype and x.numel()
    ]
    if leaf.is_floating_point() or not leaf.dim() or not values:
        return leaf
    return torch.full_like(leaf, int(values[0].reshape(-1)[-1]))


def _climbed(bench: Tried, example: Any, name: str | None, steps: int) -> Any:
    """The example after ascent on the norm of its gradient (of one parameter's part); None where there is no way."""
    leaves, spec = _leaves(bench.loader.collate_fn([example]))
    free = [
        at for at, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
    trained = [p for n, p in bench.model.named_parameters() if p.requires_grad and name in (None, n)]
    moved = {at: leaves[at].detach().clone().requires_grad_(True) for at in free}
    if not free:
        return None
    try:
        for _ in range(steps):
            given = tree_unflatten([moved.get(at, leaf) for at, leaf in enumerate(leaves)], spec)
            value = bench.step(bench.model, given, bench.step.criterion)
            rows = torch.autograd.grad(value, trained, create_graph=True, allow_unused=True)
            length = torch.stack([row.pow(2).sum() for row in rows if row is not None]).sum().add(1e-20).log()
            ways = torch.autograd.grad(length, list(moved.values()), allow_unused=True)
            for (at, leaf), way in zip(list(moved.items()), ways, strict=True):
                if way is not None and bool(torch.isfinite(way).all()) and float(way.norm()) > 0:
                    stride = 0.5 * (float(leaf.detach().norm()) + 1.0) / float(way.norm())
                    moved[at] = (leaf.detach() + stride * way).requires_grad_(True)
    except RuntimeError:  # no second derivative, or no path from the input
        return None
    done = [moved[at].detach()[0] if at in moved else leaf[0] for at, leaf in enumerate(leaves)]
    return tree_unflatten(done, spec)
