"""Last state: the client opens one share per dealer, of its self-mask seed if it survived, of its mask key
if not; never both.

Outside the semi-honest model it opens to one view only: the dealers it masked with itself, and survivors that a
quorum signed, each of whom signed those dealers too. It need not have voted. It answers once and is then done, with
nothing left. Bonawitz et al., CCS 2017, figure 4, round 4.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.kernel import Left, Message, Step
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState, refuse
from secagg.client.view import View
from secagg.messages import UNMASK, Indices, Opened, Unmask, indices, items, unpack_bits


@dataclass(frozen=True, eq=False)
class Opening(ClientState):
    """Waits for the request to unmask. shown: what this client masked with and signed. held: the dealers whose shares
    (64 bytes each) it holds.
    """

    TAG: ClassVar[int | None] = 21
    STAGE: ClassVar[str] = UNMASK

    shown: View
    held: Indices
    shares: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Unmask, request)
        alive = self.survivors(asked.survivors)
        if self.rules.voted:
            around = self.rules.neighbours(self.index, self.shown.graph_seed)
            self.shown.check(self.session, asked, [j for j in around if j in alive])
        elif asked.certificate is not None or asked.inputs:
            raise refuse("signatures in a session without a vote")
        mark = f"answered/{self.session.context.hex()}"
        return Step(Left(), self.answer(self._opened(alive)), marks=(mark,))

    def survivors(self, bits: bytes) -> set[int]:
        """The survivors, among the dealers this client masked with. Raises PeerError if they are too few."""
        alive = self.view("survivors", bits, self.shown.graph_seed)
        if not alive <= unpack_bits(self.shown.dealers, self.session.clients):
            raise refuse("survivors who never dealt shares")
        return alive

    def _opened(self, alive: set[int]) -> Opened:
        shares = dict(zip(self.held.tolist(), items(self.shares, 64), strict=True))
        stayed, gone = ([j for j in shares if (j in alive) == kind] for kind in (True, False))
        seeds, keys = b"".join(shares[j][:32] for j in stayed), b"".join(shares[j][32:] for j in gone)
        return Opened(indices(stayed), seeds, indices(gone), keys)
