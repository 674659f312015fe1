"""Last state: the server collects shares, each checked against its dealer's digest, and takes the masks
off.

A share that does not match its digest names its holder, whose answer is set aside; a secret that does not
match what its dealer pledged, although all its shares do, names the dealer (`unmasking`).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total
from secagg.commitments import KEY, SEED, share_digest
from secagg.messages import DIGEST_BYTES, UNMASK, Indices, Opened, Unmask, indices, items
from secagg.server.base import Facts, Pledge, ServerState
from secagg.server.unmasking import unmask

Shares = dict[int, dict[int, bytes]]


@dataclass(frozen=True, eq=False)
class Opening(ServerState):
    """waiting: who was asked. came: who has answered. seed_shares, key_shares: dealer -> holder -> share
    (32 bytes), the threshold of each at most.
    """

    TAG: ClassVar[int | None] = 37
    STAGE: ClassVar[str] = UNMASK

    facts: Facts
    total: NDArray[np.unsignedinteger[Any]]
    arrived: dict[int, Indices]
    waiting: dict[int, bool]
    came: dict[int, bool]
    seed_shares: Shares = field(repr=False)
    key_shares: Shares = field(repr=False)
    blamed: list[str]

    def asked(self) -> Collection[int]:
        return self.waiting

    def answered(self) -> Collection[int]:
        return self.came

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, opened = self.take(Opened, answer)
        self._expected(index, opened, str(answer.sender))
        self.came[index] = True
        parts = (
            (opened.alive, opened.seed_shares, SEED, self.seed_shares),
            (opened.dropped, opened.key_shares, KEY, self.key_shares),
        )
        good = [self._keep(index, *part) for part in parts]
        if not all(good):
            self.blamed.append(str(answer.sender))
        return Step(self)

    def _expected(self, holder: int, opened: Opened, who: str) -> None:
        """Raises ProtocolViolation unless the answer names dealers of the right kind that dealt to this
        holder.
        """
        for dealers, alive in ((opened.alive, True), (opened.dropped, False)):
            for j in dealers.tolist():
                if j not in self.facts.pledges or (j in self.arrived) != alive:
                    raise ProtocolViolation(f"opened a share of {client(j)} that was not asked for", who)

    def _keep(self, holder: int, dealers: Indices, shares: bytes, kind: bytes, kept: Shares) -> bool:
        """Keep the shares that match their digests, as far as they are needed; return whether all did."""
        context, threshold, good = self.session.context, self.rules.threshold, True
        for j, share in zip(dealers.tolist(), items(shares, 32), strict=True):
            have = kept.get(j)
            if have is None:
                have = kept[j] = {}
            elif len(have) >= threshold:
                continue
            if share_digest(context, j, holder, kind, share) == pledged(self.facts.pledges[j], holder, kind):
                have[holder] = share
            else:
                good = False
        return good

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        words = unmask(self.session, self.facts, self.total, self.arrived, self.seed_shares, self.key_shares)
        disputes = [
            f"client {j} or client {i} (a share from the one to the other did not open)"
            for i, dealers in sorted(self.arrived.items())
            for j in dealers.tolist()
        ]
        total = self.rules.ring.centred(words)
        return Step(Total(total, tuple(sorted(self.arrived)), (*self.blamed, *disputes)))


def pledged(pledge: Pledge, holder: int, kind: bytes) -> bytes:
    """The digest that a dealer pledged for one holder's share; empty if it dealt nothing to it."""
    at = int(pledge.holders.searchsorted(np.uint32(holder)))
    if at == len(pledge.holders) or pledge.holders[at] != holder:
        return b""
    start = DIGEST_BYTES * (2 * at + (kind == KEY))
    return pledge.digests[start : start + DIGEST_BYTES]


def ask_to_unmask(
    session: Session,
    facts: Facts,
    total: NDArray[np.unsignedinteger[Any]],
    arrived: dict[int, Indices],
    votes: dict[int, bytes],
) -> Step:
    """Return the last state, and the requests: to those who voted, with a threshold of votes, or else to
    all survivors.
    """
    state = Opening(session, facts, total, arrived, {}, {}, {}, {}, [])
    rules, asks, nobody = state.rules, [], indices(())
    for i in sorted(votes or arrived):
        dealers = [j for j in rules.neighbours(i, facts.graph_seed) if j in facts.pledges]
        if rules.voted:
            signers = [j for j in dealers if j in votes][: rules.threshold]
            body = Unmask(nobody, nobody, indices(signers), b"".join(votes[j] for j in signers))
        else:
            alive, dropped = ([j for j in dealers if (j in arrived) == kind] for kind in (True, False))
            body = Unmask(indices(alive), indices(dropped), nobody, b"")
        state.waiting[i] = True
        asks.append(state.request(UNMASK, i, body))
    return Step(state, tuple(asks))
