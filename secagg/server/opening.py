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

from protocols.agreement import Certificate
from protocols.errors import ProtocolViolation
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total
from secagg.commitments import KEY, SEED, share_digest
from secagg.messages import DIGEST_BYTES, UNMASK, Indices, Opened, Unmask, items, pack_bits
from secagg.server.base import Facts, Input, Pledge, ServerState
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
    arrived: dict[int, Input]
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
            for i, said in sorted(self.arrived.items())
            for j in said.complaints.tolist()
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
    arrived: dict[int, Input],
    certificate: Certificate | None,
) -> Step:
    """Return the last state, and the requests to all survivors: whether or not they voted."""
    state = Opening(session, facts, total, arrived, {}, {}, {}, {}, [])
    bits, asks = pack_bits(arrived, session.clients), []
    voted = set() if certificate is None else set(certificate.voters.tolist())
    for i in sorted(arrived):
        inputs = b"" if certificate is None else _inputs(state, i, voted)
        state.waiting[i] = True
        asks.append(state.request(UNMASK, i, Unmask(bits, certificate, inputs)))
    return Step(state, tuple(asks))


def _inputs(state: Opening, index: int, voted: set[int]) -> bytes:
    """The signed inputs of a client's surviving neighbours who are not in the certificate."""
    around = state.rules.neighbours(index, state.facts.graph_seed)
    return b"".join(state.arrived[j].signature for j in around if j in state.arrived and j not in voted)
