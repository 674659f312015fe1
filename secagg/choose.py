"""From a user's wishes to the parameters of one session, and what a client holds a session to. What does not belong
here: the tails behind them (`parameters`).
"""

import functools
from dataclasses import dataclass, replace

from protocols.errors import Misuse, PolicyRefusal
from secagg.mask_parameters import (
    LEAST_CLIENTS,
    MALICIOUS,
    SEMI_HONEST,
    SEMI_MALICIOUS,
    MaskParameters,
)
from secagg.parameters import Cohort, Plan
from secagg.parameters.plan import limits, made, planned
from secagg.parameters.rules import MOST_VOTERS, THREATS, least_connected_degree, votes_needed
from secagg.rules import Rules


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; the fields are those of `SecAggPlus`. complete: on the complete graph only."""

    dropout: float
    collusion: float
    threat: str | None
    neighbours: int | None
    threshold: int | None
    security: float
    correctness: float
    complete: bool
    beacon: bytes = b""
    reuse: bool = False

    def __post_init__(self) -> None:
        self.cohort(LEAST_CLIENTS, self.threat or SEMI_MALICIOUS)
        for name in ("neighbours", "threshold"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise Misuse(f"expected {name} >= 2, got {value}")
        if self.complete and self.neighbours is not None:
            raise Misuse("SecAgg is on the complete graph; use SecAggPlus to set neighbours")

    def cohort(self, clients: int, threat: str) -> Cohort:
        """The demand on one cohort."""
        shares, bits = (self.dropout, self.collusion), (self.security, self.correctness)
        return Cohort(clients, *shares, threat, *bits, bool(self.beacon), self.reuse, self.complete)

    def standing(self, clients: int, threat: str, degree: int) -> Cohort:
        """The demand, with the corrupt clients that a given threshold stands where no collusion was asked for.

        Those are so many that two halves of the neighbours do not both reach the threshold, and that a window of the
        ring need not keep a larger share of its clients than a neighbourhood.
        """
        cohort, t = self.cohort(clients, threat), self.threshold
        if t is None or self.collusion or not cohort.two_faced:
            return cohort
        stands = min(2 * t - degree - 1, 2 * cohort.survivors - clients - 1)
        if degree < clients - 1:
            stands = min(stands, t // 2 - 1)
        return replace(cohort, collusion=(max(0, stands) + 0.5) / clients)


@functools.lru_cache(maxsize=256)
def choose(wishes: Wishes, clients: int) -> MaskParameters:
    """Return the parameters for a cohort; without a threat: semi-malicious if that is feasible, else semi-honest.

    Raises Misuse if there are none, saying what to relax.
    """
    if clients < LEAST_CLIENTS:
        raise Misuse(
            f"expected at least {LEAST_CLIENTS} clients, got {clients}: in a sum of two, each reads the other's"
        )
    if wishes.neighbours is None and wishes.threshold is None:
        return _parameters(
            wishes,
            planned(
                wishes.cohort(clients, wishes.threat or SEMI_MALICIOUS), falls_back=wishes.threat is None
            ),
        )
    if wishes.threat is not None:
        return _parameters(wishes, _given(wishes, clients, wishes.threat))
    try:
        return _parameters(wishes, _given(wishes, clients, SEMI_MALICIOUS))
    except Misuse:
        return _parameters(wishes, _given(wishes, clients, SEMI_HONEST))


def insist(wishes: Wishes, clients: int, offered: MaskParameters) -> None:
    """Raises PolicyRefusal, naming the number, for a session that protects a client less than its own plan does.

    More is taken: a stronger threat model, more neighbours (then with the numbers that these wishes give for so
    many), larger thresholds and quorums.
    """
    own = choose(wishes, clients)
    survivors = own.survivors  # more neighbours: never fewer, though a complete graph opens with fewer shares
    if offered.reuse != own.reuse:
        uses = "reuses" if own.reuse else "does not reuse"
        raise PolicyRefusal(f"setup: this client {uses} keys, the session does not agree")
    if THREATS.index(offered.threat) < THREATS.index(own.threat):
        raise PolicyRefusal(f"threat: this client demands {own.threat}, the session offers {offered.threat}")
    if offered.degree < own.degree:
        raise PolicyRefusal(
            f"degree: this client demands {own.degree} neighbours, the session offers {offered.degree}"
        )
    if own.reuse and own.quorum and own.degree < clients - 1 == offered.degree:
        raise PolicyRefusal(
            "degree: this client's holders vote in every round; on the complete graph, which the session offers, later "
            "rounds of reused keys have no vote, and fewer clients are sure to be in a total"
        )
    if (offered.threat, offered.degree) != (own.threat, own.degree):
        more = None if wishes.complete else offered.degree
        stood = (
            (own.corrupt + 0.5) / clients if own.corrupt else wishes.collusion
        )  # more neighbours: never fewer
        own = choose(replace(wishes, threat=offered.threat, neighbours=more, collusion=stood), clients)
    for name in ("threshold", "corrupt", "window", "quorum", "survivors"):
        needed = max(getattr(own, name), survivors if name == "survivors" else 0)
        given = getattr(offered, name)
        if given < needed:
            raise PolicyRefusal(f"{name}: this client demands at least {needed}, the session offers {given}")
    if (offered.committed, offered.beacon) != (own.committed, own.beacon):
        raise PolicyRefusal(
            "beacon: the graph would rest on other randomness than the beacon, or the commitments, of this client"
        )
    if offered.committee != own.committee:
        raise PolicyRefusal(
            f"committee: this client demands {own.committee} (0: all), the session offers {offered.committee}"
        )


def counted_on(wishes: Wishes, rules: Rules, least: int) -> None:
    """Raises Misuse, with the reason, if a layer counts on `least` clients in a total and the session does not carry
    that over the drop-outs that are planned for.

    Where drop-outs are left to chance and neighbours were given, the survivors may fall apart into smaller sums. Where
    later rounds have no vote, what mixed views leave out is counted. Everything else carries it.
    """
    p, cohort = rules.parameters, wishes.cohort(rules.clients, rules.parameters.threat)
    needed = 0 if rules.complete or cohort.two_faced else least_connected_degree(cohort)
    if least > 1 and p.degree < needed:
        raise Misuse(
            f"a layer counts on {least} clients in every total: with {p.degree} neighbours the survivors may fall "
            f"apart into smaller sums; give at least {needed} neighbours, or none, or use SecAgg"
        )
    if 1 < least <= cohort.survivors < rules.shown:
        raise Misuse(
            f"a layer counts on {least} clients in every total: later rounds of reused keys have no vote on the "
            f"complete graph, so every holder must be shown {rules.shown} survivors, and {cohort.survivors} stay at "
            f"drop-out {wishes.dropout:g}; use fresh keys, or lower dropout"
        )


def _given(wishes: Wishes, clients: int, threat: str) -> Plan:
    """The plan with neighbours or threshold as the user set them. Whether enough answer a threshold of one's own is
    one's own reckoning.
    """
    degree = clients - 1 if wishes.complete else min(wishes.neighbours or clients - 1, clients - 1)
    if wishes.neighbours is None and not wishes.complete:
        degree = planned(wishes.cohort(clients, threat)).degree
    cohort = wishes.standing(clients, threat, degree)
    held = wishes.neighbours is not None  # then so many hold the shares of reused keys, too
    found, allowed = made(cohort, degree, wishes.threshold, held), limits(cohort, degree, held)
    if found is None or allowed is None:
        raise Misuse(f"{clients} clients are too many to vote on who survived: have at most {MOST_VOTERS}")
    if cohort.two_faced and votes_needed(cohort) > cohort.survivors:
        raise Misuse(
            f"{threat}, {clients} clients: one view of who survived needs {votes_needed(cohort)} votes, and "
            f"{cohort.survivors} are left to vote: lower dropout or collusion"
        )
    most, widest = allowed.largest, allowed.widest
    if wishes.threshold is not None:
        most, widest = (found.committee or degree) if cohort.reuse else degree, degree // 2
    if not allowed.least <= found.threshold <= most or found.window > widest:
        raise Misuse(
            f"{threat}, {clients} clients, {degree} neighbours, drop-out {wishes.dropout:g}, collusion "
            f"{wishes.collusion:g}: expected a threshold from {allowed.least} (secrecy) to {most} (so many answer), "
            f"got {found.threshold}, and {found.window} of {degree // 2} successive clients, got at most {widest}: "
            "raise neighbours, or lower dropout or collusion"
        )
    return found


def _parameters(wishes: Wishes, found: Plan) -> MaskParameters:
    cohort = found.cohort
    drawn = cohort.threat == MALICIOUS and not found.complete
    return MaskParameters(
        cohort.threat,
        found.degree,
        found.threshold,
        corrupt=cohort.corrupt,
        survivors=found.survivors,
        quorum=found.quorum,
        committee=found.committee,
        window=found.window,
        committed=drawn and not wishes.beacon,
        beacon=wishes.beacon if drawn else b"",
        reuse=cohort.reuse,
    )
