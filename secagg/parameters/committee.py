"""Who signs which clients survived, and how many signatures certify it. What does not belong here: the signing
(`protocols.agreement`), the graph.

Up to 500 clients all sign: a quorum of floor((n + C) / 2) + 1 leaves nothing to chance. Of more, a committee of L
drawn with the graph signs, q of them make a certificate. Two certificates share 2q - L signers, and honest clients
sign once, so there is one statement unless

(f) 2q - L or more of the committee are corrupt: probability at most 2^-(sigma+2).

Where the server relays commitments to the graph's seed, groups of clients may hold different graphs, each fixed
before its graph was known. Two groups certify only if one with at most half of the honest clients does:

(g) q of the committee lie in that half or are corrupt: with (f) at most 2^-(sigma+2); the bound is doubled, since
    there may be two such groups, and it falls faster than their size if there are more.

And it finishes: (h) q of the committee survive, but with probability 2^-(eta+2).

Reused keys: the committee holds everybody's shares, and q - 1 of them open a secret, for a holder has the others' for
its own. So q - 1 >= 2q - L, more than the corrupt members that (f) leaves (`rules.least_held`): one member at least is
not needed for a certificate, however few clients leave.
"""

import math

from secagg.parameters.conditions import MOST_VOTERS, Cohort, first, largest_left, least_held, votes_needed
from secagg.parameters.tails import log_tail_at_least

ALL_VOTE = 500
_NEARBY = 16


def committee(cohort: Cohort) -> tuple[int, int] | None:
    """Size and quorum of a sparse graph's committee (size 0: all clients), or None if it would be too large.

    Reused keys always have one: it holds the shares.
    """
    if not cohort.two_faced:
        return 0, 0
    if cohort.clients <= ALL_VOTE and not cohort.reuse:
        return 0, votes_needed(cohort)

    def fits(size: int) -> bool:
        quorum = least_quorum(cohort, size)
        spare = not cohort.reuse or least_held(quorum, size) <= quorum - 1
        return spare and quorum <= largest_quorum(cohort, size)

    most = min(cohort.clients, MOST_VOTERS + 1)
    size = first(fits, 2, most)
    if size < most:
        size = next(filter(fits, range(max(2, size - _NEARBY), size + 1)))  # it is not quite monotone
        return size, least_quorum(cohort, size)
    return (0, votes_needed(cohort)) if cohort.clients <= MOST_VOTERS else None


def least_quorum(cohort: Cohort, size: int) -> int:
    """Smallest q for which (f), and (g) where it matters, hold in a committee of `size`; size + 1 if none."""
    split = cohort.threat == "malicious" and not cohort.beacon
    limit = -(cohort.secrecy + 2 + split) * math.log(2.0)
    half = (cohort.clients + cohort.corrupt) // 2

    def safe(q: int) -> bool:
        if log_tail_at_least(2 * q - size, cohort.clients, cohort.corrupt, size) > limit:
            return False
        return not split or log_tail_at_least(q, cohort.clients, half, size) <= limit - math.log(2.0)

    return first(safe, size // 2 + 1, size + 1)


def largest_quorum(cohort: Cohort, size: int) -> int:
    """Largest q <= size with (h); 0 if none."""
    limit = -(cohort.correctness + 2) * math.log(2.0)
    return largest_left(limit, cohort.clients, cohort.survivors, size)
