"""Last state: a client that holds shares opens once what the survivors open of each client's secrets (`Places.opens`).
It never opens two secrets of one client that together give its vector away. Then it is done and keeps nothing.
Bonawitz et al., CCS 2017, figure 4, round 4.

Outside the semi-honest model it opens to one view only: the dealers that it masked with, and survivors that a quorum
signed and who each signed those dealers too. It need not have voted itself. Later rounds of reused keys have no vote
on the complete graph. There the threshold keeps two views apart (2 t > holders + corrupt): t holders were shown a
client alive, or t were shown it gone, not both. What a mixture of views leaves out of the total is counted
(`Rules.shown`).
"""

from dataclasses import dataclass, field

from protocols.errors import refuse
from protocols.kernel import Left, Message, Step
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState
from secagg.client.dealing import unsealed
from secagg.client.view import View
from secagg.messages import UNMASK, Opened, Unmask, indices, unpack_bits
from secagg.places import Places


@dataclass(frozen=True, eq=False)
class Opening(ClientState):
    """Waits for the request to unmask. shown: what this client masked with and signed. held: by dealer, the shares
    that it holds; with reused keys, the key of the box that they come in.
    """

    TAG = 21
    STAGE = UNMASK

    shown: View
    held: dict[int, bytes] = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Unmask, request)
        alive = self.survivors(asked.survivors)
        dealers = unpack_bits(self.shown.dealers, self.session.clients)
        places = Places(self.rules, self.shown.graph_seed, dealers)
        self.shown.check(self.session, asked, [j for j in places.peers(self.index) if j in alive])
        opened = self._opened(places, self._shares(asked, alive), alive)
        body = Opened(indices(opened), b"".join(opened.values()))
        return Step(Left(), self.answer(body), marks=(f"answered/{self.session.context.hex()}",))

    def survivors(self, bits: bytes) -> set[int]:
        """The survivors, among the dealers this client masked with. Raises PeerError if they are too few."""
        alive = self.view("survivors", bits, self.shown.graph_seed)
        if not alive <= unpack_bits(self.shown.dealers, self.session.clients):
            raise refuse("survivors who never dealt shares")
        return alive

    def _shares(self, asked: Unmask, alive: set[int]) -> dict[int, bytes]:
        """The shares that it holds, by dealer."""
        if not self.rules.parameters.reuse and not asked.boxes:
            return self.held
        if not self.rules.parameters.reuse or not set(asked.boxes) <= alive & set(self.held):
            raise refuse("a box of a client who is no survivor, or of shares that were dealt before")
        return {j: unsealed(self, j, self.held[j], box) for j, box in sorted(asked.boxes.items())}

    def _opened(self, places: Places, shares: dict[int, bytes], alive: set[int]) -> dict[int, bytes]:
        """What this view opens. A box that does not open, or holds something else, is left out: the server sees it."""
        opened = {}
        for owner, share in shares.items():
            parts = places.cut(share)
            if len(share) == places.size(len(places.kinds(owner))):
                opened[owner] = b"".join(parts[at] for at in places.opens(owner, alive))
        return opened
