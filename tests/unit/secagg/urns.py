"""Shares of an urn by integers and fractions: what plans are compared with."""

from __future__ import annotations

import math
from fractions import Fraction

from secagg.parameters import Cohort


def exact_log(ways: int, population: int, drawn: int) -> float:
    """ln(ways / C(population, drawn)), by integers."""
    return -math.inf if ways == 0 else math.log(ways) - math.log(math.comb(population, drawn))


def exact_ways(low: int, high: int, population: int, marked: int, drawn: int) -> int:
    return sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(max(0, low), min(high, drawn + 1))
    )


def share(low: int, high: int, population: int, marked: int, drawn: int) -> Fraction:
    """P[low <= X < high] of the hypergeometric X, exactly."""
    return Fraction(exact_ways(low, high, population, marked, drawn), math.comb(population, drawn))


def exact_committee_failures(cohort: Cohort, size: int, q: int) -> Fraction:
    """Two certificates: 2q - size corrupt signers, or a half of the honest with the corrupt that has a quorum."""
    n, corrupt = cohort.clients, cohort.corrupt
    half = share(q, size + 1, n, (n + corrupt) // 2, size)
    split = 2 * half if cohort.threat == "malicious" and not cohort.beacon else 0
    return share(2 * q - size, size + 1, n, corrupt, size) + split
