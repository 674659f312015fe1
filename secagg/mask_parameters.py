"""The parameters of a masked sum, and which of them fit together. What does not belong here: what they mean for a
party (`session_rules`), choosing them (`parameter_choice`).
"""

from dataclasses import dataclass

from protocols.agreement import quorum
from protocols.codec import Record
from protocols.errors import Misuse, require
from secagg.parameters.conditions import (
    BEACON_ROUNDS,
    LEAST_THRESHOLD,
    MOST_HOLDERS,
    THREATS,
    least_held,
    least_on_complete,
)

SEMI_HONEST, SEMI_MALICIOUS, MALICIOUS = THREATS
LEAST_CLIENTS = 3
NUMBERS = ("degree", "threshold", "corrupt", "survivors", "quorum", "committee", "window")
"""What a plan sets, what clients hold a session to, and what its statement tells."""


@dataclass(frozen=True)
class MaskParameters(Record):
    """The parameters of a masked sum; they are part of the session's context.

    threat: one of THREATS. degree: holders of each client's shares. threshold: shares that open a secret.
    corrupt: corrupt clients that the session allows for, of the whole cohort. survivors: least clients in a total.
    quorum: signatures that certify who survived (0 if semi-honest). committee: clients that sign, drawn with the
    graph (0: all of them). window: survivors among any degree / 2 clients that follow one another on the graph's
    ring, more than its corrupt ones (0 on the complete graph). committed: the graph's seed comes from commitments
    that all clients reveal. beacon: public randomness behind the graph ("" if none). identities: the clients'
    Ed25519 keys in roster order, 32 bytes each (malicious), else empty. reuse: one set-up serves many rounds: shares
    are held by the committee. epoch, begun: context and round of the set-up that a later round builds on.
    """

    threat: str
    degree: int
    threshold: int
    corrupt: int
    survivors: int
    quorum: int = 0
    committee: int = 0
    window: int = 0
    committed: bool = False
    beacon: bytes = b""
    identities: bytes = b""
    reuse: bool = False
    epoch: bytes = b""
    begun: int = 0

    def __post_init__(self) -> None:
        require(self.threat in THREATS, f"a threat of {THREATS}", f"{self.threat!r}")
        holders = max(self.degree, self.committee) if self.reuse else self.degree
        if not LEAST_THRESHOLD <= self.threshold <= holders or self.degree > MOST_HOLDERS:
            raise Misuse(
                f"expected {LEAST_THRESHOLD} <= threshold <= degree (or committee, with reused keys) <= {MOST_HOLDERS},"
                f" got threshold {self.threshold}, degree {self.degree}, committee {self.committee}"
            )
        if self.corrupt < 0 or self.survivors < 2:
            raise Misuse(f"expected corrupt >= 0 and survivors >= 2, got {self.corrupt}, {self.survivors}")
        if min(self.quorum, self.committee, self.window) < 0 or self.window > max(0, self.degree // 2):
            raise Misuse(
                f"expected quorum and committee >= 0 and a window from 0 to degree / 2, "
                f"got {self.quorum}, {self.committee}, {self.window}"
            )


def check_fits(p: MaskParameters, clients: int, round: int) -> None:
    """Raises Misuse unless the parameters fit a cohort of `clients`, a round, and each other."""
    if clients < LEAST_CLIENTS or p.degree > clients - 1:
        raise Misuse(
            f"expected at least {LEAST_CLIENTS} clients and a degree below their number, "
            f"got {clients} clients, degree {p.degree}"
        )
    _check_quorum(p, clients)
    if p.identities and len(p.identities) != 32 * clients:
        raise Misuse(f"expected {clients} identities of 32 bytes, got {len(p.identities)} bytes")
    if (len(p.epoch), p.begun > 0) not in ((0, False), (32, True)) or (p.epoch and not p.reuse):
        raise Misuse("expected context and round of a set-up where keys are reused, or neither")
    _check_graph(p, p.degree == clients - 1, round)


def _check_graph(p: MaskParameters, complete: bool, round: int) -> None:
    """Raises Misuse if nobody, or the wrong one, fixes the graph."""
    if p.committed and (complete or p.threat != MALICIOUS):
        raise Misuse("commit and reveal is for malicious sessions on sparse graphs")
    if p.reuse and p.committed:
        raise Misuse("reused keys on a sparse graph in the malicious model need a beacon")
    if p.beacon and round > BEACON_ROUNDS:
        raise Misuse(f"a beacon serves rounds up to {BEACON_ROUNDS}, this is round {round}: use another one")
    if p.threat == MALICIOUS and not (complete or p.committed or p.beacon):
        raise Misuse("a malicious session on a sparse graph needs commit and reveal, or a beacon")


def _check_quorum(p: MaskParameters, clients: int) -> None:
    """Raises Misuse unless two certificates share an honest client, every window has an honest survivor, and the
    threshold is out of reach of the corrupt clients, wherever that is not left to chance, and of two views, where later
    rounds have no vote.
    """
    if p.threat == SEMI_HONEST:
        if p.quorum or p.committee or p.window:
            raise Misuse("semi-honest sessions have no quorum, committee or window")
        return
    voters, complete = p.committee or clients, p.degree == clients - 1
    least = quorum(clients, p.corrupt) if not p.committee else voters // 2 + 1
    if not least <= p.quorum <= voters <= clients:
        raise Misuse(
            f"expected a quorum from {least} to {voters} voters, of {clients} clients, got {p.quorum}: "
            "two views of who survived could both be certified"
        )
    if not complete and p.window < 1:
        raise Misuse("a sparse graph needs a window >= 1: survivors among clients in a row on the ring")
    held = least_held(p.quorum, voters) * p.reuse
    safe = least_on_complete(clients, p.corrupt, p.reuse) if complete else held
    if p.threshold < safe:
        raise Misuse(
            f"expected a threshold of at least {safe} on the complete graph, or where {voters} voters hold everybody's "
            f"shares, got {p.threshold}: corrupt clients, or two views of who survived, could open a client's secrets"
        )
