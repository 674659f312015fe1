"""Fourth state: masked vectors are added as they arrive, so that the server holds one vector, however many
clients there are.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation, TooFewSurvivors, WireError
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.messages import CONFIRM, INPUT, Indices, Survivors, masked_vector, pack_bits
from secagg.packing import add_packed
from secagg.server.base import Facts, ServerState
from secagg.server.opening import ask_to_unmask
from secagg.server.voting import Voting


@dataclass(frozen=True, eq=False)
class Summing(ServerState):
    """total: the sum so far, in the ring's words. arrived: whose vector is in it, with the dealers each
    complains about.
    """

    TAG: ClassVar[int | None] = 35
    STAGE: ClassVar[str] = INPUT

    facts: Facts
    total: NDArray[np.unsignedinteger[Any]]
    arrived: dict[int, Indices]

    def asked(self) -> Collection[int]:
        return self.facts.pledges

    def answered(self) -> Collection[int]:
        return self.arrived

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, who = self.admit(answer), str(answer.sender)
        vector, complaints = masked_vector(answer)
        if any(
            j not in self.facts.pledges or index not in self.facts.pledges[j].holders
            for j in complaints.tolist()
        ):
            raise ProtocolViolation("complains about a client that dealt nothing to it", who)
        try:
            add_packed(self.total, vector, self.rules.ring)
        except WireError as error:
            raise WireError(str(error), who) from None
        self.arrived[index] = complaints
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        if len(self.arrived) < self.rules.survivors:
            raise TooFewSurvivors(
                f"expected at least {self.rules.survivors} masked vectors, got {len(self.arrived)}"
            )
        if not self.rules.voted:
            return ask_to_unmask(self.session, self.facts, self.total, self.arrived, {})
        body = Survivors(pack_bits(sorted(self.arrived), self.session.clients))
        asks = tuple(self.request(CONFIRM, i, body) for i in sorted(self.arrived))
        return Step(Voting(self.session, self.facts, self.total, self.arrived, body.bits, {}), asks)
