"""Every round: masked vectors are added as they arrive; what came with them is kept for the committee, unread."""

import functools
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation, WireError
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import signing_key
from secagg.commitments import MASK, check_signature, masked_bytes
from secagg.messages import CONFIRM, DIGEST_BYTES, INPUT, Survivors, indices, pack_bits
from secagg.packing import add_packed
from secagg.reuse.memory import ServerMemory
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES, Deposit
from secagg.reuse.places import Places
from secagg.reuse.pledges import DEPOSIT, deposit_bytes
from secagg.reuse.server.electing import Electing
from secagg.reuse.server.kept import Kept
from secagg.reuse.server.releasing import ask_to_release
from secagg.sealing import OVERHEAD
from secagg.server.base import Facts, ServerState


@dataclass(frozen=True, eq=False)
class Collecting(ServerState):
    """memory: of the set-up. total: the sum so far. arrived: deposits, by client."""

    TAG: ClassVar[int | None] = 53
    STAGE: ClassVar[str] = INPUT

    memory: ServerMemory
    total: NDArray[np.unsignedinteger[Any]]
    arrived: dict[int, Kept]

    @functools.cached_property
    def facts(self) -> Facts:
        return Facts(self.memory.keys, {}, self.rules.seed)

    def asked(self) -> Collection[int]:
        return self.memory.keys

    def answered(self) -> Collection[int]:
        return self.arrived

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, body = self.take(Deposit, answer)
        who = str(answer.sender)
        rows = self._check(index, body, who)
        try:
            add_packed(self.total, body.vector, self.rules.ring)
        except WireError as error:
            raise WireError(str(error), who) from None
        self.arrived[index] = Kept(indices(()), body.input, body.boxes, body.digests, body.pledges, rows)
        return Step(self)

    def _check(self, index: int, body: Deposit, who: str) -> int:
        """Return how many holders it entrusts shares to: all of the committee, for all of its edges."""
        rules, context, places = self.rules, self.session.context, Places(self.rules, self.memory.keys)
        rows, edges = len(places.holders(index)), len(places.neighbours(index))
        sizes = (len(body.boxes), len(body.digests), len(body.pledges))
        box = OVERHEAD + SEED_BYTES + EDGE_BYTES * edges
        if sizes != (rows * box, rows * DIGEST_BYTES * (1 + edges), 32 * (1 + edges)):
            raise ProtocolViolation(f"expected shares of {edges} edges for {rows} holders", who)
        if rules.voted:
            key = signing_key(rules, index, self.memory.keys[index])
            masked = masked_bytes(context, rules.seed, self.facts.dealers(self.session.clients), index)
            check_signature(key, MASK, masked, body.input, who)
            check_signature(key, DEPOSIT, deposit_bytes(context, index, body), body.signature, who)
        return rows

    def close(self, random: SecureRandom) -> Step:
        self.enough_left(self.rules.seed)
        came = set(self.memory.established.tolist()) | set(self.arrived)
        memory = replace(self.memory, established=indices(sorted(came))).encode()
        known = (self.session, self.facts, self.total, self.arrived)
        if not self.rules.agrees:
            return replace(ask_to_release(*known, None), memory=memory)
        bits = pack_bits(self.arrived, self.session.clients)
        state = Electing(*known, bits, {})
        asks = tuple(self.request(CONFIRM, i, Survivors(bits)) for i in state.asked())
        return Step(state, asks, memory=memory)
