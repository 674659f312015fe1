"""Fourth state: the shares that others dealt to this client come, its masked vector goes. The update is
spent with it.

y = x + PRG(own seed) + sum over neighbours j of +-PRG(seed shared with j), in the ring (Bonawitz et al., CCS
2017, figure 4, round 2). Exactly the neighbours among the dealers count, whether or not their boxes open: so what
hides this vector follows from the graph and the dealers, which the client signs, and from nothing else.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.errors import PeerError
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from secagg.client.base import expect_threshold, expect_vector, refuse
from secagg.client.keys import Holding
from secagg.client.opening import Opening
from secagg.client.tries import Tries
from secagg.client.view import Signers, View
from secagg.client.voting import Voting
from secagg.commitments import KEY, SEED, share_digest
from secagg.key_agreement import PairKeys
from secagg.masking import apply_masks
from secagg.messages import DIGEST_BYTES, INPUT, SHARE, Delivery, Indices, Masked, indices, items
from secagg.packing import pack
from secagg.sealing import binding, unseal
from secagg.seeds import pair_seed, self_mask_seed


@dataclass(frozen=True, eq=False)
class Masking(Holding):
    """Waits for its shares of the others' secrets."""

    TAG: ClassVar[int | None] = 19
    STAGE: ClassVar[str] = INPUT

    seed: bytes = field(repr=False)
    graph_seed: bytes
    signers: Signers
    neighbours: Indices
    mask_keys: bytes
    pairs: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        delivery = self.take(Delivery, request)
        expect_vector(self.vector)
        mates = self._mates(delivery)
        held, complaints = self._open(delivery, mates)
        view = View(self.graph_seed, delivery.dealers, self.signers)
        signature = view.sign_input(self.session, self.index, self.keys.sign) if self.rules.voted else b""
        answer = self.answer(Masked(self._masked(mates), indices(complaints), signature))
        known = (self.session, self.index, view, indices(held), b"".join(held.values()))
        votes = self.rules.voted and self.index in self.rules.voters(self.graph_seed)
        state = Voting(*known, self.keys.sign) if votes else Opening(*known)
        memory = Tries().encode() if self.rules.committed else None
        return Step(state, answer, marks=(f"spent/{self.update.hex()}",), memory=memory)

    def _mates(self, delivery: Delivery) -> list[int]:
        """The neighbours among the dealers. Raises PeerError unless this client has keys and a box of each."""
        dealers = self.view("dealers", delivery.dealers, self.graph_seed)
        mates = [j for j in self.rules.neighbours(self.index, self.graph_seed) if j in dealers]
        if not set(mates) <= set(self.neighbours.tolist()):
            raise refuse("dealers: neighbours among them whose keys this client was not given")
        expect_threshold("dealers", len(mates), self.rules)
        if len(delivery.digests) != 2 * DIGEST_BYTES * len(mates):
            raise refuse(f"expected a box of each of the {len(mates)} neighbours among the dealers")
        return mates

    def _open(self, delivery: Delivery, mates: list[int]) -> tuple[dict[int, bytes], list[int]]:
        """The shares by dealer, and the dealers whose box does not open or does not match the digests it
        is pledged to.
        """
        pairs = dict(zip(self.neighbours.tolist(), items(self.pairs, 32), strict=True))
        boxes = items(delivery.boxes, len(delivery.boxes) // len(mates))
        held: dict[int, bytes] = {}
        for j, box, digest in zip(mates, boxes, items(delivery.digests, 2 * DIGEST_BYTES), strict=True):
            share = self._share(j, pairs[j], box)
            if len(share) == 64 and digest == self._digests(j, share):
                held[j] = share
        return held, [j for j in mates if j not in held]

    def _share(self, dealer: int, key: bytes, box: bytes) -> bytes:
        """What a box holds; nothing if it does not open."""
        name = self.session.roster[dealer]
        try:
            return unseal(
                key, box, binding(self.session.context, SHARE, name, self.name), str(client(dealer))
            )
        except PeerError:
            return b""

    def _digests(self, dealer: int, share: bytes) -> bytes:
        place = (self.session.context, dealer, self.index)
        return share_digest(*place, SEED, share[:32]) + share_digest(*place, KEY, share[32:])

    def _masked(self, mates: list[int]) -> bytes:
        ring, context = self.rules.ring, self.session.context
        words = ring.embed(self.vector)
        added = [self_mask_seed(self.seed, context, self.name)]
        taken: list[bytes] = []
        keys = dict(zip(self.neighbours.tolist(), items(self.mask_keys, 32), strict=True))
        own = PairKeys(self.keys.mask, self.name, context)
        for j in mates:
            seed = pair_seed(own, self.session.roster[j], keys[j])
            (added if self.index < j else taken).append(seed)
        apply_masks(words, added, taken)
        return pack(words, ring)
