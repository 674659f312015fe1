"""What a client, or a helper, insists on. What does not belong here: what a protocol can do (that is its `Demands`).

A server that asks for less is refused by the party, with the demand that failed. Fail closed: a demand that
the protocol says nothing about is a refusal.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from protocols.errors import Misuse, PolicyRefusal, require

THREATS = ("none", "semi-honest", "semi-malicious", "malicious")


@dataclass(frozen=True)
class Demands:
    """What one session asks its parties to accept; every protocol states its own.

    cohort: clients in the roster. threshold: parties that must agree to open anything (0: one party alone
    opens the sum; None: the notion does not apply). degree: neighbours per client (None: no graph).
    quorum, voters: signatures that certify what is opened, of how many voters (None: nothing is certified).
    ring_bits: width of the group. survivors: least clients in a total. threat: one of THREATS, what the
    server may do without learning more than the sum. signed_roster: identities are bound to keys by someone
    other than the server.
    """

    cohort: int
    survivors: int
    ring_bits: int
    threat: str
    threshold: int | None = None
    degree: int | None = None
    signed_roster: bool = False
    simulated: bool = False
    quorum: int | None = None
    voters: int | None = None


@dataclass(frozen=True)
class Policy:
    """What a client, a key holder or a decryptor insists on; it checks every session before anything leaves it.

    Clients and keys:

    - min_cohort: fewest clients in the roster, >= 0 (default: 2).
    - min_survivors: fewest clients in a total, >= 0 (default: 2; a sum of one is no sum).
    - min_threshold: fewest parties that open anything together, >= 0 (default: 2).
    - min_threshold_share: the share of the voters who must agree on what is opened, or of the share holders who
      must answer where nobody votes, has to exceed this, 0 to 1, outside the semi-honest model (default: 0.5; two
      disjoint sets can never both open something).
    - min_degree: fewest neighbours of a client in the graph, >= 0 (default: 2).
    - min_ring_bits: least bits of the ring, >= 0 (default: 2).

    Threat:

    - threat: the weakest model accepted: "none" (default), "semi-honest", "semi-malicious" or "malicious".
    - signed_roster: demand identities of a signed roster (default: False).
    - allow_simulated: join a session with injected randomness (default: False).

    Privacy:

    - max_epsilon: the largest epsilon that the client's own ledger may reach, >= 0, finite (default: None, no
      demand).
    - allow_layers: names of the privacy layers accepted, a tuple or list (default: None, any).
    - allow_resend: let an update leave a second time; the ledger charges it, the statement names it (default:
      False).

    Raises Misuse for a value of another type or range. `check` raises PolicyRefusal naming the demand that fails.

        policy = Policy(min_cohort=3, threat="semi-malicious", max_epsilon=8.0)
        Federation(make, loaders, privacy=[SecAggPlus()], policy=policy)
    """

    min_cohort: int = 2
    min_survivors: int = 2
    min_threshold: int = 2
    min_threshold_share: float = 0.5
    min_degree: int = 2
    min_ring_bits: int = 2
    threat: str = "none"
    signed_roster: bool = False
    max_epsilon: float | None = None
    allow_layers: tuple[str, ...] | None = None
    allow_resend: bool = False
    allow_simulated: bool = False

    def __post_init__(self) -> None:
        require(self.threat in THREATS, f"threat to be one of {THREATS}", f"{self.threat!r}")
        for name, (wanted, accept) in _FIELDS.items():
            if not accept(value := getattr(self, name)):
                raise Misuse(f"expected {name} to be {wanted}, got {value!r}")

    def check(self, demands: Demands) -> None:
        """Raises PolicyRefusal naming the first demand that fails."""
        for name in ("cohort", "survivors", "ring_bits", "threshold"):
            self._least(name, getattr(demands, name), getattr(self, f"min_{name}"))
        if demands.threshold is not None:
            self._share(demands, demands.threshold)
        self._least("degree", demands.degree, min(self.min_degree, demands.cohort - 1))
        if THREATS.index(demands.threat) < THREATS.index(self.threat):
            raise PolicyRefusal(
                f"threat: the policy demands {self.threat}, the session offers {demands.threat}"
            )
        if self.signed_roster and not demands.signed_roster:
            raise PolicyRefusal(
                "signed_roster: the policy demands identities of a signed roster in the session's keys, and they have "
                "none (threat='malicious', credentials=...)"
            )
        if demands.simulated and not self.allow_simulated:
            raise PolicyRefusal("simulated: the policy refuses sessions with injected randomness")

    def _share(self, demands: Demands, threshold: int) -> None:
        """Raises PolicyRefusal if too few must agree, where the server may tell them different things."""
        needed, of, who = threshold, demands.degree or demands.cohort, "share holders"
        if demands.quorum is not None:
            needed, of, who = demands.quorum, demands.voters or demands.cohort, "voters"
        if demands.threat not in ("none", "semi-honest") and needed <= self.min_threshold_share * of:
            raise PolicyRefusal(
                f"threshold: the policy demands more than {self.min_threshold_share:g} of {of} {who}, "
                f"the session offers {needed}"
            )

    @staticmethod
    def _least(name: str, offered: int | None, demanded: int) -> None:
        if offered is not None and offered < demanded:
            raise PolicyRefusal(
                f"{name}: the policy demands at least {demanded}, the session offers {offered}"
            )


def _is_count(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) >= 0
    except TypeError:
        return False


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(name, str) and name for name in value)


_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("min_cohort", "min_survivors", "min_threshold", "min_degree", "min_ring_bits"),
        ("a whole number >= 0", _is_count),
    ),
    "min_threshold_share": ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    "max_epsilon": ("a finite number >= 0, or none", lambda v: v is None or (_is_number(v) and v >= 0)),
    "allow_layers": ("a tuple or list of layers' names", lambda v: v is None or _are_names(v)),
    **dict.fromkeys(
        ("signed_roster", "allow_resend", "allow_simulated"), ("true or false", lambda v: isinstance(v, bool))
    ),
}
"""What each demand must be, in words and as a test."""
