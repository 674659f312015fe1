"""The public rules of one session: what its parameters mean. What does not belong here: secrets, which parameters
there are (`mask_parameters`), choosing them.

Everything here follows from the session alone, so every party computes it for itself.
"""

import functools
import hashlib
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, WireError
from protocols.session import Session
from secagg.graph import harary, permutation
from secagg.mask_parameters import MALICIOUS, SEMI_HONEST, SEMI_MALICIOUS, MaskParameters, check_fits
from secagg.messages import CONFIRM, REVEAL, SIGNATURE_BYTES, UNMASK, Indices, items
from secagg.parameters.conditions import MOST_HOLDERS
from secagg.ring import Ring

_NO_SEED = bytes(32)
_KEPT = "_mask_rules"
"""Where a session keeps its rules, as it keeps its context: every step of every party asks for them."""


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
        check_fits(p, clients, round)
        self.degree, self.threshold = p.degree, p.threshold
        self.voted = p.threat != SEMI_HONEST
        self.certified = p.threat == MALICIOUS
        self.keyed = p.threat == SEMI_MALICIOUS  # signatures are by keys of the session, else by the roster's
        self.complete = self.degree == self.clients - 1
        self.agrees = self.voted and not (p.reuse and self.complete)  # later rounds are two trips there
        self.shown = self._least_shown(survivors)
        self.survivors = self.sure(self.shown)
        self.committed = p.committed
        self.ring = Ring(ring_bits)
        self.seed = b"" if p.committed else _seed(p, p.epoch or context, p.begun or round)

    @property
    def advertisement_bytes(self) -> int:
        """X25519 keys for sealing and for masks; a session signing key, where there is no roster's; a commitment;
        a certificate: each where it is used.
        """
        return 64 + 32 * self.keyed + 32 * self.committed + SIGNATURE_BYTES * self.certified

    def neighbours(self, index: int, seed: bytes) -> tuple[int, ...]:
        """The neighbours of a client, ascending; `seed` is `self.seed`, or what the commitments gave."""
        place = index if self.ranked is None else int(self._ranks[index])
        around = harary(seed or _NO_SEED, self.clients, self.degree, place)
        return around if self.ranked is None else tuple(sorted(int(self.ranked[j]) for j in around))

    def circle(self, seed: bytes) -> NDArray[np.int64]:
        """The clients in their order on the ring."""
        order = permutation(seed or _NO_SEED, self.clients)
        return order if self.ranked is None else self.ranked[order]

    @functools.cached_property
    def ranked(self) -> NDArray[np.int64] | None:
        """The clients in the order of their identities, where a beacon fixes the graph: the server chose the session's
        order after it knew the beacon, so the graph must not depend on that order. None: the order of the session.
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

    def needed(self, stage: str) -> int:
        """The fewest answers in a stage with which a total can still come. With fresh keys on a sparse graph each
        client's own neighbours open its secrets, so most clients must still be there at the end.
        """
        opened = self.threshold + 1 if self.complete or self.parameters.reuse else self.shown
        own = {REVEAL: self.clients, CONFIRM: self.parameters.quorum, UNMASK: opened}
        return own.get(stage, self.shown)

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
        if self.clients <= MOST_HOLDERS:
            return holders.astype(np.int64) + 1
        return np.arange(1, len(holders) + 1, dtype=np.int64)

    def identity(self, index: int) -> bytes:
        """The Ed25519 key of a client in a malicious session."""
        return self.parameters.identities[32 * index : 32 * index + 32]


def _seed(parameters: MaskParameters, context: bytes, round: int) -> bytes:
    """Return the graph's seed. Without a beacon it is the session's context, which holds the server's nonce. With one
    it is the beacon and what was fixed before it: the whole signed roster in an order of its own, and a round of at
    most BEACON_ROUNDS.
    """
    if not parameters.beacon:
        return hashlib.sha256(b"secagg graph v1\0" + context).digest()
    members = b"".join(sorted(items(parameters.identities, 32)))
    fixed = b"secagg beacon v2\0" + round.to_bytes(8, "big") + hashlib.sha256(members).digest()
    return hashlib.sha256(fixed + parameters.beacon).digest()


def rules_of(session: Session) -> Rules:
    """Return the rules of a session. Raises Misuse if its parameters are not those of a masked sum, or do not fit."""
    known: Rules | None = vars(session).get(_KEPT)
    if known is None:
        try:
            parameters = MaskParameters.decode(session.parameters)
        except WireError as error:
            raise Misuse(f"the session's parameters are not those of a masked sum: {error}") from None
        facts = (session.clients, session.min_survivors, session.ring_bits(), session.context, session.round)
        known = vars(session)[_KEPT] = Rules(parameters, *facts)
    return known
