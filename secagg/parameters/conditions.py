"""What makes a degree and threshold safe and likely to finish: exact tails, union bounds.

Of n clients, C = floor(gamma n) are corrupt, fixed before the graph, and D = floor(delta n) drop out; the graph is a
randomly labelled Harary graph of even degree k, or complete. A client's neighbours are drawn from the n - 1 others,
the places of a window from all n. In every threat model

(b) no client has t or more corrupt neighbours,        but with probability 2^-(sigma+1) (two-faced: 2^-(sigma+2));
(c) every client keeps t surviving neighbours,         but with probability 2^-eta       (two-faced: 2^-(eta+1)).

Semi-honest (Bell et al., CCS 2020): drop-outs are chance, and

(a) the honest survivors are connected,                but with probability 2^-(sigma+1).

Two-faced (semi-malicious, malicious): the server picks the drop-outs after it saw the graph and may tell everybody
something else; clients agree on one set of survivors (`protocols.agreement`) in which every k/2 successive places of
the ring hold w members. One plan serves both models, with `Cohort.secrecy` for sigma where a malicious server may
choose among graphs:

(d) no k/2 successive places hold w or more corrupt,   but with probability 2^-(sigma+1);
(e) every k/2 successive places keep w survivors,      but with probability 2^-(eta+2).

With (d) an honest survivor is among every k/2 successive places, so successive honest survivors are neighbours and
the graph of the honest survivors is connected whoever is dropped. What is left of both budgets, 2^-(sigma+2) and
2^-(eta+2), belongs to the committee (`committee`), so that the sums are 2^-sigma and 2^-eta.

What does not belong here: the search for the smallest degree (`plan`), bytes and seconds (`costs`).
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from protocols.agreement import quorum
from protocols.errors import require
from secagg.parameters.tails import log_mass, log_tail_at_least, log_tail_below

THREATS = ("semi-honest", "semi-malicious", "malicious")
LEAST_THRESHOLD = 2
MOST_HOLDERS = 65_535
"""Shares are points of a field of 2^16 elements (`secagg.shamir`)."""
MOST_CLIENTS = 10**9
BEACON_ROUNDS = 1 << 16
"""Rounds that one beacon serves. The server picks the round after it knows the beacon, so it may choose among so many
graphs: plans with a beacon have log2 of it more bits of secrecy, and clients refuse later rounds.
"""
MOST_TRIES = 64
"""Sessions in a row whose graph clients draw together before a vector leaves: plans with commit and reveal have log2 of
it more bits, likewise, and clients begin no more (`client.tries`).
"""
MOST_VOTERS = 65_535
"""More signatures would make a certificate of over 4 MB for every client."""


@dataclass(frozen=True)
class Cohort:
    """The demand: n clients, shares of drop-outs and of corrupt clients in [0, 1), a threat model, failure bounds.

    security (sigma), correctness (eta): failures have probability at most 2^-sigma, 2^-eta. beacon: a sparse graph
    is drawn from public randomness, so that all clients have the same one whatever the server does. reuse: one
    set-up serves many rounds. complete: on the complete graph only. Raises Misuse.
    """

    clients: int
    dropout: float
    collusion: float
    threat: str = "semi-malicious"
    security: float = 40.0
    correctness: float = 20.0
    beacon: bool = False
    reuse: bool = False
    complete: bool = False

    def __post_init__(self) -> None:
        require(1 <= self.clients <= MOST_CLIENTS, f"1 to {MOST_CLIENTS} clients", self.clients)
        for name in ("dropout", "collusion"):
            value = getattr(self, name)
            require(0.0 <= value < 1.0, f"{name} in [0, 1), a share of the clients", value)
        require(self.threat in THREATS, f"threat to be one of {', '.join(THREATS)}", f"{self.threat!r}")
        for name in ("security", "correctness"):
            value = getattr(self, name)
            require(0.0 < value <= 1000.0, f"{name} in (0, 1000] bits", value)

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

    @property
    def graphs(self) -> int:
        """Among how many sparse graphs a malicious server may choose."""
        if self.threat != "malicious":
            return 1
        return BEACON_ROUNDS if self.beacon else MOST_TRIES

    @property
    def secrecy(self) -> float:
        """Bits of secrecy of one graph, so that all graphs that the server may choose among have `security` bits."""
        return self.security + math.log2(self.graphs)

    def log_failure(self, bits: float) -> float:
        """ln of a per-client failure probability whose union over the clients is 2^-bits."""
        return -bits * math.log(2.0) - math.log(self.clients)


def complete_threshold(cohort: Cohort) -> tuple[int, int]:
    """Least and largest safe threshold of the complete graph, where nothing is left to chance (least > largest: none).

    Every client has the same C corrupt neighbours, and a survivor keeps the other S - 1 survivors. Two-faced servers
    need a quorum of survivors besides; with reused keys, whose rounds have no vote there, 2t > n - 1 + C.
    """
    least = least_on_complete(cohort.clients, cohort.corrupt, cohort.two_faced and cohort.reuse)
    if not cohort.two_faced:
        return least, cohort.survivors - 1
    return least, cohort.survivors - 1 if votes_needed(cohort) <= cohort.survivors else 0


def least_on_complete(clients: int, corrupt: int, split: bool) -> int:
    """The least threshold that the corrupt clients do not reach on the complete graph, nor two views (`split`)."""
    return max(LEAST_THRESHOLD, corrupt + 1, split_threshold(clients, corrupt) * split)


def least_held(quorum: int, holders: int) -> int:
    """The least threshold where one group of clients votes and holds everybody's shares.

    Two certificates share 2q - L voters, so that a plan has at most 2q - L - 1 of the holders corrupt, but with the
    probability of (f): those must not open anything by themselves.
    """
    return max(LEAST_THRESHOLD, 2 * quorum - holders)


def split_threshold(clients: int, corrupt: int) -> int:
    """The least t with 2t > n - 1 + C: two views cannot both gather it on the complete graph."""
    return (clients + corrupt + 1) // 2


def votes_needed(cohort: Cohort) -> int:
    """The quorum where all clients vote; more than half of the honest clients are in any total that reaches it."""
    return quorum(cohort.clients, cohort.corrupt)


def least_connected_degree(cohort: Cohort) -> int:
    """Smallest even k with (a): n (n-k-1) / 2 pairs of places times the chance that k given clients are all bad."""
    n, bad = cohort.clients, min(cohort.clients, cohort.corrupt + cohort.dropped)
    limit = -(cohort.security + 1) * math.log(2.0)

    def connected(half: int) -> bool:
        k = 2 * half
        return math.log(n) + math.log(max(n - k - 1, 1) / 2) + log_mass(k, n, bad, k) <= limit

    return 2 * first(connected, 1, n // 2)


def least_threshold(cohort: Cohort, degree: int) -> int:
    """Smallest t >= 2 with (b), for an even degree; degree + 1 if none."""
    others, limit = cohort.clients - 1, cohort.log_failure(cohort.secrecy + 1 + cohort.two_faced)
    return least_safe(limit, others, min(others, cohort.corrupt), degree, LEAST_THRESHOLD)


def largest_threshold(cohort: Cohort, degree: int) -> int:
    """Largest t <= degree with (c), 0 if none; one less where one committee holds everybody's shares (semi-honest,
    reused keys): a holder has the others for its own.
    """
    limit = cohort.log_failure(cohort.correctness + cohort.two_faced)
    most = largest_left(limit, cohort.clients - 1, cohort.survivors - 1, degree)
    return most - (cohort.reuse and not cohort.two_faced)


def least_window(cohort: Cohort, degree: int) -> int:
    """Smallest w >= 1 with (d); degree / 2 + 1 if none."""
    limit = cohort.log_failure(cohort.secrecy + 1)
    return least_safe(limit, cohort.clients, cohort.corrupt, degree // 2, 1)


def largest_window(cohort: Cohort, degree: int) -> int:
    """Largest w <= degree / 2 with (e), 0 if none."""
    limit = cohort.log_failure(cohort.correctness + 2)
    return largest_left(limit, cohort.clients, cohort.survivors, degree // 2)


def least_safe(limit: float, population: int, corrupt: int, drawn: int, least: int) -> int:
    """Smallest x >= `least` that so many drawn corrupt clients reach with ln of probability `limit` at most; drawn + 1
    if none.
    """
    return first(lambda x: log_tail_at_least(x, population, corrupt, drawn) <= limit, least, drawn + 1)


def largest_left(limit: float, population: int, survivors: int, drawn: int) -> int:
    """Largest x that so many drawn survivors miss with ln of probability `limit` at most; 0 if none."""
    return first(lambda x: log_tail_below(x, population, survivors, drawn) > limit, 1, drawn + 1) - 1


def first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Smallest x in [low, high) with holds(x), a monotone condition; `high` if none. Looks near `low` first."""
    step, known = 1, low
    while known + step < high and not holds(known + step):
        known, step = known + step, 2 * step
    top = min(known + step, high)
    return bisect_left(range(low, top), True, lo=known - low, key=holds) + low
