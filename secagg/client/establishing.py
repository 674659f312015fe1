"""Set-up: the public keys go, the others' come; pair keys are made, the private keys are gone, and the first round goes
on at once.

With whom a client shares masks must follow from the graph and from who enrolled, which it signs with every masked
vector: so a list that lacks a key is refused.
"""

from dataclasses import dataclass
from typing import ClassVar

from protocols.kernel import Message, Step
from protocols.key_agreement import PairKeys
from protocols.randomness import SecureRandom
from secagg.advertisement import Advertised, certified_keys
from secagg.client.base import expect_threshold, refuse
from secagg.client.keys import Holding
from secagg.client.resuming import Resuming
from secagg.client.view import Signers
from secagg.commitments import signer
from secagg.memory import ClientMemory, Setup
from secagg.messages import INPUT, Proceed
from secagg.places import Places


@dataclass(frozen=True, eq=False)
class Establishing(Holding):
    """Waits for the keys of its neighbours and of those it seals shares to."""

    TAG: ClassVar[int | None] = 22
    STAGE: ClassVar[str] = INPUT

    def receive(self, request: Message, random: SecureRandom) -> Step:
        memory = self._memory(self.take(Proceed, request))
        known = (self.session, self.index, self.update, self.vector)
        return Resuming(*known, memory, self.keys.sign).deposit(random)

    def _memory(self, given: Proceed) -> ClientMemory:
        enrolled = self.view("enrolled", given.enrolled, self.rules.seed)
        places = Places(self.rules, self.rules.seed, enrolled)
        if given.clients.tolist() != places.known(self.index):
            raise refuse("expected the keys of exactly the enrolled neighbours and share holders")
        expect_threshold("share holders", len(places.holders(self.index)), self.rules)
        private = (self.keys.seal, self.keys.mask)
        keys = certified_keys(self.rules, self.session, self.index, given.clients, given.keys, private)
        known = {j: k.sign_key for j, k in keys.items()} | {self.index: signer(self.keys.sign).public}
        return ClientMemory(
            Setup.of(self.session),
            self.session.round,
            given.enrolled,
            self._agree(self.keys.mask, places.neighbours(self.index), keys, "mask_key", "edge chain"),
            self._agree(self.keys.seal, places.peers(self.index), keys, "seal_key", "channel chain"),
            self.keys.sign if self.rules.keyed else b"",
            Signers.known(self.rules, known),
        )

    def _agree(
        self, private: bytes, peers: list[int], keys: dict[int, Advertised], key: str, purpose: str
    ) -> bytes:
        own, names = PairKeys(private, self.name, self.session.context), self.session.roster
        return b"".join(own.agree(names[j], getattr(keys[j], key), purpose) for j in peers)
