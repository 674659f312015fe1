"""Fourth state: masked vectors are added as they arrive, so that the server holds one vector, however many clients
there are. With reused keys shares come with them, and are kept for the committee, unread.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from protocols.errors import ProtocolViolation
from protocols.identity import verify
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.roles import naming
from secagg.advertisement import signing_key
from secagg.commitments import MASK, masked_bytes
from secagg.memory import ServerMemory
from secagg.messages import CONFIRM, INPUT, Masked, Pledge, Survivors, masked_vector, pack_bits
from secagg.packing import add_packed, in_order
from secagg.server.base import Input, SumState
from secagg.server.opening import ask_to_unmask
from secagg.server.voting import ServerVoting


@dataclass(frozen=True, eq=False)
class Summing(SumState):
    """total: the sum so far, an `accumulator`. answers: whose vector is in it, with what came besides. memory: of
    the set-up, where keys are reused.
    """

    TAG = 35
    STAGE = INPUT

    answers: dict[int, Input]
    memory: ServerMemory | None

    def asked(self) -> Collection[int]:
        return self.facts.keys

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, who = self.admit(answer), str(answer.sender)
        vector, said = masked_vector(answer)
        pledge = self._check(index, said, vector, who)
        with naming(who):
            add_packed(self.total, vector, self.session.dimension, self.rules.ring)
        self.facts.pledges[index] = pledge
        boxes = b"" if said.dealing is None else said.dealing.boxes
        self.answers[index] = Input(said.complaints, said.signature, boxes)
        return Step(self)

    def _check(self, index: int, said: Masked, vector: memoryview, who: str) -> Pledge:
        """What binds the client as a dealer. Raises PeerError for what it could not have said."""
        facts, keys = self.facts, self.facts.keys[index]
        pledges = {} if self.memory else facts.pledges
        if any(j not in pledges or pledges[j].row(index) < 0 for j in said.complaints.tolist()):
            raise ProtocolViolation("complains about a client that dealt nothing to it", who)
        if (said.dealing is None) != (self.memory is None):
            raise ProtocolViolation("expected shares with the masked vector where keys are reused alone", who)
        if self.rules.voted:
            signed = masked_bytes(self.session.context, facts.graph_seed, self.places.bits, index)
            verify(signing_key(self.rules, index, keys), MASK, signed, said.signature, who)
        if said.dealing is None:
            return facts.pledges[index]
        self.check_dealing(self.places, index, said.dealing, keys, vector)
        return said.dealing.pledge()

    def close(self, random: SecureRandom) -> Step:
        self.enough_left(self.facts.graph_seed)
        memory = None if self.memory is None else self.memory.after(self.answers).encode()
        total = in_order(self.total, self.session.dimension, self.rules.ring)
        if not self.rules.agrees:
            asked = ask_to_unmask(self.session, self.facts, total, self.answers, None)
            return replace(asked, memory=memory)
        bits = pack_bits(self.answers, self.session.clients)
        state = ServerVoting(self.session, self.facts, total, self.answers, bits, {})
        asks = tuple(self.request(CONFIRM, i, Survivors(bits)) for i in state.asked())
        return Step(state, asks, memory=memory)
