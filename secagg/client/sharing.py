"""Third state: the neighbours' public keys come, sealed shares of this client's two secrets go.

The secrets are the seed of its own mask, which is opened if the client stays, and its private key for pairwise masks,
which is opened if it leaves (Bonawitz et al., CCS 2017, figure 4, round 1). What does not belong here: masks.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.errors import refuse
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import Advertised, certified_keys
from secagg.client.base import expect_subset, expect_threshold
from secagg.client.dealing import deal
from secagg.client.keys import Holding
from secagg.client.masking import Masking
from secagg.commitments import joint_seed, part_commitment, seed_digest, signer
from secagg.messages import SHARE, Commitments, Neighbourhood, indices, items, listed
from secagg.places import Places
from secagg.signers import Signers


@dataclass(frozen=True, eq=False)
class Sharing(Holding):
    """Waits for the neighbours' keys."""

    TAG = 18
    STAGE = SHARE

    committed: Commitments | None

    def receive(self, request: Message, random: SecureRandom) -> Step:
        around = self.take(Neighbourhood, request)
        graph_seed = self._graph_seed(around.parts)
        expect_subset("neighbours", around.clients, indices(self.rules.neighbours(self.index, graph_seed)))
        expect_threshold("neighbours", len(around.clients), self.rules)
        private = (self.keys.seal, self.keys.mask)
        given = certified_keys(self.rules, self.session, self.index, around.clients, around.keys, private)
        self._compare_commitments(given)
        pairs = self.pair_keys(self.keys.seal, {j: k.seal_key for j, k in given.items()}, "seal")
        seed, places = random.bytes(32), Places(self.rules, graph_seed, given)
        pledge = seed_digest(self.session.context, self.index, seed)
        dealing = deal(self, places, (seed, self.keys.mask), pairs, pledge, self.keys.sign, random)
        mask_keys = {j: k.mask_key for j, k in given.items()}
        shown = (graph_seed, self._signers(graph_seed, around, given))
        state = Masking(*self.after("seal"), seed, *shown, mask_keys, pairs)
        return Step(state, self.answer(dealing))

    def _signers(self, graph_seed: bytes, around: Neighbourhood, given: Mapping[int, Advertised]) -> Signers:
        """The signing keys of the neighbours and the voters, its own among them, where they are the session's."""
        voters = self.rules.voters(graph_seed) if self.rules.keyed else ()
        expect_subset("voters", around.voters, indices(voters))
        keys = listed(around.voters, around.voter_keys)
        keys |= {j: k.sign_key for j, k in given.items()} | {self.index: signer(self.keys.sign).public}
        return Signers.known(self.rules, keys)

    def _graph_seed(self, parts: bytes) -> bytes:
        """The graph's seed, from the session or from everybody's parts, each checked against its commitment."""
        context = self.session.context
        if self.committed is None:
            if parts:
                raise refuse("parts of a graph seed that this session does not use")
            return self.rules.seed
        if len(parts) != 32 * len(self.committed.clients):
            raise refuse("expected the part of everyone who committed: one that is withheld ends the session")
        for (index, commitment), part in zip(self._listed.items(), items(parts, 32), strict=True):
            if part_commitment(context, index, part) != commitment:
                raise refuse(f"client {index}'s part of the graph's seed is not the one it committed to")
        return joint_seed(context, self.committed, parts)

    @functools.cached_property
    def _listed(self) -> dict[int, bytes]:
        """The commitments that this client was shown, by client; none where nobody commits."""
        return {} if self.committed is None else listed(self.committed.clients, self.committed.commitments)

    def _compare_commitments(self, given: Mapping[int, Advertised]) -> None:
        """Raises ProtocolViolation if a neighbour certified another commitment than the list had of it."""
        for j, keys in given.items():
            if self._listed.get(j, b"") != keys.commitment:
                raise refuse(
                    f"client {j} certified another commitment to its part of the graph's seed than was listed"
                )
