"""The smallest safe degree and threshold for a cohort, or what to relax. The rules themselves are in `rules`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

from protocols.errors import Misuse
from secagg.parameters.rules import (
    THREATS,
    Cohort,
    complete_threshold,
    largest_threshold,
    least_connected_degree,
    least_threshold,
)

MOST_NEIGHBOURS = 65_535
"""Shares are points of a field of 2^16 elements (`secagg.shamir`)."""

SMALL = 32
"""Cohorts up to this size are on the complete graph: a sparse one saves them milliseconds and tolerates less."""

_GRID = 100
"""Shares of drop-outs and corrupt clients that an infeasible plan proposes are multiples of 1 / _GRID."""


class Infeasible(Misuse):
    """No degree and threshold meet the demand. `relax`: what would, one option each, as sentences."""

    def __init__(self, reason: str, relax: tuple[str, ...]) -> None:
        super().__init__(f"{reason}: {'; or '.join(relax) or 'relax several of its numbers'}.")
        self.relax = relax


@dataclass(frozen=True)
class Plan:
    """Degree and threshold for a cohort.

    degree: neighbours (share holders) of each client; clients - 1 in the complete graph. threshold: shares that open a
    secret. Both hold with the failure bounds of `cohort`.
    """

    cohort: Cohort
    degree: int
    threshold: int

    @property
    def complete(self) -> bool:
        return self.degree == self.cohort.clients - 1

    @property
    def corrupt_neighbours(self) -> int:
        """Corrupt holders of one secret that the threshold withstands, in this threat model."""
        spare = 2 * self.threshold - self.degree if self.cohort.two_faced else self.threshold
        return spare - 1


def plan(
    clients: int,
    dropout: float,
    collusion: float,
    threat: str | None = None,
    *,
    security: float = 40.0,
    correctness: float = 20.0,
) -> Plan:
    """The smallest even degree, and its smallest threshold, for `clients` of whom shares `dropout` leave,
    `collusion` collude.

    threat: "semi-honest", "semi-malicious" or "malicious"; None is semi-malicious where that is feasible, else
    semi-honest. security, correctness: failure probabilities are at most 2^-security and 2^-correctness. Where no
    sparse graph will do, the graph is complete. Source: Bell et al. (CCS 2020), with the exact tails of `rules`.
    Raises Infeasible, saying which number to relax, and Misuse for numbers out of range.
    """
    wanted = "semi-malicious" if threat is None else threat
    cohort = Cohort(clients, dropout, collusion, wanted, security, correctness)
    found = search(cohort)
    if found is None and threat is None:
        found = search(replace(cohort, threat="semi-honest"))
    if found is None:
        raise Infeasible(_reason(cohort), tuple(_remedies(cohort)))
    return found


def plan_complete(
    clients: int, dropout: float, collusion: float, threat: str | None = None, *, security: float = 40.0
) -> Plan:
    """The complete graph with its smallest threshold (Bonawitz et al., CCS 2017). Arguments and errors as in `plan`."""
    cohort = Cohort(clients, dropout, collusion, threat or "semi-malicious", security)
    found = _complete(cohort)
    if found is None and threat is None:
        found = _complete(replace(cohort, threat="semi-honest"))
    if found is None:
        raise Infeasible(_reason(cohort), tuple(_remedies(cohort)))
    return found


def search(cohort: Cohort) -> Plan | None:
    """The plan of a cohort, or None: the smallest even degree below n - 1 that has a threshold, else the complete
    graph.
    """
    if _impossible(cohort):
        return None
    degree = least_connected_degree(cohort) if cohort.clients > SMALL else cohort.clients
    least, largest = 0, 0
    while degree <= min(cohort.clients - 2, MOST_NEIGHBOURS):
        least = least_threshold(cohort, degree, least)
        largest = largest_threshold(cohort, degree, largest)
        if least <= largest:
            return Plan(cohort, degree, least)
        degree += _safe_step(least - largest, cohort.two_faced)
    return _complete(cohort)


def _safe_step(gap: int, two_faced: bool) -> int:
    """An even number of neighbours by which no smaller step could close the gap between least and largest threshold.

    One more neighbour raises the largest threshold by at most one. The least never falls; outside the semi-honest
    model it rises by at least one for every two neighbours.
    """
    return 2 * gap if two_faced else gap + gap % 2


def _impossible(cohort: Cohort) -> bool:
    """Whether not even a complete graph would do: a sparse one only adds chance to the same shares of clients."""
    least, largest = complete_threshold(cohort)
    return least > largest


def _complete(cohort: Cohort) -> Plan | None:
    if _impossible(cohort) or cohort.clients - 1 > MOST_NEIGHBOURS:
        return None
    return Plan(cohort, cohort.clients - 1, complete_threshold(cohort)[0])


def _reason(cohort: Cohort) -> str:
    demand = f"{cohort.clients} clients, drop-out {cohort.dropout:g}, collusion {cohort.collusion:g}, {cohort.threat}"
    if _impossible(cohort):
        least, largest = complete_threshold(cohort)
        return (
            f"infeasible ({demand}): secrecy needs a threshold of {least} even if all {cohort.clients - 1} others hold "
            f"shares, and {max(largest, 0)} are left to answer"
        )
    return f"infeasible ({demand}): every client would need more than {MOST_NEIGHBOURS} neighbours"


def _remedies(cohort: Cohort) -> Iterator[str]:
    """Single changes that make the cohort feasible, least intrusive first."""
    for name in ("dropout", "collusion"):
        value = _largest_share(cohort, name)
        if value is not None:
            yield f"lower {name} to {value:g}"
    for threat in reversed(THREATS[: THREATS.index(cohort.threat)]):
        if search(replace(cohort, threat=threat)):
            yield f"choose threat {threat}"
            break
    more = next((n for n in range(cohort.clients + 1, 129) if search(replace(cohort, clients=n))), None)
    if more:
        yield f"have {more} clients"


def _largest_share(cohort: Cohort, name: str) -> float | None:
    """The largest multiple of 1 / _GRID up to the given share that is feasible, or None."""
    steps = range(int(getattr(cohort, name) * _GRID), -1, -1)

    def feasible(step: int) -> bool:
        share = step / _GRID
        changed = replace(cohort, dropout=share) if name == "dropout" else replace(cohort, collusion=share)
        return search(changed) is not None

    # Feasibility returns as the share falls, so the first feasible step of the falling range is the largest.
    at = bisect_left(steps, True, key=feasible)
    return steps[at] / _GRID if at < len(steps) else None
