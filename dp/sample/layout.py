"""Where a batch's examples lie in what a module reads and gives. No gradients here.

A layout is found once, by `dp.sample.audit.probe`: the same example as a batch of two sizes; the axis that grows is
the examples' axis, whatever else has which length. An axis that holds several rows of each example (time
folded into the batch) is split. Without a probe the first axis is taken, and refused where it could be another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import nn

from dp.sample.errors import UnaccountedStep

Shape = tuple[int, ...]
AGNOSTIC = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)
"""Modules that read any number of leading axes alike: torch does not say which of them is the batch."""


@dataclass(frozen=True)
class Seen:
    """One call of one module: the shapes of its tensor inputs and of its output. bag: its input tells whose rows are
    whose (offsets)."""

    name: str
    inputs: tuple[Shape, ...]
    output: Shape
    bag: bool = False


@dataclass(frozen=True)
class Layout:
    """The examples' axis in each input (None: the same for every batch size) and in the output.

    inner: where an axis holds several rows of each example, the example is the faster index: row r belongs to
    example r mod n, not to example r div (rows of each). each: how many rows every example had on such axes, where it
    was the same number for all; empty where a batch brings them all to the longest one's.
    """

    inputs: tuple[int | None, ...] = (0,)
    output: int = 0
    folded: bool = False
    inner: bool = False
    each: tuple[Fraction, ...] = ()

    def __str__(self) -> str:
        axes = ", ".join("none" if axis is None else f"axis {axis}" for axis in self.inputs)
        rows = f", several rows each, {'example' if self.inner else 'row'} fastest" if self.folded else ""
        return f"examples on {axes}{rows}"

    def rows(self, seen: "Seen", size: int) -> tuple[Fraction, ...]:
        """Rows of each example in every input and the output of a call, on average over a batch of `size`."""
        inputs = [] if seen.bag else zip(seen.inputs, self.inputs, strict=False)
        shapes = [*inputs, (seen.output, self.output)]
        return tuple(Fraction(shape[axis], size) for shape, axis in shapes if axis is not None)

    def split(self, tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
        """(n, rows of each example, other axes), contiguous. Raises UnaccountedStep for another number of rows."""
        first = tensor.movedim(axis, 0)
        each, left = divmod(len(first), size)
        if left or not each or (each > 1 and not self.folded):
            raise UnaccountedStep(
                f"{len(first)} rows for the {size} examples drawn; take examples from the given loader only, "
                "and let every trainable module see the whole batch"
            )
        if self.inner:
            return first.reshape(each, size, *first.shape[1:]).transpose(0, 1).contiguous()
        return first.reshape(size, each, *first.shape[1:]).contiguous()


PACKED = (
    "examples have different numbers of rows on one axis, and where one's rows end and the next one's begin follows "
    "the whole batch: keep them on an axis of their own (examples, rows, ...), all padded to one length and masked, or "
    "take an nn.EmbeddingBag with offsets"
)
"""Why a call whose rows cannot be told apart is refused."""


class Ambiguous(Exception):
    """The examples' axis of a call cannot be told; the text says why, and what to do."""


def found(small: Seen, large: Seen, sizes: tuple[int, int]) -> Layout:
    """The layout of a call seen with the same example in batches of two sizes. Raises Ambiguous."""
    if len(small.inputs) != len(large.inputs):
        raise Ambiguous("it reads another number of inputs when the batch has another size")
    inputs = tuple(_axis(a, b, sizes) for a, b in zip(small.inputs, large.inputs, strict=True))
    output = _axis(small.output, large.output, sizes)
    if output is None or all(axis is None for axis in inputs):
        raise Ambiguous(
            "it reads or gives the same number of rows whatever the batch (positions, say), so that its gradient "
            "has no row per example: expand its input to the batch before it (x.expand(batch, ...))"
        )
    shapes = [*zip(large.inputs, inputs, strict=True), (large.output, output)]
    return Layout(inputs, output, any(a is not None and shape[a] != sizes[1] for shape, a in shapes))


def _axis(small: Shape, large: Shape, sizes: tuple[int, int]) -> int | None:
    differ = [at for at, (a, b) in enumerate(zip(small, large, strict=False)) if a != b]
    if len(small) == len(large) and not differ:
        return None
    if len(small) != len(large) or len(differ) > 1:
        raise Ambiguous(
            f"shapes {small} and {large} leave open which axis holds the examples: keep one such axis"
        )
    if small[differ[0]] * sizes[1] != large[differ[0]] * sizes[0]:
        raise Ambiguous(f"its rows do not grow with the batch: {small} and {large} for {sizes} examples")
    return differ[0]


class Layouts:
    """The layouts of a model's modules, by name and call; empty before a probe.

    Calls beyond those that were seen take the layout that all seen calls share.
    """

    def __init__(self, calls: dict[str, list[Layout]] | None = None) -> None:
        self.calls = calls

    @property
    def known(self) -> bool:
        """Whether a probe found them."""
        return self.calls is not None

    def of(self, seen: Seen, module: nn.Module, call: int, size: int) -> Layout:
        """The layout of one call. Raises UnaccountedStep where none is known, another one is possible, or examples have
        another number of rows than in the check."""
        name, known = seen.name, [] if self.calls is None else self.calls.get(seen.name, [])
        if self.calls is None:
            _unambiguous(name, module, seen.inputs[0], size)
            return Layout((0,) * len(seen.inputs))
        if call < len(known) or len(set(known)) == 1:
            found = known[min(call, len(known) - 1)]
            if found.each and found.rows(seen, size) != found.each:
                raise UnaccountedStep(f"{name}: {PACKED}; nothing is sent")
            return found
        raise UnaccountedStep(
            f"{name} is used in a way that the check before training did not see: its call {call + 1} has no "
            "known layout; use every trainable module in every step, in one layout"
        )

    def counted(self, batches: Sequence[tuple[Sequence[Seen], int]]) -> tuple["Layouts", set[str]]:
        """The same, with the rows that every example has; and modules whose rows lie packed. batches: what was seen of
        a batch and of its two parts, with their sizes, one after the other.

        Examples that are padded to the longest have as many rows in a batch as in one of its parts; rows that lie one
        example after the other have fewer, on average, where one example has more or fewer than others.
        """
        packed, each = set[str](), dict[tuple[str, int], set[tuple[Fraction, ...]]]()
        for at in range(0, len(batches), 3):
            whole, *parts = (self._rows(*batch) for batch in batches[at : at + 3])
            for key, rows in whole.items():
                of = [part.get(key, rows) for part in parts]
                if rows != tuple(map(max, *of)) or any(n.denominator > 1 for n in rows):
                    packed.add(key[0])
                each.setdefault(key, set()).update((rows, *of))

        def only(found: set[tuple[Fraction, ...]]) -> tuple[Fraction, ...]:
            return found.pop() if len(found) == 1 else ()

        calls = {
            name: [
                replace(call, each=only(each.get((name, at), set())) if call.folded else ())
                for at, call in enumerate(of)
            ]
            for name, of in (self.calls or {}).items()
        }
        return Layouts(None if self.calls is None else calls), packed

    def _rows(self, seen: Sequence[Seen], size: int) -> dict[tuple[str, int], tuple[Fraction, ...]]:
        made: dict[tuple[str, int], tuple[Fraction, ...]] = {}
        for name in {call.name for call in seen}:
            of = [call for call in seen if call.name == name]
            known = (self.calls or {}).get(name, [])
            made |= {
                (name, at): a.rows(call, size) for at, (a, call) in enumerate(zip(known, of, strict=False))
            }
        return made

    def turned(self, names: set[str]) -> "Layouts":
        """The same, but folded axes of these modules have the example as the faster index."""
        calls = self.calls or {}
        return Layouts(
            {n: [replace(each, inner=n in names and each.folded) for each in of] for n, of in calls.items()}
        )


def _unambiguous(name: str, module: nn.Module, shape: Shape, size: int) -> None:
    features = 0 if isinstance(module, nn.Embedding) else 1
    if isinstance(module, AGNOSTIC) and size in shape[1 : len(shape) - features]:
        raise UnaccountedStep(
            f"{name} reads {shape}: for {size} examples several axes could hold them, and nothing was probed; call "
            "ClientEngine.probe(loop) before the loop (SampleDP does)"
        )
