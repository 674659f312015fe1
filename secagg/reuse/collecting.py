"""Server, every round: masked vectors are added as they arrive; what came with them is kept for the
committee, unread.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation, TooFewSurvivors, WireError
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from secagg.advertisement import signing_key
from secagg.commitments import check_signature
from secagg.messages import INPUT, UNMASK, indices, pack_bits
from secagg.packing import add_packed
from secagg.reuse.kept import Kept
from secagg.reuse.memory import ServerMemory
from secagg.reuse.messages import Deposit, Release
from secagg.reuse.pledges import DEPOSIT, deposit_bytes
from secagg.reuse.releasing import Releasing
from secagg.server.base import ServerState


@dataclass(frozen=True, eq=False)
class Collecting(ServerState):
    """memory: of the set-up. total: the sum so far. deposits: by client."""

    TAG: ClassVar[int | None] = 53
    STAGE: ClassVar[str] = INPUT

    memory: ServerMemory
    total: NDArray[np.unsignedinteger[Any]]
    deposits: dict[int, Kept]

    def asked(self) -> Collection[int]:
        return self.memory.keys

    def answered(self) -> Collection[int]:
        return self.deposits

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, body = self.take(Deposit, answer)
        who, rules = str(answer.sender), self.rules
        present = self.memory.keys
        if body.neighbours.tolist() != [j for j in rules.neighbours(index, rules.seed) if j in present]:
            raise ProtocolViolation("masks with others than the neighbours of the set-up", who)
        if body.holders.tolist() != [j for j in sorted(rules.committee) if j in present and j != index]:
            raise ProtocolViolation("entrusts shares to others than the committee", who)
        if rules.voted:
            signed = deposit_bytes(self.session.context, index, body)
            check_signature(
                signing_key(rules, index, self.memory.keys[index]), DEPOSIT, signed, body.signature, who
            )
        try:
            add_packed(self.total, body.vector, rules.ring)
        except WireError as error:
            raise WireError(str(error), who) from None
        self.deposits[index] = Kept(body.neighbours, body.holders, body.boxes, body.digests, body.pledges)
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        if len(self.deposits) < self.rules.survivors:
            raise TooFewSurvivors(
                f"expected at least {self.rules.survivors} masked vectors, got {len(self.deposits)}"
            )
        if self.rules.surely_alive(len(self.deposits)) < self.session.min_survivors:
            raise TooFewSurvivors(
                f"{len(self.deposits)} masked vectors are too few: holders could not be sure that "
                f"{self.session.min_survivors} are in the sum"
            )
        alone = self.rules.left_alone(self.deposits)  # what every holder would refuse is not asked for
        if alone is not None:
            raise TooFewSurvivors(
                f"{client(alone)} is left with fewer neighbours than {self.rules.threshold}"
            )
        alive = sorted(self.deposits)
        bits = pack_bits(alive, self.session.clients)
        state = Releasing(self.session, self.total, self.deposits, {}, {}, {}, [])
        asks = []
        for m in sorted(self.rules.committee & set(alive)):
            boxes = {i: self.deposits[i].box(m) for i in alive if i != m}
            state.waiting[m] = True
            asks.append(self.request(UNMASK, m, Release(bits, boxes)))
        came = set(self.memory.established.tolist()) | set(alive)
        memory = replace(self.memory, established=indices(sorted(came)))
        return Step(state, tuple(asks), memory=memory.encode())
