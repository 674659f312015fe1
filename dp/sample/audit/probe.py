"""The check before training: are the rows that a gradient mode makes those of single examples, in this very loop?

A few examples pass through the user's own loop: one by one (in small batches of copies) for reference, where
autograd alone differentiates, and as one batch, whose size no other dimension has, for the rows. Layouts and
the loss's reduction are found; what does not agree is refused by parameter. Then every example passes, in a batch
and in a part of it, whose gradients must add up: a divisor that follows the batch shows, whatever computes it.
Parameters move a little for the check, so that zeros hide nothing, and are put back bit by bit. No example's figures
leave this module.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice
from random import SystemRandom
from typing import Any

import torch
from torch import nn

from dp.sample.audit.compare import MIXED, Comparison, Gradients, ParameterVerdict, apart, tolerance
from dp.sample.audit.steady import DRAWS, steady
from dp.sample.errors import NonFiniteGradient, NotPerExample, UnaccountedStep
from dp.sample.expanded import Expanded
from dp.sample.guard import changed_outside, difference, snapshot
from dp.sample.hooks import RowHooks, gradient_left, rows_left
from dp.sample.layout import PACKED, Ambiguous, Layout, Layouts, Seen, found
from dp.sample.memory import Memory, forgets, put_back, remembered, written
from dp.sample.sums import LARGEST
from dp.sample.targets import OwnLosses
from protocols.errors import Misuse

SIZES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
CHUNKS = 12
"""Batches that are compared with their parts, at least: two parts agree by chance in less than one of two."""


class Enough(BaseException):
    """Ends the user's loop once the last probe batch is done; not an Exception, so that no loop swallows it."""


@dataclass(frozen=True)
class Probed:
    """What the check found: where examples lie, how the loss reduces, a verdict per parameter, examples used, and
    attributes of the model that a first pass writes, whatever the batch."""

    layouts: Layouts
    reduction: str
    verdicts: tuple[ParameterVerdict, ...]
    size: int
    constants: Memory = field(default_factory=dict)

    def insist(self) -> "Probed":
        """Itself. Raises NotPerExample naming each parameter that is refused or not used."""
        wrong = {v.name: v.reason for v in self.verdicts if v.status in ("refused", "unused")}
        if wrong:
            raise NotPerExample(wrong)
        return self


class Probe:
    """One check, driven by `script` (the batches) and `step` (called where the loop steps its optimizer).

    fetch: indices -> a batch of these examples, as the loop gets it. count: of examples in the data. largest: most that
    training may give the loop at once. mode: what makes the rows. copies: how often an example is repeated where it is
    the only one. known: what a check of this loop found, by which only the data are new. seen: whether the data have
    passed before. public: how many batches there are follows this number of examples, not `count`: what a loop counts
    goes on from there.
    """

    def __init__(
        self,
        model: nn.Module,
        fetch: Callable[[list[int]], Any],
        count: int,
        largest: int,
        mode: "RowHooks | Expanded",
        copies: int = 2,
        known: "Probed | None" = None,
        seen: bool = False,
        public: int | None = None,
        criterion: Any = None,
    ) -> None:
        self.model, self._fetch, self._count, self._mode, self._copies = model, fetch, count, mode, copies
        self._known, self._seen, self._largest, self._public = known, seen, largest, public or count
        self._criterion = criterion
        self._hooks = mode if isinstance(mode, RowHooks) else None
        self._named = dict(model.named_parameters())
        self._tolerance = tolerance(self._named.values())
        self._got: Gradients = {}
        self.listening = self._stepped = False
        self.batches = 0
        self.result: Probed | None = None

    # -- what the loop does --

    def drive(self, run: Callable[[], object]) -> Probed:
        """Call the loop, as often as it takes, until the script is done. Raises UnaccountedStep for a loop that
        takes no batch, takes no step or changes parameters."""
        before, self._memory = snapshot(self.model), remembered(self.model, self._criterion)
        with OwnLosses(), steady() as self._again:
            try:
                self._move()
                while self.result is None:
                    done = self.batches
                    try:
                        run()
                    except Enough:
                        continue
                    except RuntimeError as error:
                        if self._hooks is not None or not self.listening:
                            raise
                        raise NotPerExample({"(the model)": f'{error}; take gradients="hooks"'}) from error
                    if self.batches == done:
                        raise UnaccountedStep(
                            "the loop took no batch from the loader that it was given, or left its pass before the "
                            "end: go on to the loader's end in every call of the train function"
                        )
            finally:
                put_back(self.model, self._memory, self._criterion)
                for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
                    tensor.data.copy_(before[name])
                    tensor.grad = None
                if self._hooks is not None:
                    self._hooks.faults = self._hooks.seen = None
        return self.result  # set by the script's last batch

    def step(self) -> None:
        """The loop steps: read what its backward pass left, change nothing."""
        self._stepped = True
        if self.listening:
            self._got = rows_left(self.model)
        else:
            self._got = gradient_left(self.model)

    def _move(self, factor: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(0)
        for p in self._named.values():
            if p.requires_grad and p.is_floating_point():
                noise = torch.randn(p.shape, generator=generator).to(p)
                p.data.add_(noise * (0.1 * float(p.detach().float().pow(2).mean().sqrt()) + 0.01)).mul_(
                    factor
                )
        self._still = snapshot(self.model)

    # -- the script --

    def _take(self, indices: list[int], listen: str = "", draw: int = 0) -> Iterator[Any]:
        """One batch through the loop; `self._got` holds its gradients afterwards."""
        self._stepped, self.listening = False, bool(listen)
        for p in self._named.values():
            p.grad = None
        self._mode.listen(self.listening, len(indices), listen or "mean")
        self._again(draw)
        self.batches += 1
        yield self._fetch(indices)
        if not self._stepped:
            raise UnaccountedStep(
                "a batch was drawn but no optimizer.step() followed; step once for every batch"
            )
        name = difference(self.model, self._still)
        if name is not None:
            raise UnaccountedStep(changed_outside(name))

    def script(self) -> Iterator[Any]:
        """The batches, in turn; between two of them the loop has stepped."""
        probed = self._known or (yield from self._layouts_and_rows())
        if not self._seen:
            mixed, layouts, packed = yield from self._everywhere(probed)
            why = dict.fromkeys(mixed, MIXED) | {
                name: f"{module}: {PACKED}"
                for module in packed
                for name in self._named
                if self._holds(module, name)
            }
            verdicts = tuple(
                ParameterVerdict(v.name, "refused", why[v.name], v.error)
                if v.status in ("sound", "not checked") and v.name in why
                else v
                for v in probed.verdicts
            )
            probed = replace(probed, layouts=layouts, verdicts=verdicts)
        yield from self._forgotten(probed.constants)
        self.result = probed
        raise Enough

    def _everywhere(self, probed: "Probed") -> Generator[Any, None, tuple[set[str], Layouts, set[str]]]:
        """Parameters whose gradient of a batch is not that of its two parts together: every example, a batch as large
        as any, then some with larger parameters, which cross other thresholds. And the layouts with how many rows every
        example has, and modules in which they lie packed."""
        mixed: set[str] = set()
        seen: list[tuple[list[Seen], int]] = []
        usual = min(48, max(6, self._public // 32))
        many = max(CHUNKS, -(-self._public // usual))
        drawn = chain.from_iterable(SystemRandom().sample(range(self._count), self._count) for _ in count())
        many_of = (
            (min(max(usual, -(-self._count // many)), max(usual, self._largest)), many),
            (max(usual, self._largest), 1),
            (usual, 2),
            (usual, 2),
        )
        for turn, (size, batches) in enumerate(many_of):
            if turn > 1:
                self._move(4.0)
            cut = max(2, size // 3)
            shares = (1.0, 1.0) if probed.reduction == "sum" else (cut / size, 1 - cut / size)
            for at in range(batches):
                batch, grads = list(islice(drawn, size)), []
                for indices in (batch, batch[:cut], batch[cut:]):
                    seen.append((self._record(), len(indices)))
                    put_back(self.model, self._memory, self._criterion, objects=False)
                    yield from self._take(indices, draw=at % len(DRAWS))
                    grads.append(self._gradients())
                    self._insist_forgotten(probed.constants)
                mixed |= apart(self._named, grads, shares, (30.0 if turn > 1 else 2.0) * self._tolerance)
        layouts, packed = probed.layouts.counted(seen)
        if self._hooks is not None:
            self._hooks.seen, self._hooks.layouts = None, layouts
        return mixed, layouts, packed

    def _layouts_and_rows(self) -> Generator[Any, None, Probed]:
        small = self._record()
        yield from self._take([0] * self._copies)
        first, constants = self._gradients(), remembered(self.model, self._criterion)
        size = self._size(small)
        large = self._record()
        yield from self._take([0] * size)
        layouts, faults = self._layouts(small, large, size)
        if self._hooks is not None:
            self._hooks.layouts = layouts
        indices, references = yield from self._references(size)
        yield from self._take(indices)
        whole = self._gradients()
        comparison = Comparison(self._named, references, whole, first, self._copies, self._tolerance)
        for draw in range(1, len(DRAWS)):
            pair = [indices[size * at // (len(DRAWS) + 2)] for at in (draw, draw + 2)]
            comparison.mixed |= yield from self._mixed(pair, draw)
        errors: dict[str, float] = {}
        for turn in range(2):
            if self._hooks is not None:
                self._hooks.layouts, self._hooks.faults = layouts, {}
            yield from self._take(indices, comparison.reduction)
            errors = comparison.errors(self._gradients())
            wrong = self._folded(layouts, {name for name, error in errors.items() if error > comparison.most})
            if turn or not wrong:
                break
            layouts = layouts.turned(wrong)
        if self._hooks is not None:
            faults = (self._hooks.faults or {}) | faults
        verdicts = tuple(comparison.verdict(name, errors, self._fault(name, faults)) for name in self._named)
        return Probed(layouts, comparison.reduction, verdicts, size, constants)

    def _forgotten(self, constants: Memory) -> Iterator[Any]:
        """Two batches in turn leave what a first pass leaves, whichever batch it is; and the last example by itself."""
        self._insist_forgotten(constants)
        for index in (0, self._count - 1):
            yield from self._take([index] * self._copies)
            self._insist_forgotten(constants)
        put_back(self.model, self._memory, self._criterion, objects=False)
        yield from self._take([self._count - 1] * self._copies)
        self._insist_forgotten(constants)

    def _insist_forgotten(self, constants: Memory) -> None:
        """Raises NotPerExample for an attribute that holds something of the batches: other than a first pass leaves,
        whichever batch it is."""
        if name := written(self.model, self._memory, constants, self._criterion, passed=True):
            raise NotPerExample({name: forgets(name)})

    def _references(self, size: int) -> Generator[Any, None, tuple[list[int], list[Gradients]]]:
        """`size` examples with finite gradients, spread over the data and repeated where there are fewer, and each
        one's gradients by itself. Raises NonFiniteGradient where there is none: whether one is left out is not told.
        """
        spread = [at * self._count // size for at in range(size)]
        indices, references = list[int](), list[Gradients]()
        for tried, index in enumerate([*spread, *range(self._count)]):
            if tried >= size and indices:
                break
            yield from self._take([index] * self._copies)
            got = self._gradients()
            if sum(float(gradient.double().pow(2).sum()) for gradient in got.values()) <= LARGEST**2:
                indices.append(index)
                references.append(got)
        if not indices:
            raise NonFiniteGradient(
                "expected an example with a finite gradient, got NaN or infinity in all of them"
            )
        turns = [at % len(indices) for at in range(size)]
        return [indices[at] for at in turns], [references[at] for at in turns]

    def _mixed(self, pair: list[int], draw: int) -> Generator[Any, None, set[str]]:
        """Parameters of which two examples' gradient is not their mean, under another draw of random numbers."""
        alone = []
        for index in pair:
            yield from self._take([index] * self._copies, draw=draw)
            alone.append(self._gradients())
        yield from self._take(pair, draw=draw)
        return Comparison(
            self._named, alone, self._gradients(), alone[0], self._copies, self._tolerance
        ).mixed

    def _gradients(self) -> Gradients:
        got, self._got = self._got, {}
        return got

    def _record(self) -> list[Seen]:
        seen: list[Seen] = []
        if self._hooks is not None:
            self._hooks.seen = seen
        return seen

    def _size(self, seen: list[Seen]) -> int:
        shapes = [shape for call in seen for shape in (*call.inputs, call.output)]
        taken = {length for shape in [*shapes, *(p.shape for p in self._named.values())] for length in shape}
        free = [size for size in SIZES if size not in taken]
        if not free:
            raise Misuse(
                f"expected a model with none of the dimensions {SIZES}, whose batches can be told apart"
            )
        return free[0]

    def _layouts(self, small: list[Seen], large: list[Seen], size: int) -> tuple[Layouts, dict[str, str]]:
        if self._hooks is None:
            return Layouts(), {}
        self._hooks.seen = None
        calls: dict[str, list[Layout]] = {}
        faults: dict[str, str] = {}
        for name in {call.name for call in small}:
            few, many = ([call for call in calls if call.name == name] for calls in (small, large))
            try:
                if len(few) != len(many):
                    raise Ambiguous(
                        f"it is called {len(few)} times for {self._copies} examples, {len(many)} times for {size}: "
                        "give it the whole batch at once"
                    )
                calls[name] = [found(a, b, (self._copies, size)) for a, b in zip(few, many, strict=True)]
            except Ambiguous as reason:
                faults[name] = str(reason)
        return Layouts(calls), faults

    def _folded(self, layouts: Layouts, wrong: set[str]) -> set[str]:
        calls = (layouts.calls or {}).items()
        return {
            name
            for name, of in calls
            if any(c.folded for c in of) and any(self._holds(name, p) for p in wrong)
        }

    def _holds(self, module: str, parameter: str) -> bool:
        if self._hooks is None:
            return False
        return any(p is self._named[parameter] for p in self._hooks.modules[module].parameters())

    def _fault(self, parameter: str, faults: dict[str, str]) -> str:
        return next(
            (f"{module}: {why}" for module, why in faults.items() if self._holds(module, parameter)), ""
        )
