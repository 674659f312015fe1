"""Server, last state of every round: it collects the committee's shares, each checked against its digest,
and takes masks off.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from protocols.summation import Total
from secagg.commitments import SEED, share_digest
from secagg.messages import UNMASK, items
from secagg.reuse.kept import Kept
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES, Released
from secagg.reuse.pledges import edge_kind
from secagg.reuse.taking_off import take_off
from secagg.server.base import ServerState

Shares = dict[int, dict[int, dict[int, bytes]]]


@dataclass(frozen=True, eq=False)
class Releasing(ServerState):
    """waiting: who was asked. came: who has answered. shares: owner -> place of the secret -> holder ->
    share, the threshold of each at most.
    """

    TAG: ClassVar[int | None] = 54
    STAGE: ClassVar[str] = UNMASK

    total: NDArray[np.unsignedinteger[Any]]
    deposits: dict[int, Kept]
    waiting: dict[int, bool]
    came: dict[int, bool]
    shares: Shares = field(repr=False)
    blamed: list[str]

    def asked(self) -> Collection[int]:
        return self.waiting

    def answered(self) -> Collection[int]:
        return self.came

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        holder, released = self.take(Released, answer)
        parts = self._parts(holder, released, str(answer.sender))
        self.came[holder] = True
        good = [self._keep(holder, *part) for part in parts]
        if not all(good):
            self.blamed.append(str(answer.sender))
        return Step(self)

    def _parts(self, holder: int, released: Released, who: str) -> list[tuple[int, int, bytes, bytes]]:
        """Owner, place, kind and share of everything released. Raises ProtocolViolation for what was not
        asked for.
        """
        parts = []
        for i, share in zip(released.alive.tolist(), items(released.seed_shares, SEED_BYTES), strict=True):
            if i not in self.deposits or i == holder:
                raise ProtocolViolation(f"released a share of {client(i)} that was not asked for", who)
            parts.append((i, 0, SEED, share))
        pairs = zip(released.owners.tolist(), released.peers.tolist(), strict=True)
        for (i, j), share in zip(pairs, items(released.edge_shares, EDGE_BYTES), strict=True):
            if i not in self.deposits or j in self.deposits or self.deposits[i].place(j) < 0:
                raise ProtocolViolation(f"released an edge of {client(i)} that was not asked for", who)
            parts.append((i, self.deposits[i].place(j), edge_kind(j), share))
        return parts

    def _keep(self, holder: int, owner: int, place: int, kind: bytes, share: bytes) -> bool:
        """Keep a share that matches its digest, as far as it is needed; return whether it does."""
        have = self.shares.setdefault(owner, {}).setdefault(place, {})
        if len(have) >= self.rules.threshold:
            return True
        expected = self.deposits[owner].digest(holder, place)
        if share_digest(self.session.context, owner, holder, kind, share) != expected:
            return False
        have[holder] = share
        return True

    def close(self, random: SecureRandom) -> Step:
        words = take_off(self.session, self.total, self.deposits, self.shares)
        total = self.rules.ring.centred(words)
        return Step(Total(total, tuple(sorted(self.deposits)), tuple(self.blamed)))
