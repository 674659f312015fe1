"""Last state: the client opens one share per dealer, of its self-mask seed if it survived, of its mask key
if not; never both.

It answers once and is then done, with nothing left. Bonawitz et al., CCS 2017, figure 4, round 4.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.kernel import Left, Message, Step, client
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState, expect_subset, expect_threshold, refuse
from secagg.commitments import VOTE, check_signature, vote_bytes
from secagg.messages import UNMASK, Indices, Opened, Unmask, indices, items, unpack_bits


@dataclass(frozen=True, eq=False)
class Opening(ClientState):
    """Waits for the request to unmask. `bits`: the survivors it signed (empty in the semi-honest model)."""

    TAG: ClassVar[int | None] = 21
    STAGE: ClassVar[str] = UNMASK

    mates: Indices
    held: Indices
    shares: bytes = field(repr=False)
    sign_keys: bytes
    graph_seed: bytes
    bits: bytes

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Unmask, request)
        alive, dropped = self._voted(asked) if self.rules.voted else self._trusted(asked)
        shares = dict(zip(self.held.tolist(), items(self.shares, 64), strict=True))
        opened = Opened(
            alive,
            b"".join(shares[j][:32] for j in alive.tolist()),
            dropped,
            b"".join(shares[j][32:] for j in dropped.tolist()),
        )
        mark = f"answered/{self.session.context.hex()}"
        return Step(Left(), self.answer(opened), marks=(mark,))

    def _trusted(self, asked: Unmask) -> tuple[Indices, Indices]:
        """Semi-honest: the two sets as the server names them, disjoint, known, and with enough survivors."""
        if len(asked.signers):
            raise refuse("signatures in a session without a vote")
        expect_subset("alive", asked.alive, self.mates)
        expect_subset("dropped", asked.dropped, self.mates)
        if set(asked.alive.tolist()) & set(asked.dropped.tolist()):
            raise refuse("a client is said to be alive and dropped: both its secrets would be opened")
        expect_threshold("alive", len(asked.alive), self.rules)
        held = set(self.held.tolist())
        return tuple(indices(j for j in part.tolist() if j in held) for part in (asked.alive, asked.dropped))  # type: ignore[return-value]  # two parts in, two out

    def _voted(self, asked: Unmask) -> tuple[Indices, Indices]:
        """The sets follow from the survivors that this client signed and that at least the threshold of
        neighbours signed too.
        """
        if len(asked.alive) or len(asked.dropped):
            raise refuse("sets of survivors beside those that were signed")
        alive = unpack_bits(self.bits, self.session.clients)
        keys = dict(zip(self.mates.tolist(), items(self.sign_keys, 32), strict=True))
        expect_subset("signers", asked.signers, indices(j for j in self.mates.tolist() if j in alive))
        expect_threshold("signatures", len(asked.signers), self.rules)
        signed = vote_bytes(self.session.context, self.graph_seed, self.bits)
        for j, signature in zip(asked.signers.tolist(), items(asked.signatures, 64), strict=True):
            check_signature(keys[j], VOTE, signed, signature, str(client(j)))
        held = self.held.tolist()
        return indices(j for j in held if j in alive), indices(j for j in held if j not in alive)
