"""From a user's wishes to the parameters of one session, and what a client holds a session to. What does not belong
here: the tails behind them (`parameters`).
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, Self

from protocols.errors import Misuse, PolicyRefusal, require
from secagg.mask_parameters import LEAST_CLIENTS, MALICIOUS, NUMBERS, MaskParameters
from secagg.parameters import Cohort, Plan
from secagg.parameters.conditions import MOST_VOTERS, THREATS, least_connected_degree
from secagg.parameters.plan import limits, plan, too_few_votes
from secagg.session_rules import Rules

FEW = 4
"""In cohorts up to this size `reusing` accepts that reused keys withstand fewer corrupt clients beyond the plan."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks for. demand: on a cohort, with a number of clients set later (`cohort`). The other fields are
    those of `SecAggPlus`.
    """

    demand: Cohort
    neighbours: int | None
    threshold: int | None
    beacon: bytes = b""

    def __post_init__(self) -> None:
        for name in ("neighbours", "threshold"):
            value = getattr(self, name)
            require(value is None or value >= 2, f"{name} >= 2", value)
        if self.demand.complete and self.neighbours is not None:
            raise Misuse("SecAgg is on the complete graph; use SecAggPlus to set neighbours")

    def asking(self, **changes: Any) -> Self:
        """The same wishes with changes of the demand."""
        return replace(self, demand=replace(self.demand, **changes))

    def cohort(self, clients: int) -> Cohort:
        """The demand on one cohort."""
        return replace(self.demand, clients=clients, beacon=bool(self.beacon))

    def standing(self, clients: int, degree: int) -> Cohort:
        """The demand, with the corrupt clients that a given threshold stands where no collusion was asked for.

        Those are so many that two halves of the neighbours do not both reach the threshold, and that a window of the
        ring need not keep a larger share of its clients than a neighbourhood.
        """
        cohort, t = self.cohort(clients), self.threshold
        if t is None or cohort.collusion or not cohort.two_faced:
            return cohort
        stands = min(2 * t - degree - 1, 2 * cohort.survivors - clients - 1)
        if degree < clients - 1:
            stands = min(stands, t // 2 - 1)
        return replace(cohort, collusion=(max(0, stands) + 0.5) / clients)


@functools.lru_cache(maxsize=256)
def choose(wishes: Wishes, clients: int) -> MaskParameters:
    """Return the parameters for a cohort. The server picks the cohort's size, so the threat model does not follow from
    it.

    Raises Misuse if there are none, saying what to relax.
    """
    if clients < LEAST_CLIENTS:
        raise Misuse(
            f"expected at least {LEAST_CLIENTS} clients, got {clients}: in a sum of two, each reads the other's"
        )
    planning = wishes.neighbours is None and wishes.threshold is None
    found = plan(wishes.cohort(clients)) if planning else _given(wishes, clients)
    return MaskParameters(
        found.cohort.threat,
        **{name: getattr(found, name) for name in NUMBERS},
        committed=found.committed,
        beacon=wishes.beacon if found.cohort.threat == MALICIOUS and not found.complete else b"",
        reuse=found.cohort.reuse,
    )


def reusing(wishes: Wishes, clients: int, least: int) -> tuple[Wishes, int]:
    """Return what a session asks for where reused keys are welcome, and how many clients are in each of its totals.

    Totals are as large as with fresh keys, and at least as large as the `least` that a layer counts on. Keys are
    reused where such totals survive the drop-outs that are planned for and where no number that a policy reads is
    lower; else they are fresh. On the complete graph as many holders must agree as would vote with fresh keys, so that
    as many corrupt clients are withstood. Cohorts of up to FEW clients are spared that, since one client that is away
    would end every round. Every party finds the same from its own wishes.
    """
    kept, fresh = wishes.asking(reuse=True), choose(wishes, clients)
    if clients > FEW and fresh.degree == clients - 1 and fresh.quorum:
        kept = replace(kept, threshold=max(wishes.threshold or 0, fresh.quorum))
    needed = max(least, fresh.survivors)
    try:
        rules = Rules(own := choose(kept, clients), clients, needed, 1, bytes(32), 1)
    except Misuse:
        return wishes, needed
    agree, of = (own.quorum, own.committee or clients) if rules.agrees else (own.threshold, own.degree)
    less = own.threshold < fresh.threshold or agree * (fresh.committee or clients) < fresh.quorum * of
    carried = needed <= rules.survivors and rules.shown <= kept.cohort(clients).survivors
    return (kept if carried and (clients <= FEW or not less) else wishes), needed


def insist(wishes: Wishes, clients: int, offered: MaskParameters) -> None:
    """Raises PolicyRefusal, naming the number, for a session that protects a client less than its own plan does.

    A client accepts more protection: a stronger threat model, more neighbours (then with the numbers that these wishes
    give for so many), larger thresholds and quorums. Behind a beacon it accepts only its own threat model and number
    of neighbours: the server knows the seed, and every other degree would give it one more graph and committee to pick
    from.
    """
    own, keys = choose(wishes, clients), ("fresh keys", "reused keys")
    least = own.survivors  # more neighbours: never fewer, though a complete graph opens with fewer shares
    demand("setup", offered.reuse == own.reuse, keys[own.reuse], keys[offered.reuse])
    demand("threat", THREATS.index(offered.threat) >= THREATS.index(own.threat), own.threat, offered.threat)
    demand("degree", offered.degree >= own.degree, f"{own.degree} neighbours", offered.degree)
    if own.reuse and own.quorum and own.degree < clients - 1 == offered.degree:
        raise PolicyRefusal(
            "degree: this client's holders vote in every round; on the complete graph, which the session offers, later "
            "rounds of reused keys have no vote, and fewer clients are sure to be in a total"
        )
    same = (offered.threat, offered.degree) == (own.threat, own.degree)
    alone = f"{own.threat} with {own.degree} neighbours alone behind a beacon, whose seed the server knows"
    demand("degree", same or not offered.beacon, alone, f"{offered.threat} with {offered.degree}")
    if not same:
        stood = (own.corrupt + 0.5) / clients if own.corrupt else wishes.demand.collusion  # never fewer
        more = None if wishes.demand.complete else offered.degree
        stronger = wishes.asking(collusion=stood, threat=offered.threat)
        own = choose(replace(stronger, neighbours=more), clients)
    for name in ("threshold", "corrupt", "window", "quorum", "survivors"):
        needed, given = max(getattr(own, name), least if name == "survivors" else 0), getattr(offered, name)
        demand(name, given >= needed, f"at least {needed}", given)
    demand("committee", offered.committee == own.committee, f"{own.committee} (0: all)", offered.committee)
    drawn = (offered.committed, offered.beacon) == (own.committed, own.beacon)
    demand("beacon", drawn, "a graph that rests on its own beacon, or on commitments", "other randomness")


def demand(name: str, kept: bool, wanted: str, given: object) -> None:
    """Raises PolicyRefusal, naming the number, unless a client's demand is `kept`."""
    if not kept:
        raise PolicyRefusal(f"{name}: this client demands {wanted}, the session offers {given}")


def counted_on(wishes: Wishes, rules: Rules, least: int) -> None:
    """Raises Misuse, with the reason, if a layer counts on `least` clients in a total and the session does not carry
    that over the drop-outs that are planned for.

    Two kinds of session may not. Where drop-outs are left to chance and the user gave the neighbours, survivors may
    fall apart into smaller sums. Where later rounds have no vote, holders must be shown more survivors than stay.
    """
    p, cohort = rules.parameters, wishes.asking(threat=rules.parameters.threat).cohort(rules.clients)
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
            f"drop-out {cohort.dropout:g}; use fresh keys, or lower dropout"
        )


def _given(wishes: Wishes, clients: int) -> Plan:
    """Return the plan with neighbours or threshold as the user set them. Whether enough clients answer a threshold
    that the user chose is for the user to judge.
    """
    complete, neighbours = wishes.demand.complete, wishes.neighbours
    degree = clients - 1 if complete else min(neighbours or clients - 1, clients - 1)
    if neighbours is None and not complete:
        degree = plan(wishes.cohort(clients)).degree
    cohort = wishes.standing(clients, degree)
    held = neighbours is not None  # then so many hold the shares of reused keys, too
    allowed = limits(cohort, degree, wishes.threshold, held)
    if allowed is None:
        raise Misuse(f"{clients} clients are too many to vote on who survived: have at most {MOST_VOTERS}")
    if few := too_few_votes(cohort):
        raise Misuse(f"{cohort.threat}, {clients} clients: {few}: lower dropout or collusion")
    least, most, widest, found = allowed
    if wishes.threshold is not None:
        most, widest = (found.committee or degree) if cohort.reuse else degree, degree // 2
    if not least <= found.threshold <= most or found.window > widest:
        raise Misuse(
            f"{cohort.threat}, {clients} clients, {degree} neighbours, drop-out {cohort.dropout:g}, collusion "
            f"{wishes.demand.collusion:g}: expected a threshold from {least} (secrecy) to {most} (so many answer), "
            f"got {found.threshold}, and {found.window} of {degree // 2} successive clients, got at most {widest}: "
            "raise neighbours, or lower dropout or collusion"
        )
    return found
