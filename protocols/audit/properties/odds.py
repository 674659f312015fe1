"""What a plan leaves to chance, reckoned a second time, in whole numbers. What does not belong here: sessions."""

import math
from fractions import Fraction
from itertools import product
from typing import Any

from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.reading import hook_of
from protocols.opening import Odds

CLIENTS, CORRUPT, GONE = (50, 100, 300), (0.02, 0.1, 0.2), (0.0, 0.1, 0.2, 0.4)


@promised("semi-honest", "union bounds over hypergeometric tails (Bell et al., CCS 2020)", most=1)
def plans_fail_as_rarely_as_promised(subject: Any, data: Any) -> None:
    """A random group of clients has too many corrupt members, or too few who stay, as rarely as the plan promises.

    Plans for cohorts of 50, 100 and 300; groups of one client's own are drawn from the others. Not looked at: whether
    a graph hangs together by chance.
    """
    hook = hook_of(subject, "odds", "what its plans leave to chance is not known")
    plans = {demand: hook(*demand) for demand in product(CLIENTS, GONE, CORRUPT)}
    for demand, odds in plans.items():
        for what, chance, bits in () if odds is None else _failures(odds):
            if chance > Fraction(1, 2 ** math.floor(bits)):
                raise Finding(
                    f"a plan fails more often than it promises: {what} with 2^-{-_log2(chance):.2f}, not 2^-{bits:g}\n"
                    "  {} clients, {:.0%} of them leave, {:.0%} are corrupt\n".format(*demand)
                    + f"  groups that it draws: {'; '.join(map(str, odds.groups))}"
                )
    if not any(plans.values()):
        raise NotChecked("the hook `odds` knows of no plan that leaves anything to chance")


def _failures(odds: Odds) -> list[tuple[str, Fraction, float]]:
    """What may fail, its probability (unions over all groups), and the bits that are promised."""
    lost, short = Fraction(0), Fraction(0)
    for group in odds.groups:
        of = odds.clients - group.others
        rest = odds.clients - odds.survivors  # who asks for its own group is honest, and stays
        lost += group.count * _at_least(group.corrupt, of, odds.corrupt, group.size)
        short += group.count * _at_least(group.size - group.left + 1, of, rest, group.size)
    return [
        ("a secret is lost", lost * odds.graphs, odds.security),
        ("no total comes out", short, odds.correctness),
    ]


def _at_least(least: int, of: int, marked: int, drawn: int) -> Fraction:
    """The probability that so many marked are among those drawn, exactly."""
    ways = sum(
        math.comb(marked, x) * math.comb(of - marked, drawn - x)
        for x in range(max(0, least), min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(of, drawn))


def _log2(chance: Fraction) -> float:
    return math.log2(chance.numerator) - math.log2(chance.denominator)
