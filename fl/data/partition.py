"""Who holds which training example: iid, Dirichlet, few classes per client, or the natural clients.

Belongs here: index arithmetic, seeded by the user's seed (no claim of privacy rests on it). Sets are in
the modules beside.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from fl.data.dataset import DataSet, Labels
from fl.registry import Registry
from protocols.errors import Misuse

Split = dict[str, Labels]
"""Client id -> sorted indices into the training examples, disjoint; clients in a fixed order."""

PARTITIONS = Registry(
    "partition",
    "secagg_toolkit.partitions",
    {
        "iid": "fl.data.partition:Iid",
        "dirichlet": "fl.data.partition:Dirichlet",
        "classes": "fl.data.partition:ClassesPerClient",
        "natural": "fl.data.partition:Natural",
    },
)
"""Names for the command line and TOML: `dirichlet:alpha=0.3`, `classes:per_client=2`."""


class Partition(ABC):
    """A rule that says who holds which example. `minimum` is the least number of examples of a client."""

    minimum: int

    @abstractmethod
    def split(self, data: DataSet, clients: int | None, seed: int) -> Split:
        """The training examples of each of `clients` clients (None: as many as there naturally are).

        Equal seed, equal split. Raises Misuse where it is impossible: too few examples, classes or
        natural clients.
        """


@dataclass(frozen=True)
class Iid(Partition):
    """A random share of equal size for everyone; sizes differ by at most one."""

    minimum: int = 2

    def split(self, data: DataSet, clients: int | None, seed: int) -> Split:
        """See `Partition.split`."""
        count = _checked(data, clients, self.minimum)
        order = np.random.default_rng(seed).permutation(len(data.y_train))
        return _named(np.array_split(order, count))


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Every class is spread over the clients by shares from Dirichlet(alpha): small alpha, few classes
    per client.

    Hsu, Qi and Brown 2019; Li et al. (NIID-Bench) 2022. A client left with fewer than `minimum` examples
    takes the difference, at random, from those who then hold most.
    """

    alpha: float = 0.5
    minimum: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise Misuse(f"dirichlet: alpha is a positive finite number; it is {self.alpha}.")

    def split(self, data: DataSet, clients: int | None, seed: int) -> Split:
        """See `Partition.split`."""
        count = _checked(data, clients, self.minimum)
        generator = np.random.default_rng(seed)
        owner = np.empty(len(data.y_train), dtype=np.int64)
        labels = _labels(data)
        for label in np.unique(labels):
            members = generator.permutation(np.flatnonzero(labels == label))
            shares = _shares(generator, self.alpha, count)
            cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for client, part in enumerate(np.split(members, cuts)):
                owner[part] = client
        _top_up(owner, count, self.minimum, generator)
        return _named([np.flatnonzero(owner == client) for client in range(count)])


@dataclass(frozen=True)
class ClassesPerClient(Partition):
    """Each client holds exactly `per_client` classes; those who share a class get equal parts of it."""

    per_client: int = 2
    minimum: int = 2

    def split(self, data: DataSet, clients: int | None, seed: int) -> Split:
        """See `Partition.split`."""
        count = _checked(data, clients, self.minimum)
        labels = np.unique(_labels(data))
        if not 1 <= self.per_client <= len(labels):
            raise Misuse(
                f"{data.name} has {len(labels)} classes: per_client is from 1 to that; it is {self.per_client}."
            )
        if count * self.per_client < len(labels):
            raise Misuse(
                f"{count} clients of {self.per_client} classes hold at most {count * self.per_client} of the "
                f"{len(labels)} classes of {data.name}; take more clients or more classes per client."
            )
        generator = np.random.default_rng(seed)
        held = _deal(generator, count, len(labels), self.per_client)
        parts: list[list[Labels]] = [[] for _ in range(count)]
        for column, label in enumerate(labels):
            holders = np.flatnonzero(held[:, column])
            members = generator.permutation(np.flatnonzero(data.y_train == label))
            for client, part in zip(holders, np.array_split(members, len(holders)), strict=True):
                parts[client].append(part)
        split = _named([np.concatenate(part) for part in parts])
        least = min(len(indices) for indices in split.values())
        if least < self.minimum:
            raise Misuse(
                f"{count} clients of {self.per_client} classes of {data.name}: one would hold {least} examples, "
                f"the minimum is {self.minimum}; take fewer clients."
            )
        return split


@dataclass(frozen=True)
class Natural(Partition):
    """The clients that the data came from: hospitals, writers. Fewer than there are: a random choice of
    them.
    """

    minimum: int = 2

    def split(self, data: DataSet, clients: int | None, seed: int) -> Split:
        """See `Partition.split`."""
        if data.clients_train is None:
            raise Misuse(
                f"{data.name} has no natural clients; take another partition (iid, dirichlet, classes) or a set that "
                "has them (heart-disease, femnist, adult:clients_by=occupation)."
            )
        owners, sizes = np.unique(data.clients_train, return_counts=True)
        able = owners[sizes >= self.minimum]
        count = len(able) if clients is None else clients
        if not 1 <= count <= len(able):
            raise Misuse(
                f"{data.name} has {len(able)} natural clients with {self.minimum} examples or more; "
                f"{count} were asked for."
            )
        chosen = np.sort(np.random.default_rng(seed).choice(able, count, replace=False))
        return {data.client_names[owner]: np.flatnonzero(data.clients_train == owner) for owner in chosen}


def partition(data: DataSet, rule: str | Partition, clients: int | None = None, seed: int = 0) -> Split:
    """Splits by a rule or its registered name, such as `dirichlet:alpha=0.3`. Raises Misuse."""
    built = rule if isinstance(rule, Partition) else PARTITIONS.build(rule)
    if not isinstance(built, Partition):
        raise Misuse(
            f"{rule!r} must build an fl.data.partition.Partition; it built a {type(built).__name__}."
        )
    return built.split(data, clients, seed)


def _checked(data: DataSet, clients: int | None, minimum: int) -> int:
    """The number of clients, where every one can have `minimum` examples."""
    if clients is None:
        raise Misuse(
            f"{data.name}: say how many clients there are; only natural clients have a number of their own."
        )
    if clients < 1:
        raise Misuse(f"At least 1 client is needed; {clients} were asked for.")
    if minimum < 1:
        raise Misuse(f"A client holds at least 1 example; the minimum is {minimum}.")
    if clients * minimum > len(data.y_train):
        raise Misuse(
            f"{data.name} has {len(data.y_train)} training examples: too few for {clients} clients with "
            f"{minimum} or more each."
        )
    return clients


def _labels(data: DataSet) -> Labels:
    """One label per training example."""
    if data.y_train.ndim > 1:
        raise Misuse(
            f"{data.name} has several labels per example; split it with iid or natural, not by label."
        )
    return data.y_train


def _named(parts: list[Labels]) -> Split:
    width = max(2, len(str(len(parts) - 1)))
    return {f"client-{index:0{width}d}": np.sort(part).astype(np.int64) for index, part in enumerate(parts)}


def _shares(
    generator: np.random.Generator, alpha: float, count: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Dirichlet(alpha) over `count` clients; where alpha is so small that all underflow, one client has
    everything.
    """
    shares = generator.dirichlet(np.full(count, alpha))
    if not np.isfinite(shares).all() or shares.sum() < 0.5:
        shares = np.zeros(count)
        shares[generator.integers(count)] = 1.0
    return shares


def _top_up(owner: Labels, count: int, minimum: int, generator: np.random.Generator) -> None:
    """Gives every client at least `minimum` examples, in place, each time from the client who holds most."""
    sizes = np.bincount(owner, minlength=count)
    while sizes.min() < minimum:
        poorest, richest = int(sizes.argmin()), int(sizes.argmax())
        owner[generator.choice(np.flatnonzero(owner == richest))] = poorest
        sizes[poorest] += 1
        sizes[richest] -= 1


def _deal(
    generator: np.random.Generator, clients: int, labels: int, each: int
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Who holds which class: each client the `each` classes with fewest holders so far, ties at random."""
    held = np.zeros((clients, labels), dtype=np.bool_)
    for client in generator.permutation(clients):
        order = np.lexsort((generator.random(labels), held.sum(axis=0)))
        held[client, order[:each]] = True
    return held
