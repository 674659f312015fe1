"""Secret Poisson batches: every example takes part in every step with the same probability, by a coin from
a cryptographic stream.

The loop sees a torch DataLoader. Empty batches never reach it (many models and losses cannot take them):
the private optimizer takes their step, which is noise alone and is counted. Large batches can be cut into
physical parts.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from dp.mechanisms import poisson_sample
from dp.sample.draws import Worker
from dp.sample.errors import UnaccountedStep
from protocols.errors import Misuse
from protocols.randomness import SecureRandom


class Steps(Protocol):
    """What the loader tells the optimizer side."""

    def expect(self, size: int, *, first: bool, last: bool) -> None: ...

    def empty(self) -> None: ...


class PoissonBatches(Sampler[list[int]]):
    """`count` batches per pass over range(size), each example in each batch with probability `rate`,
    independently."""

    def __init__(self, size: int, rate: float, count: int, random: SecureRandom) -> None:
        if size < 0 or not 0 < rate <= 1 or count < 1:
            raise Misuse(f"expected examples, a rate in (0, 1] and batches, got {size}, {rate}, {count}")
        self.size, self.rate, self.count, self.random = size, rate, count, random

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.count):
            yield poisson_sample(self.random, self.size, self.rate).tolist()

    def __len__(self) -> int:
        return self.count


class _PhysicalBatch:
    """A batch on its way to the loop: what it holds, how many examples, and its place in the logical
    batch."""

    def __init__(self, content: Any, size: int, first: bool, last: bool) -> None:
        self.content, self.size, self.first, self.last = content, size, first, last


class _Collate:
    """Collates a list of examples; an empty list becomes an empty part. Picklable, for worker processes."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, tagged: Sequence[Any]) -> _PhysicalBatch:
        (first, last), *examples = tagged
        return _PhysicalBatch(self.collate(examples) if examples else None, len(examples), first, last)


class _Tagged(torch.utils.data.Dataset[Any]):
    """The user's data set, with the index of a batch's place passed through. Examples are fetched one by one, whatever
    the data set would make of several at once (`__getitems__`); whole tensors are indexed at once."""

    def __init__(self, dataset: Any, at_once: bool) -> None:
        self.dataset, self.at_once = dataset, at_once

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        tag, *rest = indices
        if not rest:
            return [tag]
        if self.at_once:
            return [tag, rest]
        return [tag, *(self.dataset[i] for i in rest)]


class _CollateTensors:
    """Takes rows of whole tensors: what the default collation gives, without a Python step per example."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = tensors

    def __call__(self, tagged: Sequence[Any]) -> _PhysicalBatch:
        (first, last), *rest = tagged
        if not rest:
            return _PhysicalBatch(None, 0, first, last)
        index = torch.as_tensor(rest[0])
        return _PhysicalBatch([t[index] for t in self.tensors], len(index), first, last)


class _PhysicalBatches(Sampler[list[Any]]):
    """Cuts each logical batch into parts of at most `most` examples, each headed by its (first, last)
    tag."""

    def __init__(self, batches: PoissonBatches | list[list[int]], most: int | None) -> None:
        self.batches, self.most = batches, most

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.batches:
            most = self.most or max(1, len(batch))
            cuts = [batch[i : i + most] for i in range(0, len(batch), most)] or [[]]
            for at, cut in enumerate(cuts):
                yield [(at == 0, at == len(cuts) - 1), *cut]

    def __len__(self) -> int:
        return len(self.batches)


def _insist(loader: Any) -> None:
    """Raises Misuse for a loader that draws otherwise than torch's own, over a data set with a length: Poisson batches
    over the whole data set take the place of whatever it would have drawn."""
    dataset, batches = loader.dataset, loader.batch_sampler
    if isinstance(dataset, IterableDataset):
        raise UnaccountedStep(
            "expected a data set with a length and indices: Poisson sampling needs both, a stream has neither"
        )
    sampler = getattr(batches, "sampler", None)
    every = isinstance(sampler, SequentialSampler | RandomSampler) and len(sampler) == len(dataset)
    every = every and type(sampler) in (SequentialSampler, RandomSampler)
    for name, sound in (
        (
            f"{type(loader).__name__}.__iter__",
            type(loader).__iter__ in (DataLoader.__iter__, PrivateLoader.__iter__),
        ),
        (type(batches).__name__, type(batches) is BatchSampler),
        (type(sampler).__name__, every and not getattr(sampler, "replacement", False)),
    ):
        if not sound:
            raise UnaccountedStep(
                f"the loader draws by its own {name}, which Poisson batches over the whole data set would ignore: give "
                "the client a data set of its own examples (torch.utils.data.Subset), and DataLoader a batch_size"
            )


def _secret(name: str) -> Any:
    """An attribute of the loader through which every example can be read, or how many there are."""

    def read(loader: "PrivateLoader") -> Any:
        if loader.sealed:
            raise UnaccountedStep(
                f"loader.{name}: the loop sees secret batches alone; whatever else it reads of the examples, their "
                "number included, is neither clipped nor noised. Take constants that are public (a mean and deviation "
                "from public data, class weights) from outside the loop"
            )
        return getattr(loader._batches, name)

    return property(read)


class PrivateLoader(DataLoader[Any]):
    """A DataLoader over the same examples whose batches are secret Poisson batches.

    rate: each example's probability per step. count: steps per pass. most: largest physical batch (None: no limit).
    rows: the one batch, where it is chosen already. sealed: whether the data set is out of reach, as in a user's
    loop. Raises Misuse for a loader that draws by a sampler, a batch sampler or an iteration of its own.
    """

    dataset = _secret("dataset")
    sampler = _secret("sampler")
    batch_sampler = _secret("batch_sampler")
    collate_fn = _secret("collate_fn")
    batch_size = None
    drop_last = False

    def __init__(
        self,
        loader: DataLoader[Any],
        rate: float,
        count: int,
        random: SecureRandom,
        steps: Steps,
        most: int | None = None,
        rows: list[int] | None = None,
    ) -> None:
        _insist(loader)
        dataset: Any = loader.dataset
        whole = type(dataset) is TensorDataset and loader.collate_fn is default_collate
        batches = PoissonBatches(len(dataset), rate, count, random)
        self._steps, self.rate, self._whole, self.sealed, self._most = steps, rate, whole, False, most
        self.script: Iterator[Any] | None = None
        self._look = lru_cache(1024)(dataset.__getitem__)
        self._parts = _PhysicalBatches(batches if rows is None else [rows], most)
        self._batches: DataLoader[Any] = DataLoader(
            _Tagged(dataset, whole),
            batch_sampler=self._parts,
            collate_fn=_CollateTensors(dataset.tensors) if whole else _Collate(loader.collate_fn),
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=Worker(loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def __len__(self) -> int:
        return len(self._batches)

    def one_by_one(self) -> None:
        """From here on every example passes alone: its row is then its own whatever the loop, but for one that
        remembers."""
        self._parts.most = 1

    @property
    def _examples(self) -> int:
        """How many there are."""
        return len(self._batches.dataset)  # type: ignore[arg-type]  # has a length: checked above

    @property
    def _largest(self) -> int:
        """As many examples as the loop ever gets at once, but for one step in 10^10 (Bernstein); one more than there
        are where all come in each step."""
        mean = self.rate * self._examples
        drawn = math.ceil(mean + 7 * math.sqrt(mean)) + 20
        return min(drawn, self._most or drawn)

    def _fetch(self, indices: list[int]) -> Any:
        """These examples as the loop would get them; one that is drawn anew at each look is kept for the next looks."""
        if self._whole:
            return self._batches.collate_fn([(True, True), indices]).content
        return self._batches.collate_fn([(True, True), *map(self._look, indices)]).content

    def __iter__(self) -> Any:
        if self.script is not None:  # the check before training
            yield from self.script
            return
        for part in self._batches:
            if part.content is None:
                if part.last:
                    self._steps.empty()
                continue
            self._steps.expect(part.size, first=part.first, last=part.last)
            yield part.content
