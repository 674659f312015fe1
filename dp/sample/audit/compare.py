"""What the check before training compares: gradients of batches with those of their parts, rows with single examples.

What belongs here: distances, and the verdict on each parameter. What does not: how gradients come about (`probe`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from dp.sample import sums
from dp.sample.errors import NonFiniteGradient
from dp.sample.hooks import unseen

MIXED = (
    "an example's gradient changes with the others of its batch (padding to the longest, normalisation over the batch, "
    "a mean over all tokens or class weights, a loss that compares examples): make each example's loss its own"
)
STILL = "nothing could be checked: every gradient was zero; start from other parameters or other data"
"""Why a parameter is not called sound where no example moves it."""
Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ParameterVerdict:
    """One parameter: "sound", "not checked" (every gradient was zero), "frozen", "unused" or "refused", why, and the
    largest error seen, as a share of an example's whole gradient."""

    name: str
    status: str
    reason: str = ""
    error: float = 0.0


def tolerance(parameters: Iterable[Any]) -> float:
    """The square root of the coarsest number format's precision, that of float32 at least."""
    return math.sqrt(max(2.0**-23, *(torch.finfo(p.dtype).eps for p in parameters)))


def apart(
    named: dict[str, Any], gradients: list[Gradients], shares: tuple[float, ...], most: float
) -> set[str]:
    """Parameters whose gradient of a batch (the first) is not that of its parts (the others), each times its share.

    All of them where the whole one is longer or shorter along its way by more than `most`, which rounding in single
    parameters hardly moves and a divisor does; one where its own differs by fifteen times that.
    """
    names = [name for name, p in named.items() if p.requires_grad]
    whole, *parts = (
        torch.cat([g.get(name, torch.zeros_like(named[name])).reshape(-1).double().cpu() for name in names])
        for g in gradients
    )
    added = torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(dim=0)
    off, scale = whole - added, float(torch.stack(parts).norm()) + 1e-30
    if abs(float(off @ added)) > most * scale * float(added.norm()):
        return set(names)
    far = torch.split(off, [named[name].numel() for name in names])
    return {name for name, d in zip(names, far, strict=True) if float(d.norm()) > 15 * most * scale}


class Comparison:
    """References of single examples beside a batch's own gradient and a mode's rows."""

    def __init__(
        self,
        named: dict[str, Any],
        references: list[Gradients],
        whole: Gradients,
        again: Gradients,
        copies: int,
        tolerance: float,
    ) -> None:
        self._named = {name: p for name, p in named.items() if p.requires_grad}
        self._all = named
        stacked = {
            name: torch.stack([sums.rows((r.get(name, torch.zeros_like(p)))[None])[0] for r in references])
            for name, p in self._named.items()
        }
        for name, rows in stacked.items():
            if not bool(torch.isfinite(rows).all()):
                raise NonFiniteGradient(
                    f"expected finite per-example gradients, got NaN or infinity in {name}"
                )
        self._used = {name for r in [*references, whole] for name in r}
        self.most = 3 * tolerance
        mean = {name: rows.mean(dim=0) for name, rows in stacked.items()}
        scale = math.sqrt(sum(float(rows.norm(dim=1).mean()) ** 2 for rows in stacked.values())) or 1.0
        size = len(references)
        apart = {
            kind: {
                name: float((whole[name].reshape(-1).float() / factor - m.float()).norm()) / scale
                for name, m in mean.items()
                if name in whole
            }
            for kind, factor in (("mean", 1.0), ("sum", size / copies))
        }
        self.reduction = min(apart, key=lambda kind: sum(apart[kind].values()))
        self.mixed = {name for name, error in apart[self.reduction].items() if not error <= self.most}
        divisor = copies if self.reduction == "sum" else 1
        self.rows = {name: rows / divisor for name, rows in stacked.items()}
        self._lengths = torch.stack([r.double().norm(dim=1) for r in self.rows.values()]).norm(dim=0)
        self._random = any(
            float((again[name].reshape(-1).float() - references[0][name].reshape(-1).float()).norm())
            > self.most * scale
            for name in again
            if name in references[0]
        )

    def errors(self, rows: Gradients) -> dict[str, float]:
        """The largest distance of a parameter's rows from the references, as a share of the example's gradient."""
        return {name: self._error(rows.get(name), reference) for name, reference in self.rows.items()}

    def _error(self, got: torch.Tensor | None, reference: torch.Tensor) -> float:
        if got is None:
            return 0.0 if not reference.any() else math.inf
        if len(got) != len(reference):
            return math.inf
        apart = (got.double() - reference.double()).norm(dim=1)
        floor = float(self._lengths.max()) * 1e-6 + 1e-30
        return float((apart / self._lengths.clamp(min=floor)).max())

    def verdict(self, name: str, errors: dict[str, float], fault: str) -> ParameterVerdict:
        """What is said of one parameter."""
        if name not in self._named:
            return ParameterVerdict(name, "frozen")
        if name not in self._used:
            return ParameterVerdict(
                name, "unused", "the loss does not reach it, noise would: freeze it, or use it"
            )
        error = errors[name]
        if not fault and name not in self.mixed and error <= self.most:
            moves = bool(self.rows[name].any())
            return ParameterVerdict(name, *(("sound", "") if moves else ("not checked", STILL)), error)
        return ParameterVerdict(name, "refused", fault or self._why(name, error), error)

    def _why(self, name: str, error: float) -> str:
        if self._random:
            return (
                "two passes over one example differ: the loop draws random numbers that cannot be held still"
            )
        if name in self.mixed:
            return MIXED
        return (
            unseen(name, used=True)
            if not error < math.inf
            else (f"its rows are off by {error:.2g} of an example's gradient: " + unseen(name, used=True))
        )
