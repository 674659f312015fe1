"""The smallest safe degree and threshold for a cohort, or what to relax. The conditions are in `conditions`."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from protocols.errors import Misuse
from secagg.parameters.committee import committee, least_quorum
from secagg.parameters.conditions import (
    MOST_HOLDERS,
    THREATS,
    Cohort,
    complete_threshold,
    largest_threshold,
    largest_window,
    least_connected_degree,
    least_held,
    least_threshold,
    least_window,
    split_threshold,
    votes_needed,
)

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
    """What a cohort's session runs with; it holds with the failure bounds of `cohort`.

    degree: neighbours of each client; clients - 1 in the complete graph. threshold: shares that open a secret. Where
    the server may be two-faced: window: survivors among any degree / 2 successive places of the ring (0 on the
    complete graph); committee: clients that vote (0: all); quorum: votes that certify one view of who survived.
    survivors: the least total that completes.
    """

    cohort: Cohort
    degree: int
    threshold: int
    window: int = 0
    committee: int = 0
    quorum: int = 0

    @property
    def corrupt(self) -> int:
        return self.cohort.corrupt

    @property
    def committed(self) -> bool:
        """Whether commit and reveal fixes a sparse graph against a malicious server."""
        return self.cohort.threat == "malicious" and not (self.complete or self.cohort.beacon)

    @property
    def complete(self) -> bool:
        return self.degree == self.cohort.clients - 1

    @property
    def holders(self) -> int:
        """Who holds shares: of one client's secrets its neighbours, with reused keys one committee of all clients'."""
        everybody = self.cohort.reuse and (self.complete or self.cohort.two_faced)
        return self.committee * self.cohort.reuse or (self.cohort.clients if everybody else self.degree)

    @property
    def votes(self) -> bool:
        """Whether clients agree on who survived before they open; not on the complete graph with reused keys."""
        return self.cohort.two_faced and not (self.cohort.reuse and self.complete)

    @property
    def survivors(self) -> int:
        """Least clients in a total: with a vote more than half of the honest clients are among them."""
        votes = votes_needed(self.cohort) if self.quorum else 0
        return max(self.threshold + 1, votes)


def plan(cohort: Cohort) -> Plan:
    """The smallest even degree, with its threshold, window and quorum, that meets a cohort's demand.

    The threshold is the smallest (semi-honest), or the largest with which enough answer. Where no sparse graph will do,
    the graph is complete. Source: Bell et al. (CCS 2020), with the exact tails of `conditions`. Raises Infeasible,
    saying which number to relax.

        plan(Cohort(100, dropout=0.2, collusion=0.1)).degree     # 54
    """
    found = search(cohort)
    if found is None:
        raise Infeasible(_reason(cohort), tuple(_remedies(cohort)))
    return found


def search(cohort: Cohort) -> Plan | None:
    """The plan of a cohort, or None: the smallest even degree below n - 1 that will do, else the complete graph."""
    if _impossible(cohort):
        return None
    degree = 2 if cohort.two_faced else least_connected_degree(cohort)
    sparse = cohort.clients > SMALL and not cohort.complete
    while sparse and degree <= min(cohort.clients - 2, MOST_HOLDERS):
        short = _short(cohort, degree)
        if short <= 0:
            break
        degree += short
    else:
        degree = cohort.clients - 1
    found = limits(cohort, degree) if degree <= MOST_HOLDERS else None
    return found and found.plan


def _short(cohort: Cohort, degree: int) -> int:
    """Neighbours that are missing at least until the largest threshold and window reach the least; 0 if they do.

    One more neighbour raises the largest threshold by at most one, two raise the largest window by at most one; the
    least of either never falls.
    """
    gap = least_threshold(cohort, degree) - largest_threshold(cohort, degree)
    window = least_window(cohort, degree) - largest_window(cohort, degree) if cohort.two_faced else 0
    return max(0, gap + gap % 2, 2 * window)


class Limits(NamedTuple):
    """What a degree allows: thresholds from least to largest, windows up to widest; and the plan with it, which may
    lie outside.
    """

    least: int
    largest: int
    widest: int
    plan: Plan


def limits(cohort: Cohort, degree: int, threshold: int | None = None, held: bool = False) -> Limits | None:
    """What a degree allows, or None if so many clients cannot vote.

    threshold: given, in place of the planned one. held: reused keys have a committee of `degree` clients, else of as
    many as it needs.
    """
    if degree >= cohort.clients - 1:
        return _complete(cohort, threshold)
    least, largest = least_threshold(cohort, degree), largest_threshold(cohort, degree)
    if not cohort.two_faced:
        return Limits(least, largest, 0, Plan(cohort, degree, threshold or least))
    voters = (degree, least_quorum(cohort, degree)) if cohort.reuse and held else committee(cohort)
    if voters is None:
        return None
    size, quorum = voters
    if cohort.reuse:  # the committee holds the shares
        least, largest = least_held(quorum, size or cohort.clients), quorum - 1
    found = Plan(cohort, degree, threshold or largest, least_window(cohort, degree), size, quorum)
    return Limits(least, largest, largest_window(cohort, degree), found)


def _complete(cohort: Cohort, threshold: int | None) -> Limits:
    least, largest = complete_threshold(cohort)
    usual, votes = least, 0
    if cohort.two_faced:
        middle = split_threshold(cohort.clients, cohort.corrupt)
        usual, votes = max(least, min(largest, middle)), votes_needed(cohort)
    return Limits(least, largest, 0, Plan(cohort, cohort.clients - 1, threshold or usual, quorum=votes))


def too_few_votes(cohort: Cohort) -> str:
    """Why those who are left cannot certify one view of who survived, where all clients vote; empty if they can."""
    votes = votes_needed(cohort) if cohort.two_faced else 0
    if votes <= cohort.survivors:
        return ""
    return f"one view of who survived needs {votes} votes, and {cohort.survivors} are left to vote"


def _impossible(cohort: Cohort) -> bool:
    """Whether not even a complete graph would do: a sparse one only adds chance to the same shares of clients."""
    least, largest = complete_threshold(cohort)
    return least > largest


def _reason(cohort: Cohort) -> str:
    demand = f"{cohort.clients} clients, drop-out {cohort.dropout:g}, collusion {cohort.collusion:g}, {cohort.threat}"
    why = too_few_votes(cohort) or (
        f"secrecy needs a threshold of {complete_threshold(cohort)[0]} even if all {cohort.clients - 1} others hold "
        f"shares, and {cohort.survivors - 1} are left to answer"
    )
    if not _impossible(cohort):
        why = f"every client would need more than {MOST_HOLDERS} neighbours or voters"
    return f"infeasible ({demand}): {why}"


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
        changed: dict[str, Any] = {name: step / _GRID}
        return search(replace(cohort, **changed)) is not None

    # Feasibility returns as the share falls, so the first feasible step of the falling range is the largest.
    at = bisect_left(steps, True, key=feasible)
    return steps[at] / _GRID if at < len(steps) else None
