"""Third state: the server relays keys between neighbours and collects the sealed shares that each deals.

What does not belong here: opening anything (the server cannot: boxes are sealed between clients).
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.sealing import OVERHEAD
from secagg.advertisement import signing_key
from secagg.messages import DIGEST_BYTES, INPUT, SHARE, Dealing, Delivery, Indices, Neighbourhood, indices
from secagg.packing import accumulator
from secagg.places import Places
from secagg.server.base import Facts, ServerState
from secagg.server.summing import Summing

Bytes = NDArray[np.uint8]
_BOX, _DIGESTS = 64 + OVERHEAD, 2 * DIGEST_BYTES


@dataclass(frozen=True, eq=False)
class ServerSharing(ServerState):
    """keys: advertisements by client. parts: the graph seed's, as revealed. answers: dealings by dealer."""

    TAG = 34
    STAGE = SHARE

    keys: dict[int, bytes]
    parts: bytes
    graph_seed: bytes
    answers: dict[int, Dealing]

    def asked(self) -> Collection[int]:
        return self.keys

    @functools.cached_property
    def places(self) -> Places:
        return Places(self.rules, self.graph_seed, self.keys)

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, dealing = self.take(Dealing, answer)
        self.check_dealing(self.places, index, dealing, self.keys[index])
        self.answers[index] = dealing
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough_left(self.graph_seed)
        pledges = {i: d.pledge() for i, d in self.answers.items()}
        facts = Facts({i: self.keys[i] for i in self.answers}, pledges, self.graph_seed)
        state = Summing(self.session, facts, accumulator(self.session.dimension, self.rules.ring), {}, None)
        return Step(state, tuple(self._deliveries(state.places.bits)))

    def _deliveries(self, everybody: bytes) -> list[Message]:
        """What every dealer's holders are dealt, sorted by holder and then by dealer in one go."""
        dealers = sorted(self.answers)
        boxes, digests, holders, senders = self._mail(dealers)
        order = np.lexsort((senders, holders))
        boxes, digests = boxes[order], digests[order]
        asked = np.array(dealers, np.uint32)
        ends = np.searchsorted(holders[order], np.stack([asked, asked + 1], axis=1)).tolist()
        return [
            self.request(INPUT, holder, Delivery(everybody, boxes[a:b].tobytes(), digests[a:b].tobytes()))
            for holder, (a, b) in zip(dealers, ends, strict=True)
        ]

    def _mail(self, dealers: list[int]) -> tuple[Bytes, Bytes, Indices, Indices]:
        """Boxes, digests, holders and dealers of everything dealt, one row each."""
        dealt = [self.answers[i] for i in dealers]
        boxes = np.frombuffer(b"".join(d.boxes for d in dealt), np.uint8).reshape(-1, _BOX)
        digests = np.frombuffer(b"".join(d.digests for d in dealt), np.uint8).reshape(-1, _DIGESTS)
        holders = np.concatenate([d.holders for d in dealt])
        senders = np.repeat(indices(dealers), [len(d.holders) for d in dealt])
        return boxes, digests, holders, senders


def ask_to_share(state: ServerSharing) -> Step:
    """Return the state with the neighbours' keys for every client."""
    rules, asks = state.rules, []
    voters = [j for j in rules.voters(state.graph_seed) if j in state.keys] if rules.keyed else []
    signing = {j: signing_key(rules, j, state.keys[j]) for j in voters}
    for index in sorted(state.keys):
        around = state.places.neighbours(index)
        others = sorted(set(voters) - {index, *around})
        keys, signs = b"".join(state.keys[j] for j in around), b"".join(signing[j] for j in others)
        body = Neighbourhood(indices(around), keys, state.parts, indices(others), signs)
        asks.append(state.request(SHARE, index, body))
    return Step(state, tuple(asks))
