"""Fourth state: the shares that others dealt to this client come, its masked vector goes. The update is spent with it.

y = x + PRG(own seed) + sum over neighbours j of +-PRG(seed shared with j), in the ring (Bonawitz et al., CCS
2017, figure 4, round 2). Exactly the neighbours among the dealers count, whether or not their boxes open: so what
hides this vector follows from the graph and the dealers, which the client signs, and from nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.errors import Misuse, refuse
from protocols.kernel import Left, Message, State, Step, spending
from protocols.key_agreement import PairKeys
from protocols.randomness import SecureRandom
from secagg.client.base import expect_threshold
from secagg.client.dealing import unsealed
from secagg.client.keys import Bearing, Holding
from secagg.client.opening import Opening
from secagg.client.tries import Tries
from secagg.client.view import View
from secagg.client.voting import Voting
from secagg.commitments import KEY, SEED, share_digest
from secagg.masks import apply_masks
from secagg.messages import DIGEST_BYTES, INPUT, Delivery, Masked, indices, items
from secagg.packing import pack
from secagg.seeds import pair_seed, self_mask_seed
from secagg.signers import Signers


@dataclass(frozen=True, eq=False)
class Masking(Holding):
    """Waits for its shares of the others' secrets. mask_keys, pairs: neighbours' public keys, keys of their boxes."""

    TAG = 19
    STAGE = INPUT

    seed: bytes = field(repr=False)
    graph_seed: bytes
    signers: Signers
    mask_keys: dict[int, bytes]
    pairs: dict[int, bytes] = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        delivery = self.take(Delivery, request)
        mates = self._mates(delivery)
        held, complaints = self._open(delivery, mates)
        view = View(self.graph_seed, delivery.dealers, self.signers)
        signature = view.sign_input(self.session, self.index, self.keys.sign)
        body = Masked(masked(self, self.seed, self._pair_seeds(mates)), indices(complaints), signature)
        memory = Tries().encode() if self.rules.committed else None
        return leave(self, view, self.keys.sign, held, body, memory)

    def _mates(self, delivery: Delivery) -> list[int]:
        """The neighbours among the dealers. Raises PeerError unless this client has keys and a box of each."""
        dealers = self.view("dealers", delivery.dealers, self.graph_seed)
        mates = [j for j in self.rules.neighbours(self.index, self.graph_seed) if j in dealers]
        if not set(mates) <= set(self.pairs):
            raise refuse("dealers: neighbours among them whose keys this client was not given")
        expect_threshold("dealers", len(mates), self.rules)
        if len(delivery.digests) != 2 * DIGEST_BYTES * len(mates):
            raise refuse(f"expected a box of each of the {len(mates)} neighbours among the dealers")
        return mates

    def _open(self, delivery: Delivery, mates: list[int]) -> tuple[dict[int, bytes], list[int]]:
        """The shares by dealer, and the dealers whose box does not open, or does not match the digests they pledged."""
        boxes, context = items(delivery.boxes, len(delivery.boxes) // len(mates)), self.session.context
        held: dict[int, bytes] = {}
        for j, box, digests in zip(mates, boxes, items(delivery.digests, 2 * DIGEST_BYTES), strict=True):
            share = unsealed(self, j, self.pairs[j], box)
            good = share_digest(context, j, self.index, SEED, share[:32])
            if len(share) == 64 and digests == good + share_digest(context, j, self.index, KEY, share[32:]):
                held[j] = share
        return held, [j for j in mates if j not in held]

    def _pair_seeds(self, mates: list[int]) -> dict[int, bytes]:
        """The seeds of the masks that are shared with neighbours."""
        own = PairKeys(self.keys.mask, self.name, self.session.context)
        return {j: pair_seed(own, self.session.roster[j], self.mask_keys[j]) for j in mates}


def masked(bearer: Bearing, seed: bytes, pairs: Mapping[int, bytes]) -> bytes:
    """Return a client's packed vector under its own mask and one for each pair: the lower client of two adds it.

    Raises Misuse if this client was started without its vector and was not given it since.
    """
    if not bearer.vector.size:
        raise Misuse("asked for a vector that this client was not given: `supply` it first")
    session, index, ring = bearer.session, bearer.index, bearer.rules.ring
    words = ring.embed(bearer.vector)
    added = [self_mask_seed(seed, session.context, bearer.name), *(pairs[j] for j in pairs if index < j)]
    apply_masks(words, added, [pairs[j] for j in pairs if index > j])
    return pack(words, ring)


def leave(
    bearer: Bearing, view: View, sign: bytes, held: dict[int, bytes], body: Masked, memory: bytes | None
) -> Step:
    """Return the step in which a masked vector leaves. held: by what the client opens shares later (`Opening`)."""
    rules, known = bearer.rules, (bearer.session, bearer.index, view, held)
    after: State = Left()
    if rules.agrees and bearer.index in rules.voters(view.graph_seed):
        after = Voting(*known, sign)
    elif not rules.parameters.reuse or bearer.index in rules.holders:
        after = Opening(*known)
    return Step(after, bearer.answer(body), marks=(spending(bearer.update),), memory=memory)
