"""Fourth state: masked vectors are added as they arrive, so that the server holds one vector, however many
clients there are.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation, WireError
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import signing_key
from secagg.commitments import MASK, check_signature, masked_bytes
from secagg.messages import CONFIRM, INPUT, Indices, Survivors, masked_vector, pack_bits
from secagg.packing import add_packed
from secagg.server.base import Facts, Input, ServerState
from secagg.server.opening import ask_to_unmask
from secagg.server.voting import Voting


@dataclass(frozen=True, eq=False)
class Summing(ServerState):
    """total: the sum so far, in the ring's words. arrived: whose vector is in it, with what came besides."""

    TAG: ClassVar[int | None] = 35
    STAGE: ClassVar[str] = INPUT

    facts: Facts
    total: NDArray[np.unsignedinteger[Any]]
    arrived: dict[int, Input]

    def asked(self) -> Collection[int]:
        return self.facts.pledges

    def answered(self) -> Collection[int]:
        return self.arrived

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, who = self.admit(answer), str(answer.sender)
        vector, said = masked_vector(answer)
        self._check(index, said.complaints, said.signature, who)
        try:
            add_packed(self.total, vector, self.rules.ring)
        except WireError as error:
            raise WireError(str(error), who) from None
        self.arrived[index] = Input(said.complaints, said.signature)
        return Step(self)

    def _check(self, index: int, complaints: Indices, signature: bytes, who: str) -> None:
        pledges = self.facts.pledges
        if any(j not in pledges or index not in pledges[j].holders for j in complaints.tolist()):
            raise ProtocolViolation("complains about a client that dealt nothing to it", who)
        if self.rules.voted:
            dealers = self.facts.dealers(self.session.clients)
            signed = masked_bytes(self.session.context, self.facts.graph_seed, dealers, index)
            key = signing_key(self.rules, index, self.facts.keys[index])
            check_signature(key, MASK, signed, signature, who)

    def close(self, random: SecureRandom) -> Step:
        self.enough_left(self.facts.graph_seed)
        bits = pack_bits(self.arrived, self.session.clients)
        if not self.rules.voted:
            return ask_to_unmask(self.session, self.facts, self.total, self.arrived, None)
        state = Voting(self.session, self.facts, self.total, self.arrived, bits, {})
        return Step(state, tuple(self.request(CONFIRM, i, Survivors(bits)) for i in state.asked()))
