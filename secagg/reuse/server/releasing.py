"""Last state of every round: the server collects the committee's shares, each checked against its digest, and takes
masks off.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.agreement import Certificate
from protocols.errors import ProtocolViolation
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total
from secagg.commitments import SEED, share_digest
from secagg.messages import UNMASK, items, pack_bits
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES, Release, Released
from secagg.reuse.places import Places
from secagg.reuse.pledges import edge_kind
from secagg.reuse.server.kept import Kept
from secagg.reuse.server.taking_off import take_off
from secagg.server.base import Facts, ServerState


@dataclass(frozen=True, eq=False)
class Releasing(ServerState):
    """waiting: who was asked. came: who has answered. shares: owner -> holder -> its share of the seed and of the edges
    to the gone, the threshold of them at most.
    """

    TAG: ClassVar[int | None] = 54
    STAGE: ClassVar[str] = UNMASK

    facts: Facts
    total: NDArray[np.unsignedinteger[Any]]
    arrived: dict[int, Kept]
    waiting: dict[int, bool]
    came: dict[int, bool]
    shares: dict[int, dict[int, bytes]] = field(repr=False)
    blamed: list[str]

    def asked(self) -> Collection[int]:
        return self.waiting

    def answered(self) -> Collection[int]:
        return self.came

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        holder, released = self.take(Released, answer)
        found = self._parts(holder, released, str(answer.sender))
        self.came[holder] = True
        good = [self._keep(holder, owner, share) for owner, share in found.items()]
        if not all(good):
            self.blamed.append(str(answer.sender))
        return Step(self)

    def _parts(self, holder: int, released: Released, who: str) -> dict[int, bytes]:
        """What was released, by owner. Raises ProtocolViolation for what was not asked for."""
        found, at = {}, 0
        for owner in released.owners.tolist():
            if owner not in self.arrived or owner == holder:
                raise ProtocolViolation(f"released shares of client {owner} that were not asked for", who)
            size = SEED_BYTES + EDGE_BYTES * len(self.gone[owner])
            found[owner], at = released.shares[at : at + size], at + size
        if at != len(released.shares):
            raise ProtocolViolation(f"expected {at} bytes of shares, got {len(released.shares)}", who)
        return found

    @functools.cached_property
    def gone(self) -> dict[int, list[tuple[int, int]]]:
        """For each owner its neighbours who are gone: each one's place among its secrets, and its index."""
        places = Places(self.rules, self.facts.keys)
        around = {owner: enumerate(places.neighbours(owner), 1) for owner in self.arrived}
        return {owner: [(at, j) for at, j in some if j not in self.arrived] for owner, some in around.items()}

    @functools.cached_property
    def holders(self) -> list[int]:
        """All who hold shares, ascending."""
        return Places(self.rules, self.facts.keys).holders(-1)

    def row(self, holder: int, owner: int) -> int:
        """The row of a holder in what an owner deposited: an owner does not hold its own."""
        before = self.holders.index(holder)
        return before - (owner < holder and owner in self.holders)

    def _keep(self, holder: int, owner: int, share: bytes) -> bool:
        """Keep shares that match their digests, as far as they are needed; return whether they do."""
        have, kept, context = self.shares.setdefault(owner, {}), self.arrived[owner], self.session.context
        if len(have) >= self.rules.threshold:
            return True
        places = [(0, SEED), *((place, edge_kind(j)) for place, j in self.gone[owner])]
        parts = [share[:SEED_BYTES], *items(share[SEED_BYTES:], EDGE_BYTES)]
        for (place, kind), part in zip(places, parts, strict=True):
            if share_digest(context, owner, holder, kind, part) != kept.digest(
                self.row(holder, owner), place
            ):
                return False
        have[holder] = share
        return True

    def close(self, random: SecureRandom) -> Step:
        words = take_off(self.session, self.facts, self.total, self.arrived, self.gone, self.shares)
        total = self.rules.ring.centred(words)
        return Step(Total(total, tuple(sorted(self.arrived)), tuple(self.blamed)))


def ask_to_release(
    session: Session,
    facts: Facts,
    total: NDArray[np.unsignedinteger[Any]],
    arrived: dict[int, Kept],
    certificate: Certificate | None,
) -> Step:
    """Return the last state, and the requests to the surviving holders: whether or not they voted."""
    state = Releasing(session, facts, total, arrived, {}, {}, {}, [])
    bits, asks = pack_bits(arrived, session.clients), []
    voted = set(certificate.voters.tolist()) if certificate is not None else set()
    for m in (m for m in state.holders if m in arrived):
        others = [i for i in sorted(arrived) if i != m]
        inputs = b"".join(arrived[i].signature for i in others if i not in voted)
        state.waiting[m] = True
        boxes = {i: arrived[i].box(state.row(m, i)) for i in others}
        asks.append(state.request(UNMASK, m, Release(bits, certificate, inputs, boxes)))
    return Step(state, tuple(asks))
