"""Per-example gradients that are never all there at once: of looked-up words, and rows made twice, a few examples at a
time.

What a parameter holds in place of rows (n, k), with the same norms and the same exact sums of rounded rows. How one
call's rows are made belongs to `samplers`, outer products of linear layers to `factors`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from dp.sample import sums
from dp.sample.errors import UnaccountedStep

Tensor = torch.Tensor
Make = Callable[[slice], dict[Tensor, Tensor]]
"""Rows (m, *shape) of a call's parameters, for these examples of the batch."""
KEPT = 2**24
"""Values of rows that a batch may keep, 64 MiB in float32: below that nothing is made twice."""
BLOCK = 2**22
"""Values of rows that are there at once where they are made twice; one example's at least."""


class LookedUp:
    """Rows of a table of which each example reads a few lines: (m, width) values, each line of an example once.

    owner, line: (m,), whose value it is and where it stands in a table of `lines`. size: examples.
    """

    def __init__(self, owner: Tensor, line: Tensor, values: Tensor, size: int, lines: int) -> None:
        places, which = torch.unique(owner * lines + line, return_inverse=True)
        wide = values if values.dtype == torch.float64 else values.float()
        self.values = wide.new_zeros(len(places), wide.shape[1]).index_add_(0, which, wide)
        self.owner, self.line, self.size, self.lines = places // lines, places % lines, size, lines

    def __len__(self) -> int:
        return self.size

    def squared(self) -> Tensor:
        """Squared norm of each example's rows, float64 (n,)."""
        each = self.values.double().pow(2).sum(dim=1)
        return each.new_zeros(self.size).index_add_(0, self.owner, each).cpu()

    def summed(self, scale: Tensor, step: float) -> Tensor:
        """Sum over examples of rint(scale x row / step), int64 (k,), exact."""
        factor = (scale.to(torch.float64) / step).to(self.values.device)[self.owner]
        return self._added(torch.round(self.values.double() * factor[:, None]).to(torch.int64))

    def plain_sum(self) -> Tensor:
        """The unclipped sum, (k,)."""
        return self._added(self.values)

    def _added(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.lines, values.shape[1]).index_add_(0, self.line, values).reshape(-1)

    def rows(self, some: slice = slice(None)) -> Tensor:
        """Written out, (m, lines, width), for these examples."""
        first, stop, _ = some.indices(self.size)
        mine = (self.owner >= first) & (self.owner < stop)
        made = self.values.new_zeros(stop - first, self.lines, self.values.shape[1])
        made[self.owner[mine] - first, self.line[mine]] = self.values[mine]
        return made

    def without(self, broken: Tensor) -> "LookedUp":
        """Zero for the examples that `broken` (n,) marks."""
        gone = broken.to(self.owner.device)[self.owner]
        self.values = self.values.masked_fill(gone[:, None], 0.0)
        return self


class Calls:
    """Calls whose rows are made when they are asked for, a block of examples at a time, for all their parameters.

    Rows are made twice: once for norms, once for the sum. What is added never exceeds the norms that were told: a row
    that the second time is longer is shrunk to the first time's length, parameter by parameter, so that an example's
    contribution is bounded by the clip however rows are rounded.
    """

    def __init__(self, size: int) -> None:
        self.size, self.parameters, self._read = size, list[Any](), list[tuple[Tensor, int]]()
        self._makers: list[Make] = []
        self._broken: Tensor | None = None
        self._squares: dict[Any, Tensor] | None = None
        self._sums: tuple[Tensor, dict[Any, Tensor]] | None = None

    def add(self, own: Iterable[Any], make: Make, read: Iterable[Tensor]) -> None:
        """A call: its parameters, what makes their rows, and the tensors from which."""
        self.parameters += [p for p in own if not any(p is other for other in self.parameters)]
        self._makers.append(make)
        self._read += [(tensor, tensor._version) for tensor in read]

    def take(self, other: "Calls") -> None:
        """Another's calls too: some call shares parameters with both."""
        self.parameters, self._makers = self.parameters + other.parameters, self._makers + other._makers
        self._read += other._read

    def blocks(self) -> Iterator[tuple[slice, dict[Any, Tensor]]]:
        """Rows (m, k) of every parameter, block after block. Raises UnaccountedStep where an input was written to."""
        if any(tensor._version != version for tensor, version in self._read):
            raise UnaccountedStep(
                "what a module read was written to before optimizer.step(): its examples' gradients are made from it "
                'there under gradients="ghost"; write to no input in place, or take gradients="hooks"'
            )
        most = max(1, BLOCK // sum(p.numel() for p in self.parameters))
        for at in range(0, self.size, most):
            some = slice(at, min(at + most, self.size))
            rows: dict[Any, Tensor] = {}
            for make in self._makers:
                for p, made in make(some).items():
                    rows[p] = sums.rows(made) if p not in rows else rows[p] + sums.rows(made)
            yield some, {p: self._left(made, some) for p, made in rows.items()}

    def _left(self, rows: Tensor, some: slice) -> Tensor:
        if self._broken is None:
            return rows
        return rows.masked_fill(self._broken[some, None].to(rows.device), 0.0)

    def squares(self, p: Any) -> Tensor:
        """Squared norms of a parameter's rows, float64 (n,)."""
        if self._squares is None:
            found: dict[Any, list[Tensor]] = {each: [] for each in self.parameters}
            for _, rows in self.blocks():
                for each, made in rows.items():
                    found[each].append(sums.squared_norms(made).cpu())
            self._squares = {each: torch.cat(parts) for each, parts in found.items()}
        return self._squares[p]

    def summed(self, p: Any, scale: Tensor, step: float) -> Tensor:
        """Sum over examples of rint(scale x row / step), int64 (k,), exact; for one scale of all parameters."""
        if self._sums is None or self._sums[0] is not scale:
            self._sums = (
                scale,
                {
                    each: torch.zeros(each.numel(), dtype=torch.int64, device=each.device)
                    for each in self.parameters
                },
            )
            for some, rows in self.blocks():
                for each, made in rows.items():
                    told, now = self.squares(each)[some], sums.squared_norms(made).cpu()
                    held = torch.where(now > told, (told / now).sqrt(), 1.0)
                    self._sums[1][each] += sums.grid_sum(made, scale[some] * held, step)
        return self._sums[1][p]

    def without(self, broken: Tensor) -> None:
        """Zero for the examples that `broken` (n,) marks."""
        self._broken = broken
        if self._squares is not None:
            self._squares = {p: told.masked_fill(broken, 0.0) for p, told in self._squares.items()}


class Again:
    """One parameter's part of `Calls`."""

    def __init__(self, calls: Calls, parameter: Any) -> None:
        self.calls, self._p = calls, parameter

    def __len__(self) -> int:
        return self.calls.size

    def squared(self) -> Tensor:
        """Squared norm of each example's row, float64 (n,)."""
        return self.calls.squares(self._p)

    def summed(self, scale: Tensor, step: float) -> Tensor:
        """Sum over examples of rint(scale x row / step), int64 (k,), exact."""
        return self.calls.summed(self._p, scale, step)

    def plain_sum(self) -> Tensor:
        """The unclipped sum, (k,)."""
        return torch.stack([rows[self._p].sum(dim=0) for _, rows in self.calls.blocks()]).sum(dim=0)

    def rows(self) -> Tensor:
        """Written out, (n, k)."""
        return torch.cat([rows[self._p] for _, rows in self.calls.blocks()])

    def without(self, broken: Tensor) -> "Again":
        """Zero for the examples that `broken` (n,) marks."""
        self.calls.without(broken)
        return self
