"""Fifth state, outside the semi-honest model: the client is shown who survived, and signs it once (the
consistency round).

Bonawitz et al., CCS 2017, figure 4, round 3. What does not belong here: opening anything.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.errors import WireError
from protocols.kernel import SERVER, Message, Step
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState, expect_threshold, refuse
from secagg.client.opening import Opening
from secagg.commitments import VOTE, signer, vote_bytes
from secagg.messages import CONFIRM, Indices, Survivors, Vote, unpack_bits


@dataclass(frozen=True, eq=False)
class Voting(ClientState):
    """Waits for the survivors. `mates`: the neighbours it shares masks with; `held`: those whose shares
    (64 bytes each) it holds.
    """

    TAG: ClassVar[int | None] = 20
    STAGE: ClassVar[str] = CONFIRM

    mates: Indices
    held: Indices
    shares: bytes = field(repr=False)
    sign_keys: bytes
    graph_seed: bytes
    sign: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        shown = self.take(Survivors, request)
        self._check(shown)
        context = self.session.context
        signature = signer(self.sign).sign(VOTE, vote_bytes(context, self.graph_seed, shown.bits))
        known = (self.session, self.index, self.mates, self.held, self.shares)
        state = Opening(*known, self.sign_keys, self.graph_seed, shown.bits)
        return Step(state, self.answer(Vote(signature)), marks=(f"voted/{context.hex()}",))

    def _check(self, shown: Survivors) -> None:
        try:
            alive = unpack_bits(shown.bits, self.session.clients)
        except WireError as error:
            raise WireError(str(error), str(SERVER)) from None
        if self.index not in alive:
            raise refuse("the survivors do not have this client, whose masked vector was sent")
        if len(alive) < self.rules.survivors:
            raise refuse(f"expected at least {self.rules.survivors} survivors, the server names {len(alive)}")
        around = set(self.rules.neighbours(self.index, self.graph_seed)) & alive
        if not around <= set(self.mates.tolist()):
            raise refuse("survivors among the neighbours who never dealt shares")
        expect_threshold("surviving neighbours", len(around), self.rules)
