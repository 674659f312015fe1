"""Later round, where keys are reused: the client has its input and the pair keys of the set-up, and waits to be asked
for its masked vector; shares of the round's secrets go with it.

Edge seeds of a round are derived from the pair's chain and the round's context, so both ends have the same one, and two
clients who were shown different models have different ones.
"""

from dataclasses import dataclass, field

from protocols.errors import SetupMissing, WireError, refuse
from protocols.identity import Identity
from protocols.kernel import Message, Step
from protocols.key_agreement import derive, info
from protocols.protocol import ClientStart
from protocols.randomness import SecureRandom
from protocols.summation import IntVector
from secagg.client.dealing import deal
from secagg.client.keys import Bearing
from secagg.client.masking import leave, masked
from secagg.client.view import View
from secagg.commitments import edge_digest, seed_digest
from secagg.memory import ClientMemory
from secagg.messages import INPUT, Masked, Proceed, indices, items, unpack_bits
from secagg.places import EDGE_BYTES, SEED_BYTES, Places
from secagg.seeds import edge_mask_seed


@dataclass(frozen=True, eq=False)
class Resuming(Bearing):
    """Waits to be asked for its masked vector. sign: the key that signs."""

    TAG = 23
    STAGE = INPUT

    memory: ClientMemory = field(repr=False)
    sign: bytes = field(repr=False)

    def over(self, memory: bytes | None) -> bool:
        """Once the client keeps chains of a later round, of another set-up, or none: these are used or gone."""
        return memory is None or self._left_behind(ClientMemory.decode(memory))

    def _left_behind(self, kept: ClientMemory) -> bool:
        return kept.setup != self.memory.setup or kept.next_round > self.session.round

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Proceed, request)
        if asked.enrolled or len(asked.clients):
            raise refuse("new keys in a round that builds on a set-up")
        return self.deposit(random)

    def deposit(self, random: SecureRandom) -> Step:
        """Return the step in which the masked vector leaves; in what it remembers the chains have moved on."""
        session, index, memory = self.session, self.index, self.memory
        places = Places(self.rules, self.rules.seed, unpack_bits(memory.enrolled, session.clients))
        edges = self._keys("edge", places.neighbours(index), memory.chains, EDGE_BYTES)
        channels = self._keys("seal", places.peers(index), memory.channels, 32)
        seed, names = random.bytes(SEED_BYTES), session.roster
        pairs = {j: edge_mask_seed(e, session.context, self.name, names[j]) for j, e in edges.items()}
        vector = masked(self, seed, pairs)
        pledges = [seed_digest(session.context, index, seed)]
        pledges += [edge_digest(session.context, index, j, edge) for j, edge in edges.items()]
        secrets, pledged = (seed, *edges.values()), b"".join(pledges)
        dealing = deal(self, places, secrets, channels, pledged, self.sign, random, vector)
        view = View(self.rules.seed, memory.enrolled, memory.signers)
        body = Masked(vector, indices(()), view.sign_input(session, index, self.sign), dealing)
        return leave(self, view, self.sign, channels, body, memory.forward(1).encode())

    def _keys(self, purpose: str, peers: list[int], chains: bytes, length: int) -> dict[int, bytes]:
        """This round's keys with some peers, from the chains with them."""
        names, context = self.session.roster, self.session.context
        return {
            j: derive(chain, context, info(purpose, self.name, names[j]), length)
            for j, chain in zip(peers, items(chains, 32), strict=True)
        }


def resume(start: ClientStart[IntVector], identity: Identity | None) -> Step:
    """Return a client's first step in a later round: it keeps no chain of the rounds before, so that an earlier round,
    begun afterwards, cannot bring those chains back. Raises SetupMissing if it has no keys for this round.
    """
    if start.memory is None:
        raise SetupMissing("setup: this client took no part in the set-up; it joins with the next one")
    try:
        kept = ClientMemory.decode(start.memory)
    except WireError as error:
        raise SetupMissing(f"setup: what this client kept is not readable: {error}") from None
    sign = identity.private_bytes() if identity is not None else kept.sign
    moved = kept.at(start.session)
    state = Resuming(start.session, start.index, start.update, start.vector, moved, sign)
    return Step(state, memory=moved.encode())
