"""Last state: the server collects shares, each checked against its dealer's digest, and takes the masks off.

A share that does not match its digest, or is left out, names its holder, who had compared them before. With reused keys
it sees its box with this request, and the digest not at all: dealer and holder are named, for either may be at fault. A
secret that does not match what its dealer pledged, although all its shares do, names the dealer (`unmasking`).
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass, field

from protocols.agreement import Certificate
from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total
from secagg.commitments import share_digest
from secagg.messages import UNMASK, Opened
from secagg.places import Places
from secagg.ring import Words
from secagg.server.base import Facts, Input, SumState
from secagg.server.unmasking import unmask


@dataclass(frozen=True, eq=False)
class ServerOpening(SumState):
    """answers: who has answered. shares: owner -> holder -> its shares of what opens, the threshold of them at most."""

    TAG = 37
    STAGE = UNMASK

    arrived: dict[int, Input]
    answers: dict[int, bool]
    shares: dict[int, dict[int, bytes]] = field(repr=False)
    blamed: list[str]

    def asked(self) -> Collection[int]:
        """Whoever holds shares and is there, whether or not it voted."""
        return self._holders

    @functools.cached_property
    def _holders(self) -> list[int]:
        return [i for i in sorted(self.arrived) if not self.places.reuse or i in self.rules.holders]

    @functools.cached_property
    def _opens(self) -> dict[int, list[tuple[int, bytes]]]:
        """What opens of each dealer's secrets: place and kind."""
        kinds = {j: self.places.kinds(j) for j in self.facts.pledges}
        return {j: [(at, kinds[j][at]) for at in self.places.opens(j, self.arrived)] for j in kinds}

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        holder, opened = self.take(Opened, answer)
        found = self._shares(holder, opened, str(answer.sender))
        self.answers[holder] = True
        owners = {*found, *self._opens.keys() & self.places.peers(holder)}
        bad = [j for j in sorted(owners) if not self._keep(holder, j, found.get(j, b""))]
        self.blamed.extend(self._faults(holder, bad))
        return Step(self)

    def _faults(self, holder: int, owners: list[int]) -> list[str]:
        """Who is at fault where a holder's shares for these owners are not what was pledged, or did not come."""
        if self.places.reuse:
            return [_dispute(j, holder) for j in owners]
        return [str(client(holder))] if set(owners) - set(self.arrived[holder].complaints.tolist()) else []

    def _shares(self, holder: int, opened: Opened, who: str) -> dict[int, bytes]:
        """What was opened, by owner. Raises ProtocolViolation for what was not asked for."""
        found, at, opens = {}, 0, self._opens
        for owner in opened.owners.tolist():
            if owner not in opens or owner == holder:
                raise ProtocolViolation(f"opened a share of {client(owner)} that was not asked for", who)
            start, at = at, at + self.places.size(len(opens[owner]))
            found[owner] = opened.shares[start:at]
        if at != len(opened.shares):
            raise ProtocolViolation(f"expected {at} bytes of shares, got {len(opened.shares)}", who)
        return found

    def _keep(self, holder: int, owner: int, share: bytes) -> bool:
        """Keep shares that match their digests, as far as they are needed; return whether they do."""
        have = self.shares.setdefault(owner, {})
        if len(have) >= self.rules.threshold:
            return True
        pledge, opens = self.facts.pledges[owner], self._opens[owner]
        if len(share) != self.places.size(len(opens)):  # it did not come, whatever its dealer pledged
            return False
        for (place, kind), part in zip(opens, self.places.cut(share), strict=True):
            digest = share_digest(self.session.context, owner, holder, kind, part)
            if digest != pledge.digest(holder, place):
                return False
        have[holder] = share
        return True

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        disputes = [
            _dispute(j, i) for i, said in sorted(self.arrived.items()) for j in said.complaints.tolist()
        ]
        blamed = (*self.blamed, *disputes)
        try:
            words = unmask(self.session, self.facts, self.total, self.arrived, self.shares)
        except TooFewSurvivors as error:  # for want of good shares
            raise TooFewSurvivors("; ".join((error.reason, *blamed))) from None
        return Step(Total(self.rules.ring.centred(words), tuple(sorted(self.arrived)), blamed))


def ask_to_unmask(
    session: Session, facts: Facts, total: Words, arrived: dict[int, Input], certificate: Certificate | None
) -> Step:
    """Return the last state, and its requests to whoever holds shares."""
    state = ServerOpening(session, facts, total, arrived, {}, {}, [])
    survivors, asks = Places(state.rules, facts.graph_seed, arrived), []
    signed = {j: said.signature for j, said in arrived.items()}
    for i in state.asked():
        boxes = {j: _box(state, j, i) for j in survivors.peers(i)} if survivors.reuse else {}
        asks.append(state.request(UNMASK, i, survivors.request_to_open(i, certificate, signed, boxes)))
    return Step(state, tuple(asks))


def _dispute(dealer: int, holder: int) -> str:
    return f"{client(dealer)} or {client(holder)} (a share from the one to the other did not open)"


def _box(state: ServerOpening, owner: int, holder: int) -> bytes:
    """What an owner sealed for a holder."""
    pledge, boxes = state.facts.pledges[owner], state.arrived[owner].boxes
    size, row = len(boxes) // len(pledge.holders), pledge.row(holder)
    return boxes[size * row : size * (row + 1)]
