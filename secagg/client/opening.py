"""Last state: the client opens one share per dealer, of its self-mask seed if it survived, of its mask key
if not; never both.

Outside the semi-honest model it opens to one view only: the dealers it masked with itself, and survivors that a
quorum signed, each of whom signed those dealers too. It need not have voted. It answers once and is then done, with
nothing left. Bonawitz et al., CCS 2017, figure 4, round 4.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.agreement import Vote
from protocols.codec import Record
from protocols.kernel import Left, Message, State, Step
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState, refuse
from secagg.client.view import View
from secagg.messages import UNMASK, Indices, Opened, Survivors, Unmask, indices, items, unpack_bits


@dataclass(frozen=True, eq=False)
class Opener(ClientState):
    """Base of those who wait for the request to open. shown: what this client masked with and signed."""

    STAGE: ClassVar[str] = UNMASK

    shown: View

    def survivors(self, bits: bytes) -> set[int]:
        """The survivors, among the dealers this client masked with. Raises PeerError if they are too few."""
        alive = self.view("survivors", bits, self.shown.graph_seed)
        if not alive <= unpack_bits(self.shown.dealers, self.session.clients):
            raise refuse("survivors who never dealt shares")
        return alive

    def check(self, asked: Unmask, signers: list[int]) -> None:
        """Accept a request to open, or raise PeerError. signers: the survivors whose shares it would open."""
        if self.rules.voted:
            self.shown.check(self.session, asked, signers)
        elif asked.certificate is not None or asked.inputs:
            raise refuse("signatures in a session without a vote")

    def opened(self, body: Record) -> Step:
        """The one answer; nothing is left after it."""
        return Step(Left(), self.answer(body), marks=(f"answered/{self.session.context.hex()}",))

    def vote(self, request: Message, sign: bytes, after: State) -> Step:
        """Sign the survivors that are shown, once."""
        shown = self.take(Survivors, request)
        self.survivors(shown.bits)
        ballot = self.shown.vote(self.session, shown.bits, sign)
        return Step(after, self.answer(Vote(ballot.signature)), marks=(ballot.mark,))


@dataclass(frozen=True, eq=False)
class Opening(Opener):
    """Waits for the request to unmask. held: the dealers whose shares (64 bytes each) it holds."""

    TAG: ClassVar[int | None] = 21

    held: Indices
    shares: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Unmask, request)
        alive = self.survivors(asked.survivors)
        around = self.rules.neighbours(self.index, self.shown.graph_seed)
        self.check(asked, [j for j in around if j in alive])
        return self.opened(self._opened(alive))

    def _opened(self, alive: set[int]) -> Opened:
        shares = dict(zip(self.held.tolist(), items(self.shares, 64), strict=True))
        stayed, gone = ([j for j in shares if (j in alive) == kind] for kind in (True, False))
        seeds, keys = b"".join(shares[j][:32] for j in stayed), b"".join(shares[j][32:] for j in gone)
        return Opened(indices(stayed), seeds, indices(gone), keys)
