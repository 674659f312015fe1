"""The public rules of one session: what its parameters mean. What does not belong here: secrets, choosing
the parameters.

Everything here follows from the session alone, so every party computes it for itself.
"""

import functools
import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.agreement import quorum
from protocols.codec import Record
from protocols.errors import Misuse, WireError
from protocols.session import Session
from secagg.graph import Harary, permutation
from secagg.messages import SIGNATURE_BYTES, Indices, items
from secagg.parameters.rules import BEACON_ROUNDS
from secagg.ring import Ring

SEMI_HONEST, SEMI_MALICIOUS, MALICIOUS = "semi-honest", "semi-malicious", "malicious"
THREATS = (SEMI_HONEST, SEMI_MALICIOUS, MALICIOUS)
LEAST_CLIENTS, LEAST_THRESHOLD = 3, 2
_MAX_POINT = 65_535
_NO_SEED = bytes(32)
_KEPT = "_mask_rules"
"""Where a session keeps its rules, as it keeps its context: every step of every party asks for them."""


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
        if self.threat not in THREATS:
            raise Misuse(f"expected a threat of {THREATS}, got {self.threat!r}")
        holders = max(self.degree, self.committee) if self.reuse else self.degree
        if not LEAST_THRESHOLD <= self.threshold <= holders or self.degree > _MAX_POINT:
            raise Misuse(
                f"expected {LEAST_THRESHOLD} <= threshold <= degree (or committee, with reused keys) <= {_MAX_POINT}, "
                f"got threshold {self.threshold}, degree {self.degree}, committee {self.committee}"
            )
        if self.corrupt < 0 or self.survivors < 2:
            raise Misuse(f"expected corrupt >= 0 and survivors >= 2, got {self.corrupt}, {self.survivors}")
        if min(self.quorum, self.committee, self.window) < 0 or self.window > max(0, self.degree // 2):
            raise Misuse(
                f"expected quorum and committee >= 0 and a window from 0 to degree / 2, "
                f"got {self.quorum}, {self.committee}, {self.window}"
            )


class Rules:
    """What one session's parameters mean."""

    def __init__(
        self,
        parameters: MaskParameters,
        clients: int,
        survivors: int,
        ring_bits: int,
        context: bytes,
        round: int,
    ) -> None:
        p = self.parameters = parameters
        self.clients = clients
        if self.clients < LEAST_CLIENTS or p.degree > self.clients - 1:
            raise Misuse(
                f"expected at least {LEAST_CLIENTS} clients and a degree below their number, "
                f"got {self.clients} clients, degree {p.degree}"
            )
        self.degree, self.threshold = p.degree, p.threshold
        self.voted = p.threat != SEMI_HONEST
        self.certified = p.threat == MALICIOUS
        self.keyed = p.threat == SEMI_MALICIOUS  # signatures are by keys of the session, else by the roster's
        self.complete = self.degree == self.clients - 1
        self.agrees = self.voted and not (p.reuse and self.complete)  # later rounds are two trips there
        _check_quorum(p, self.clients, self.complete)
        self.shown = self._least_shown(survivors)
        self.survivors = self.sure(self.shown)
        self.committed = p.committed
        self.ring = Ring(ring_bits)
        self.seed = b"" if p.committed else _seed(p, p.epoch or context, p.begun or round)
        if p.identities and len(p.identities) != 32 * self.clients:
            raise Misuse(f"expected {self.clients} identities of 32 bytes, got {len(p.identities)} bytes")
        if p.committed and (self.complete or not self.certified):
            raise Misuse("commit and reveal is for malicious sessions on sparse graphs")
        if p.reuse and p.committed:
            raise Misuse("reused keys on a sparse graph in the malicious model need a beacon")
        if (len(p.epoch), p.begun > 0) not in ((0, False), (32, True)) or (p.epoch and not p.reuse):
            raise Misuse("expected context and round of a set-up where keys are reused, or neither")
        if p.beacon and round > BEACON_ROUNDS:
            raise Misuse(
                f"a beacon serves rounds up to {BEACON_ROUNDS}, this is round {round}: use another one"
            )
        if self.certified and not (self.complete or p.committed or p.beacon):
            raise Misuse("a malicious session on a sparse graph needs commit and reveal, or a beacon")

    @property
    def advertisement_bytes(self) -> int:
        """X25519 keys for sealing and for masks; a session signing key, where there is no roster's; a commitment;
        a certificate: each where it is used.
        """
        return 64 + 32 * self.keyed + 32 * self.committed + SIGNATURE_BYTES * self.certified

    def neighbours(self, index: int, seed: bytes) -> tuple[int, ...]:
        """The neighbours of a client, ascending; `seed` is `self.seed`, or what the commitments gave."""
        graph = Harary(seed or _NO_SEED, self.clients, self.degree)
        if self.ranked is None:
            return graph.neighbours(index)
        return tuple(sorted(int(self.ranked[j]) for j in graph.neighbours(int(self._ranks[index]))))

    def circle(self, seed: bytes) -> NDArray[np.int64]:
        """The clients in their order on the ring."""
        order = permutation(seed or _NO_SEED, self.clients)
        return order if self.ranked is None else self.ranked[order]

    @functools.cached_property
    def ranked(self) -> NDArray[np.int64] | None:
        """The clients by their identities, where a beacon fixes the graph: the server picks the session's order after
        it knew the beacon, so the graph does not depend on it. None: by their index.
        """
        if not (self.parameters.beacon and self.parameters.identities):
            return None
        keys = items(self.parameters.identities, 32)
        return np.array(sorted(range(self.clients), key=keys.__getitem__), np.int64)

    @functools.cached_property
    def _ranks(self) -> NDArray[np.int64]:
        return np.argsort(self.ranked) if self.ranked is not None else np.arange(self.clients)

    def voters(self, seed: bytes) -> tuple[int, ...]:
        """Who signs the survivors, ascending: everybody, or a committee that is drawn with the graph."""
        if not self.parameters.committee:
            return tuple(range(self.clients))
        return tuple(sorted(self._drawn(seed, self.parameters.committee)))

    def _drawn(self, seed: bytes, size: int) -> list[int]:
        drawn = hashlib.sha256(b"secagg voters v1\0" + seed).digest()
        return [int(i) for i in self.circle(drawn)[:size]]

    def shortfall(self, view: Collection[int], seed: bytes) -> str:
        """Why these clients are too few to deal, or to be the survivors; empty if they are enough."""
        if len(view) < self.shown:
            return f"expected at least {self.shown} clients, got {len(view)}"
        if self.parameters.window:
            found = self._fewest_in_a_row(view, seed)
            if found < self.parameters.window:
                return (
                    f"expected {self.parameters.window} of any {self.degree // 2} clients in a row on the ring, "
                    f"got {found}: the graph of those who are left could fall apart"
                )
        return ""

    def _fewest_in_a_row(self, view: Collection[int], seed: bytes) -> int:
        """The fewest members of `view` among degree / 2 successive places of the ring."""
        half, marked = self.degree // 2, np.zeros(self.clients, np.int64)
        marked[list(view)] = 1
        around = marked[self.circle(seed)]
        reached = np.concatenate([[0], np.cumsum(np.concatenate([around, around[: half - 1]]))])
        return int((reached[half:] - reached[:-half]).min())

    def sure(self, shown: int) -> int:
        """Clients that are in the total for sure if nobody who opens is shown fewer than `shown` survivors.

        Where clients agree on one view: all of those. On the complete graph with reused keys holders may be shown
        others each. A client is left out if threshold - corrupt honest holders are shown it gone; together they are
        shown (holders - corrupt) times as many gone as one of them.
        """
        if self.agrees or not self.voted:
            return shown
        holders, corrupt = self.clients - 1, self.parameters.corrupt
        return self.clients - (self.clients - shown) * (holders - corrupt) // (self.threshold - corrupt)

    def _least_shown(self, survivors: int) -> int:
        """The fewest survivors that a client may be shown, so that `survivors` are in every total."""
        least = self.parameters.survivors
        return next((n for n in range(least, self.clients) if self.sure(n) >= survivors), self.clients)

    @functools.cached_property
    def holders(self) -> frozenset[int]:
        """The clients that hold everybody's shares where keys are reused: the voters; `degree` of the clients where
        nobody votes.
        """
        if self.complete or (self.voted and not self.parameters.committee):
            return frozenset(range(self.clients))
        return frozenset(self._drawn(self.seed, self.parameters.committee or self.degree))

    def points(self, holders: Indices) -> NDArray[np.int64]:
        """The points of a dealer's shares, in the order of its holders: their index + 1, or their rank in
        very large cohorts.
        """
        if self.clients <= _MAX_POINT:
            return holders.astype(np.int64) + 1
        return np.arange(1, len(holders) + 1, dtype=np.int64)

    def identity(self, index: int) -> bytes:
        """The Ed25519 key of a client in a malicious session."""
        return self.parameters.identities[32 * index : 32 * index + 32]


def _check_quorum(p: MaskParameters, clients: int, complete: bool) -> None:
    """Raises Misuse unless two certificates share an honest client, and every window an honest survivor; where later
    rounds have no vote, unless two views do not both reach the threshold.
    """
    if p.threat == SEMI_HONEST:
        if p.quorum or p.committee or p.window:
            raise Misuse("semi-honest sessions have no quorum, committee or window")
        return
    voters = p.committee or clients
    least = quorum(clients, p.corrupt) if not p.committee else voters // 2 + 1
    if not least <= p.quorum <= voters <= clients:
        raise Misuse(
            f"expected a quorum from {least} to {voters} voters, of {clients} clients, got {p.quorum}: "
            "two views of who survived could both be certified"
        )
    if not complete and p.window < 1:
        raise Misuse("a sparse graph needs a window >= 1: survivors among clients in a row on the ring")
    if complete and p.reuse and 2 * p.threshold <= clients - 1 + p.corrupt:
        raise Misuse(
            f"reused keys: expected 2 x threshold > holders + corrupt, got 2 x {p.threshold} <= {clients - 1} + "
            f"{p.corrupt}: two views of who survived could open both secrets of a client"
        )


def _seed(parameters: MaskParameters, context: bytes, round: int) -> bytes:
    """The graph's seed: the session's context (it has the server's nonce), or a beacon with what was fixed before it:
    the whole signed roster in an order of its own, and a round of at most BEACON_ROUNDS.
    """
    if not parameters.beacon:
        return hashlib.sha256(b"secagg graph v1\0" + context).digest()
    members = b"".join(sorted(items(parameters.identities, 32)))
    fixed = b"secagg beacon v2\0" + round.to_bytes(8, "big") + hashlib.sha256(members).digest()
    return hashlib.sha256(fixed + parameters.beacon).digest()


@functools.lru_cache(maxsize=8)
def _rules(
    parameters: bytes, clients: int, survivors: int, ring_bits: int, context: bytes, round: int
) -> Rules:
    return Rules(MaskParameters.decode(parameters), clients, survivors, ring_bits, context, round)


def rules_of(session: Session) -> Rules:
    """Return the rules of a session. Raises Misuse if its parameters are not those of a masked sum, or do
    not fit.
    """
    known = vars(session).get(_KEPT)
    if known is not None:
        return known  # type: ignore[no-any-return]  # what is kept there is kept below
    try:
        rules = _rules(
            session.parameters,
            session.clients,
            session.min_survivors,
            session.ring_bits(),
            session.context,
            session.round,
        )
    except WireError as error:
        raise Misuse(f"the session's parameters are not those of a masked sum: {error}") from None
    vars(session)[_KEPT] = rules
    return rules
