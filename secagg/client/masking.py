"""Fourth state: the shares that others dealt to this client come, its masked vector goes. The update is
spent with it.

y = x + PRG(own seed) + sum over neighbours j of +-PRG(seed shared with j), in the ring (Bonawitz et al., CCS
2017, figure 4, round 2). Only neighbours that dealt shares count: everybody else's mask could not be taken
off.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import PeerError
from protocols.kernel import Message, State, Step, client
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState, expect_subset, expect_threshold
from secagg.client.opening import Opening
from secagg.client.voting import Voting
from secagg.commitments import KEY, SEED, share_digest
from secagg.key_agreement import PairKeys
from secagg.masking import apply_masks
from secagg.messages import DIGEST_BYTES, INPUT, SHARE, Delivery, Indices, Masked, indices, items
from secagg.packing import pack
from secagg.sealing import binding, unseal
from secagg.seeds import pair_seed, self_mask_seed


@dataclass(frozen=True, eq=False)
class Masking(ClientState):
    """Waits for its shares of the others' secrets."""

    TAG: ClassVar[int | None] = 19
    STAGE: ClassVar[str] = INPUT

    update: bytes
    vector: NDArray[np.int64] = field(repr=False)
    seed: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    sign: bytes = field(repr=False)
    graph_seed: bytes
    neighbours: Indices
    mask_keys: bytes
    sign_keys: bytes
    pairs: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        delivery = self.take(Delivery, request)
        expect_subset("dealers", delivery.dealers, self.neighbours)
        expect_threshold("dealers", len(delivery.dealers), self.rules)
        held, complaints = self._open(delivery)
        vector = self._masked(delivery.dealers)
        answer = self.answer(Masked(vector, indices(complaints)))
        return Step(self._next(delivery.dealers, held), answer, marks=(f"spent/{self.update.hex()}",))

    def _next(self, dealers: Indices, held: dict[int, bytes]) -> State:
        known = (
            self.session,
            self.index,
            dealers,
            indices(sorted(held)),
            b"".join(held[j] for j in sorted(held)),
        )
        if not self.rules.voted:
            return Opening(*known, b"", self.graph_seed, b"")
        at = dict(zip(self.neighbours.tolist(), items(self.sign_keys, 32), strict=True))
        keys = b"".join(at[j] for j in dealers.tolist())
        return Voting(*known, keys, self.graph_seed, self.sign)

    def _open(self, delivery: Delivery) -> tuple[dict[int, bytes], list[int]]:
        """The shares by dealer, and the dealers whose box does not open or does not match the digests it
        is pledged to.
        """
        context, pairs = (
            self.session.context,
            dict(zip(self.neighbours.tolist(), items(self.pairs, 32), strict=True)),
        )
        count = len(delivery.dealers)
        boxes, digests = (
            items(delivery.boxes, len(delivery.boxes) // count),
            items(delivery.digests, 2 * DIGEST_BYTES),
        )
        held: dict[int, bytes] = {}
        complaints = []
        for j, box, digest in zip(delivery.dealers.tolist(), boxes, digests, strict=True):
            name = self.session.roster[j]
            try:
                share = unseal(pairs[j], box, binding(context, SHARE, name, self.name), str(client(j)))
            except PeerError:
                complaints.append(j)
                continue
            seed, key = share[:32], share[32:]
            expected = share_digest(context, j, self.index, SEED, seed) + share_digest(
                context, j, self.index, KEY, key
            )
            if len(share) != 64 or digest != expected:
                complaints.append(j)
            else:
                held[j] = share
        return held, complaints

    def _masked(self, mates: Indices) -> bytes:
        ring, context = self.rules.ring, self.session.context
        words = ring.embed(self.vector)
        added = [self_mask_seed(self.seed, context, self.name)]
        taken: list[bytes] = []
        keys = dict(zip(self.neighbours.tolist(), items(self.mask_keys, 32), strict=True))
        own = PairKeys(self.mask, self.name, context)
        for j in mates.tolist():
            seed = pair_seed(own, self.session.roster[j], keys[j])
            (added if self.index < j else taken).append(seed)
        apply_masks(words, added, taken)
        return pack(words, ring)
