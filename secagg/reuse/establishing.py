"""Client, set-up: the others' keys come; pair keys are made, the private keys are gone, and the first
round goes on at once.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import Advertised, certified_keys
from secagg.client.base import ClientState, expect_subset, expect_threshold, refuse
from secagg.key_agreement import PairKeys
from secagg.messages import INPUT, Indices, indices
from secagg.reuse.depositing import deposit
from secagg.reuse.memory import ClientMemory, epoch_of, roster_digest
from secagg.reuse.messages import Proceed


@dataclass(frozen=True, eq=False)
class Establishing(ClientState):
    """Waits for the keys of its neighbours and of those it seals shares to."""

    TAG: ClassVar[int | None] = 49
    STAGE: ClassVar[str] = INPUT

    update: bytes
    vector: NDArray[np.int64] = field(repr=False)
    seal: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    sign: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        memory = self._memory(self.take(Proceed, request))
        return deposit(self, self.update, self.vector, memory, random)

    def _memory(self, given: Proceed) -> ClientMemory:
        rules = self.rules
        around = rules.neighbours(self.index, rules.seed)
        sealed_to = rules.channels(self.index)
        expect_subset("clients", given.clients, indices(sorted({*around, *sealed_to})))
        private = (self.seal, self.mask)
        keys = certified_keys(rules, self.session, self.index, given.clients, given.keys, private)
        neighbours = indices(j for j in given.clients.tolist() if j in set(around))
        peers = indices(j for j in given.clients.tolist() if j in set(sealed_to))
        expect_threshold("neighbours", len(neighbours), rules)
        expect_threshold("share holders", len(set(peers.tolist()) & set(rules.committee)), rules)
        return ClientMemory(
            epoch_of(self.session, rules),
            roster_digest(self.session),
            self.session.round,
            neighbours,
            self._agree(self.mask, neighbours, keys, "mask_key", "edge chain"),
            peers,
            self._agree(self.seal, peers, keys, "seal_key", "channel chain"),
            self.sign,
        )

    def _agree(
        self, private: bytes, peers: Indices, keys: dict[int, Advertised], key: str, purpose: str
    ) -> bytes:
        own = PairKeys(private, self.name, self.session.context)
        if any(j not in keys for j in peers.tolist()):
            raise refuse("expected the keys of everybody it names")
        names = self.session.roster
        return b"".join(own.agree(names[j], getattr(keys[j], key), purpose) for j in peers.tolist())
