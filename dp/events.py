"""What happened, as frozen facts that accountants put a price on: the noise, the sampling, the unit, the
neighbours.

Belongs here: the vocabulary of events and what makes each one valid. Does not belong here: prices
(`dp.accountants`), the JSON form (`dp.event_json`), derivations (docs/dp-account.md).

`noise_multiplier` always means: standard deviation of the noise over the L2 bound on one unit's
contribution (the clip norm). The relation then says how far neighbouring sums lie apart: once the bound for
zero-out and add/remove, twice for replace.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from dp.mechanisms.envelope import SAMPLER_DISTANCE
from protocols.errors import Misuse


class Unit(StrEnum):
    """Whose whole contribution is protected."""

    EXAMPLE = "example"
    CLIENT = "client"


class Relation(StrEnum):
    """When two data sets are neighbours. Zero-out: one unit's contribution becomes zero, sizes and counts
    stay as they are."""

    ZERO_OUT = "zero-out"
    ADD_REMOVE = "add-remove"
    REPLACE = "replace"


class UnknownEvent(Misuse):
    """An event that is not known, or that this accountant has no sound price for; it is refused, never
    skipped."""


_TINY, _MOST_NOISE, _HUGE, _TINY_DELTA = 1e-12, 1e150, 1e300, 1e-300  # noise is squared


def _number(low: float, high: float, default: Any = MISSING) -> Any:
    """A field from `low` to `high`; integer limits ask for an int, float limits for a float."""
    return field(default=default, metadata={"range": (low, high)})


def _ranges(kind: Any) -> tuple[tuple[str, tuple[float, float]], ...]:
    return tuple((f.name, f.metadata["range"]) for f in fields(kind) if "range" in f.metadata)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; subclasses below are the only ones that exist."""

    unit: Unit
    relation: Relation

    def __post_init__(self) -> None:
        if type(self.unit) is not Unit or type(self.relation) is not Relation:
            raise Misuse(f"expected a Unit and a Relation, got {self.unit!r} and {self.relation!r}")
        for name, (low, high) in _ranges(type(self)):
            value = getattr(self, name)
            wanted = int if isinstance(low, int) else float
            if wanted is float and type(value) is int and abs(value) < 2**53:
                # written 1 and meant 1.0; the event stays the same whichever was written
                value = float(value)
                object.__setattr__(self, name, value)
            if type(value) is not wanted or not low <= value <= high:
                raise Misuse(
                    f"{type(self).__name__}.{name}: expected a {wanted.__name__} from {low} to {high}, got {value!r}"
                )

    @property
    def reach(self) -> float:
        """How many clip norms apart neighbouring sums can lie."""
        return 2.0 if self.relation is Relation.REPLACE else 1.0


@dataclass(frozen=True, kw_only=True)
class Gaussian(Event):
    """A sum of bounded contributions plus Gaussian noise; every unit takes part, or who takes part is
    seen."""

    noise_multiplier: float = _number(_TINY, _MOST_NOISE)


@dataclass(frozen=True, kw_only=True)
class PoissonGaussian(Event):
    """As `Gaussian`, over a secret Poisson sample: every unit takes part by its own coin of probability
    `sample_rate`."""

    noise_multiplier: float = _number(_TINY, _MOST_NOISE)
    sample_rate: float = _number(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class FixedSizeGaussian(Event):
    """As `Gaussian`, over a secret uniform subset of `sample_size` out of `population` units, without
    replacement."""

    noise_multiplier: float = _number(_TINY, _MOST_NOISE)
    population: int = _number(1, 2**53)
    sample_size: int = _number(0, 2**53)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_size > self.population:
            raise Misuse(
                f"expected a sample_size of at most the population {self.population}, got {self.sample_size}"
            )
        if self.relation is Relation.ADD_REMOVE:
            raise Misuse(
                "a fixed-size sample shows the population's size: state zero-out or replace, not add-remove"
            )


@dataclass(frozen=True, kw_only=True)
class DiscreteGaussianSum(Event):
    """A sum of integer vectors plus `shares` independent discrete Gaussians of parameter `share_variance`
    per coordinate.

    `sensitivity` bounds the L2 norm of one unit's integer vector, after rounding, in grid steps. `shares`
    is the guaranteed least number of honest noise shares in the sum (1 for central noise); more shares are
    post-processing. `sampler_distance` is the total variation distance per draw. With `sample_rate` below 1
    the units are a secret Poisson sample.
    """

    sensitivity: float = _number(_TINY, 2.0**62)
    share_variance: float = _number(0.5, 2.0**90)
    shares: int = _number(1, 2**40)
    dims: int = _number(1, 2**53)
    sampler_distance: float = _number(0.0, 2.0**-60, SAMPLER_DISTANCE)
    sample_rate: float = _number(0.0, 1.0, 1.0)

    @property
    def variance(self) -> float:
        """Parameter of the discrete Gaussian that the sum of shares is close to."""
        return self.share_variance * self.shares

    @property
    def tau(self) -> float:
        """Kairouz, Liu and Steinke's tau: |log| of the ratio between sum and discrete Gaussian, per
        coordinate.

        10 sum over k = 1..shares-1 of exp(-2 pi^2 share_variance k / (k + 1)) (ICML 2021, Theorem 1); 0 for
        one share. From k = 1,000 on the terms are bounded by the largest one, so that the time does not
        grow with `shares`.
        """
        exponent = 2 * math.pi**2 * self.share_variance
        near = sum(math.exp(-exponent * k / (k + 1)) for k in range(1, min(self.shares, 1000)))
        far = max(0, self.shares - 1000) * math.exp(-exponent * 1000 / 1001)
        return 10 * (near + far)


@dataclass(frozen=True, kw_only=True)
class Skellam(Event):
    """A sum of integer vectors plus Skellam noise of total `variance` per coordinate, in `shares`
    independent shares.

    `l1` and `l2` bound the norms of one unit's integer vector. `variance` is that of the guaranteed least
    number of honest shares together.
    """

    l1: float = _number(_TINY, 2.0**80)
    l2: float = _number(_TINY, 2.0**62)
    variance: float = _number(_TINY, 2.0**90)
    shares: int = _number(1, 2**40)
    dims: int = _number(1, 2**53)
    sampler_distance: float = _number(0.0, 2.0**-60, SAMPLER_DISTANCE)
    sample_rate: float = _number(0.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l2 > self.l1 * (1 + 1e-9):
            raise Misuse(f"an L2 norm never exceeds the L1 norm, got l2={self.l2} and l1={self.l1}")


@dataclass(frozen=True, kw_only=True)
class Pure(Event):
    """Any mechanism that is epsilon-differentially private for the stated unit and relation (randomised
    response, say)."""

    epsilon: float = _number(0.0, 700.0)


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """Whatever part of a planned run happens: all of it costs at most `epsilon` at `delta`, and it is spent once,
    however often it is listed.

    For a party that does not know the steps of another one. No accountant adds it up: a curve at other deltas does not
    follow from one point of it.
    """

    epsilon: float = _number(0.0, _HUGE)
    delta: float = _number(_TINY_DELTA, 1.0)


@dataclass(frozen=True, kw_only=True)
class Failing(Event):
    """`event`, a primitive one, or nothing: with at most `probability`, whatever the data, the round is abandoned, and
    that is seen.

    For rounds over a secret sample that are abandoned when too few units were chosen. An abandoned round spends its
    event like any other (docs/dp-account.md, section 9).
    """

    event: Event
    probability: float = _number(0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _same_statement(self, self.event)
        if isinstance(self.event, Composed | Repeated | Failing | CorrelatedRow):
            raise Misuse(f"expected one primitive event that may fail, got {type(self.event).__name__}")


@dataclass(frozen=True, kw_only=True)
class CorrelatedRow(Event):
    """One row of a run with correlated noise: `event`, a primitive one, is what one participation of a unit costs over
    all rows that it enters; here is the row in which it begins.

    plan: names the run. Its rows are priced together, at the dearest pattern: as many participations as any one unit
    can have had among the rows listed, `separation` rows apart and at most `participations` (docs/dp-correlated.md).
    """

    event: Event
    plan: str
    row: int = _number(1, 2**20)
    separation: int = _number(1, 2**53)
    participations: int = _number(1, 2**53)

    def __post_init__(self) -> None:
        super().__post_init__()
        _same_statement(self, self.event)
        if isinstance(self.event, Composed | Repeated | Failing | CorrelatedRow | Planned):
            raise Misuse(
                f"expected one primitive event that a participation costs, got {type(self.event).__name__}"
            )
        if type(self.plan) is not str or len(self.plan) > 64:
            raise Misuse(f"expected a plan's name of at most 64 characters, got {self.plan!r}")


@dataclass(frozen=True, kw_only=True)
class Composed(Event):
    """Several events about the same units, one after the other, each free to depend on what came out
    before."""

    parts: tuple[Event, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.parts) is not tuple or not self.parts:
            raise Misuse("expected a tuple of at least one event")
        for part in self.parts:
            _same_statement(self, part)


@dataclass(frozen=True, kw_only=True)
class Repeated(Event):
    """`count` times the same event."""

    event: Event
    count: int = _number(0, 2**53)

    def __post_init__(self) -> None:
        super().__post_init__()
        _same_statement(self, self.event)


def _same_statement(outer: Event, inner: Event) -> None:
    if type(inner) not in KINDS.values():
        raise UnknownEvent(f"expected an event of dp.events, got {type(inner).__name__}")
    if (inner.unit, inner.relation) != (outer.unit, outer.relation):
        raise Misuse(
            f"events of one statement share unit and relation: expected {outer.unit}/{outer.relation}, "
            f"got {inner.unit}/{inner.relation}"
        )


KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Gaussian,
        PoissonGaussian,
        FixedSizeGaussian,
        DiscreteGaussianSum,
        Skellam,
        Pure,
        Planned,
        Failing,
        CorrelatedRow,
        Composed,
        Repeated,
    )
}
"""Every event that exists, by its name in JSON and in statements."""


def repeat(event: Event, count: int) -> Repeated:
    """`count` times `event`. Raises Misuse for a negative count."""
    return Repeated(event=event, count=count, unit=event.unit, relation=event.relation)


def compose(*parts: Event) -> Composed:
    """`parts` one after the other. Raises Misuse for none, or where unit or relation differ."""
    if not parts:
        raise Misuse("expected at least one event")
    return Composed(parts=parts, unit=parts[0].unit, relation=parts[0].relation)


def always_asked(event: Event) -> Event:
    """`event` as it costs a client that was surely asked: nothing is saved by a choice of clients that others make.

    A client's own secret choice of its examples (unit "example") stays as it is.
    """
    if event.unit is not Unit.CLIENT:
        return event
    if isinstance(event, Composed):
        return replace(event, parts=tuple(always_asked(part) for part in event.parts))
    if isinstance(event, Repeated):
        return replace(event, event=always_asked(event.event))
    if isinstance(event, CorrelatedRow):
        return replace(event, event=always_asked(event.event))
    if isinstance(event, Failing):  # nothing is saved by the choice, so what it tells costs nothing
        return always_asked(event.event)
    if isinstance(event, PoissonGaussian | FixedSizeGaussian):
        return Gaussian(noise_multiplier=event.noise_multiplier, unit=event.unit, relation=event.relation)
    return replace(event, sample_rate=1.0) if isinstance(event, DiscreteGaussianSum | Skellam) else event


def flatten(event: Event, count: int = 1) -> Iterator[tuple[Event, int]]:
    """The primitive events inside `event` with how often each happened. Raises UnknownEvent for anything
    else."""
    if type(event) not in KINDS.values():
        raise UnknownEvent(
            f"expected an event of dp.events, got {type(event).__name__}; it has no known price"
        )
    if isinstance(event, Composed):
        for part in event.parts:
            yield from flatten(part, count)
    elif isinstance(event, Repeated):
        yield from flatten(event.event, count * event.count)
    elif count > 0:
        yield event, count


def describe(event: Event) -> str:
    """One line for people: how often, the kind, its numbers, the unit and the relation."""
    parts = [f"{count} x {_numbers(part)}" if count > 1 else _numbers(part) for part, count in flatten(event)]
    return f"{' and '.join(parts) or 'nothing'} per {event.unit}, {event.relation}"


def _numbers(event: Event) -> str:
    if isinstance(event, Failing):
        return f"{_numbers(event.event)} or, with probability {event.probability:.3g}, nothing"
    if isinstance(event, CorrelatedRow):
        return (
            f"row {event.row} of correlated noise, a participation {_numbers(event.event)}, at most "
            f"{event.participations}, {event.separation} rows apart"
        )
    shown = [f.name for f in fields(event) if f.name not in ("unit", "relation")]
    return f"{type(event).__name__}({', '.join(f'{name}={getattr(event, name):.6g}' for name in shown)})"
