"""What makes a degree and threshold safe and likely to finish: Bell et al. (CCS 2020), with exact tails.

Of n clients, C = floor(gamma n) are corrupt, fixed before the graph, and D = floor(delta n) drop out; the graph is a
randomly labelled Harary graph of even degree k, or complete. All failure bounds are union bounds over the n clients:

(a) the honest survivors are connected,                        but with probability 2^-(sigma+1);
(b) no client has as many corrupt neighbours as open a secret, but with probability 2^-(sigma+1);
(c) every client keeps t surviving neighbours,                 but with probability 2^-eta.

"As many as open a secret" is t in the semi-honest model. A server that may tell two stories about who survived opens
two of a client's secrets with 2t shares from k neighbours, of whom the corrupt answer twice: there it is 2t - k.

Against a malicious server, drop-outs are its choice, made after it saw the graph, so (a) does not follow from
chance. There we ask besides

(d) no k/2 clients that follow one another hold t - k/2 or more corrupt ones, but with probability 2^-(sigma+1).

Then the honest survivors are connected *whoever* is dropped, as long as each insists on t surviving neighbours: at most
k/2 of those precede it, so at least t - k/2 follow it, and one of them is honest. Hops to following honest survivors
thus lead around the whole ring, and a survivor that a hop passes over is a neighbour of the hop's start.

What does not belong here: the search for the smallest degree (`plan`), bytes and seconds (`costs`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from protocols.errors import Misuse
from secagg.parameters.tails import log_all_marked, tail_at_least_exceeds, tail_below_exceeds

THREATS = ("semi-honest", "semi-malicious", "malicious")
LEAST_THRESHOLD = 2
MOST_CLIENTS = 10**9


@dataclass(frozen=True)
class Cohort:
    """The demand: n clients, shares of drop-outs and of corrupt clients in [0, 1), a threat model, failure bounds.

    security (sigma), correctness (eta): failures have probability at most 2^-sigma, 2^-eta. Raises Misuse.
    """

    clients: int
    dropout: float
    collusion: float
    threat: str = "semi-malicious"
    security: float = 40.0
    correctness: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= MOST_CLIENTS:
            raise Misuse(f"expected 1 to {MOST_CLIENTS} clients, got {self.clients}")
        for name in ("dropout", "collusion"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise Misuse(f"expected {name} in [0, 1), a share of the clients, got {value}")
        if self.threat not in THREATS:
            raise Misuse(f"expected threat to be one of {', '.join(THREATS)}, got {self.threat!r}")
        for name in ("security", "correctness"):
            value = getattr(self, name)
            if not (0.0 < value <= 1000.0):
                raise Misuse(f"expected {name} in (0, 1000] bits, got {value}")

    @property
    def corrupt(self) -> int:
        """C = floor(gamma n), of the share as written in decimal (0.29 of 100 is 29)."""
        return math.floor(Fraction(repr(float(self.collusion))) * self.clients)

    @property
    def dropped(self) -> int:
        """D = floor(delta n), likewise."""
        return math.floor(Fraction(repr(float(self.dropout))) * self.clients)

    @property
    def survivors(self) -> int:
        return self.clients - self.dropped

    @property
    def two_faced(self) -> bool:
        """Whether the server may tell clients different things."""
        return self.threat != "semi-honest"

    def log_failure(self, bits: float) -> float:
        """ln of a per-client failure probability whose union over the clients is 2^-bits."""
        return -bits * math.log(2.0) - math.log(self.clients)


def complete_threshold(cohort: Cohort) -> tuple[int, int]:
    """Least and largest safe threshold of the complete graph, where nothing is left to chance (least > largest: none).

    Every client has the same C corrupt neighbours, and a survivor keeps the other S - 1 survivors.
    """
    opened = cohort.corrupt + 1
    least = (cohort.clients - 1 + opened + 1) // 2 if cohort.two_faced else opened
    return max(LEAST_THRESHOLD, least), cohort.survivors - 1


def least_connected_degree(cohort: Cohort) -> int:
    """Smallest even k with (a): n (n-k-1) / 2 pairs of places times the chance that k given clients are all bad."""
    n, bad = cohort.clients, min(cohort.clients, cohort.corrupt + cohort.dropped)
    limit = -(cohort.security + 1) * math.log(2.0)

    def connected(half: int) -> bool:
        k = 2 * half
        return math.log(n) + math.log(max(n - k - 1, 1) / 2) + log_all_marked(n, bad, k) <= limit

    return 2 * _first(connected, 1, n // 2)


def least_threshold(cohort: Cohort, degree: int, at_least: int = LEAST_THRESHOLD) -> int:
    """Smallest t >= at_least with (b), for an even degree; degree + 1 if none."""
    limit = cohort.log_failure(cohort.security + 1)

    def opened_by_chance(count: int) -> bool:
        return tail_at_least_exceeds(limit, count, cohort.clients, cohort.corrupt, degree)

    if not cohort.two_faced:
        return _first(lambda t: not opened_by_chance(t), max(LEAST_THRESHOLD, at_least), degree + 1)
    start = max(LEAST_THRESHOLD, at_least, degree // 2 + 1)
    t = _first(lambda t: not opened_by_chance(2 * t - degree), start, degree + 1)
    return t if cohort.threat != "malicious" else _least_against_chosen_drops(cohort, degree, t)


def largest_threshold(cohort: Cohort, degree: int, at_least: int = 0) -> int:
    """Largest t <= degree with (c), 0 if none; `at_least` is a t known to have (c)."""
    limit = cohort.log_failure(cohort.correctness)

    def too_many(t: int) -> bool:
        return tail_below_exceeds(limit, t, cohort.clients, cohort.survivors, degree)

    return _first(too_many, at_least + 1, degree + 1) - 1


def _least_against_chosen_drops(cohort: Cohort, degree: int, at_least: int) -> int:
    """Smallest t >= at_least with (d)."""
    limit, half = cohort.log_failure(cohort.security + 1), degree // 2

    def holds(t: int) -> bool:
        return not tail_at_least_exceeds(limit, t - half, cohort.clients, cohort.corrupt, half)

    return _first(holds, max(at_least, half + 1), degree + 1)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Smallest x in [low, high) with holds(x), a monotone condition; `high` if none. Looks near `low` first."""
    step, known = 1, low
    while known + step < high and not holds(known + step):
        known, step = known + step, 2 * step
    top = min(known + step, high)
    return bisect_left(range(low, top), True, lo=known - low, key=holds) + low
