"""Third state: the server relays keys between neighbours and collects the sealed shares that each deals.

What does not belong here: opening anything (the server cannot: boxes are sealed between clients).
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from protocols.errors import ProtocolViolation
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import parse
from secagg.commitments import DEAL, check_signature, dealt_bytes
from secagg.messages import DIGEST_BYTES, INPUT, SHARE, Dealing, Delivery, Neighbourhood, indices, items
from secagg.sealing import OVERHEAD
from secagg.server.base import Facts, Pledge, ServerState
from secagg.server.summing import Summing

_BOX, _DIGESTS = 64 + OVERHEAD, 2 * DIGEST_BYTES


@dataclass(frozen=True, eq=False)
class Sharing(ServerState):
    """keys: advertisements by client. parts: the graph seed's, as revealed. dealt: dealings by dealer."""

    TAG: ClassVar[int | None] = 34
    STAGE: ClassVar[str] = SHARE

    keys: dict[int, bytes]
    parts: bytes
    graph_seed: bytes
    dealt: dict[int, Dealing]

    def asked(self) -> Collection[int]:
        return self.keys

    def answered(self) -> Collection[int]:
        return self.dealt

    def around(self, index: int) -> list[int]:
        """The neighbours of a client that advertised keys."""
        return [j for j in self.rules.neighbours(index, self.graph_seed) if j in self.keys]

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, dealing = self.take(Dealing, answer)
        who = str(answer.sender)
        if dealing.holders.tolist() != self.around(index):
            raise ProtocolViolation("dealt to others than the neighbours it was given", who)
        if len(dealing.boxes) != _BOX * len(dealing.holders):
            raise ProtocolViolation(f"expected sealed boxes of {_BOX} bytes", who)
        if self.rules.voted:
            key = parse(self.rules, self.keys[index], who).sign_key
            check_signature(
                key, DEAL, dealt_bytes(self.session.context, index, dealing), dealing.signature, who
            )
        self.dealt[index] = dealing
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        pledges = {i: Pledge(d.holders, d.digests, d.seed_digest) for i, d in self.dealt.items()}
        facts = Facts({i: self.keys[i] for i in self.dealt}, pledges, self.graph_seed)
        state = Summing(self.session, facts, self.rules.ring.zeros(self.session.dimension), {})
        return Step(state, tuple(self._deliveries()))

    def _deliveries(self) -> list[Message]:
        """What everybody dealt, sorted by holder; dealers in ascending order."""
        inbox: defaultdict[int, tuple[list[int], list[bytes], list[bytes]]] = defaultdict(
            lambda: ([], [], [])
        )
        for dealer in sorted(self.dealt):
            dealing = self.dealt[dealer]
            boxes, digests = items(dealing.boxes, _BOX), items(dealing.digests, _DIGESTS)
            for holder, box, digest in zip(dealing.holders.tolist(), boxes, digests, strict=True):
                mail = inbox[holder]
                mail[0].append(dealer)
                mail[1].append(box)
                mail[2].append(digest)
        return [self._delivery(holder, *inbox[holder]) for holder in sorted(self.dealt)]

    def _delivery(self, holder: int, dealers: list[int], boxes: list[bytes], digests: list[bytes]) -> Message:
        body = Delivery(indices(dealers), b"".join(boxes), b"".join(digests))
        return self.request(INPUT, holder, body)


def ask_to_share(state: Sharing) -> Step:
    """Return the state with the neighbours' keys for every client."""
    asks = []
    for index in sorted(state.keys):
        around = state.around(index)
        body = Neighbourhood(indices(around), b"".join(state.keys[j] for j in around), state.parts)
        asks.append(state.request(SHARE, index, body))
    return Step(state, tuple(asks))
