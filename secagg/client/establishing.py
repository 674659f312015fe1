"""Set-up of reused keys: the client's public keys go and the others' come. It makes the pair keys, erases the private
keys, and goes on with the first round at once.

The clients with whom it shares masks must follow from the graph and from who enrolled, which it signs with every
masked vector. So it refuses a list that lacks a key.
"""

from dataclasses import dataclass

from protocols.errors import refuse
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import certified_keys
from secagg.client.base import expect_threshold
from secagg.client.keys import Holding
from secagg.client.resuming import Resuming
from secagg.commitments import signer
from secagg.memory import ClientMemory, Setup
from secagg.messages import INPUT, Proceed
from secagg.places import Places
from secagg.signers import Signers


@dataclass(frozen=True, eq=False)
class Establishing(Holding):
    """Waits for the keys of its neighbours and of those it seals shares to."""

    TAG = 22
    STAGE = INPUT

    def receive(self, request: Message, random: SecureRandom) -> Step:
        return self.resuming(self.take(Proceed, request)).deposit(random)

    def resuming(self, given: Proceed) -> Resuming:
        """The state that goes on with the chains of these keys. Raises PeerError for keys that do not fit."""
        enrolled = self.view("enrolled", given.enrolled, self.rules.seed)
        places = Places(self.rules, self.rules.seed, enrolled)
        if given.clients.tolist() != places.known(self.index):
            raise refuse("expected the keys of exactly the enrolled neighbours and share holders")
        expect_threshold("share holders", len(places.holders(self.index)), self.rules)
        private = (self.keys.seal, self.keys.mask)
        keys = certified_keys(self.rules, self.session, self.index, given.clients, given.keys, private)
        around = {j: keys[j].mask_key for j in places.neighbours(self.index)}
        peers = {j: keys[j].seal_key for j in places.peers(self.index)}
        edges = self.pair_keys(self.keys.mask, around, "edge chain")
        channels = self.pair_keys(self.keys.seal, peers, "channel chain")
        known = {j: k.sign_key for j, k in keys.items()} | {self.index: signer(self.keys.sign).public}
        memory = ClientMemory(
            Setup.of(self.session),
            self.session.round,
            given.enrolled,
            b"".join(edges.values()),
            b"".join(channels.values()),
            self.keys.sign if self.rules.keyed else b"",
            Signers.known(self.rules, known),
        )
        return Resuming(self.session, self.index, self.update, self.vector, memory, self.keys.sign)
