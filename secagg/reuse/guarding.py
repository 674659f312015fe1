"""Client on the committee, last trip: it opens, once, the survivors' own seeds and their edges to those
who are gone.

Two secrets of one client are never opened to one view: a survivor's edges to survivors stay closed, and who
is gone entrusted nothing. Two views are kept apart by the threshold (2 t > holders + corrupt): t holders were
shown a client alive, or t were shown it gone, not both. And a view in which a survivor keeps fewer than the
threshold of neighbours is refused, so that no mixture of views opens all edges of one client.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.errors import PeerError, WireError
from protocols.kernel import SERVER, Left, Message, Step, client
from protocols.randomness import SecureRandom
from secagg.client.base import ClientState, refuse
from secagg.messages import INPUT, UNMASK, Indices, indices, items, unpack_bits
from secagg.reuse.messages import EDGE_BYTES, Entrusted, Release, Released
from secagg.sealing import binding, unseal


@dataclass(frozen=True, eq=False)
class Guarding(ClientState):
    """Waits for the survivors and their boxes. `keys`: this round's sealing keys (32 bytes each) of `peers`."""

    TAG: ClassVar[int | None] = 51
    STAGE: ClassVar[str] = UNMASK

    neighbours: Indices
    peers: Indices
    keys: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Release, request)
        alive = self._view(asked)
        seeds: dict[int, bytes] = {}
        edges: dict[tuple[int, int], bytes] = {}
        keys = dict(zip(self.peers.tolist(), items(self.keys, 32), strict=True))
        for owner, box in asked.boxes.items():
            if owner not in alive or owner not in keys:
                raise refuse(
                    f"a box of {client(owner)}, who is no survivor that this client shares a key with"
                )
            entrusted = self._open(owner, keys[owner], box)
            if entrusted is None:
                continue  # the server sees from the missing share that this box did not open
            seeds[owner] = entrusted.seed_share
            shares = items(entrusted.edge_shares, EDGE_BYTES)
            for peer, share in zip(entrusted.neighbours.tolist(), shares, strict=True):
                if peer not in alive:
                    edges[owner, peer] = share
        return Step(
            Left(), self.answer(_released(seeds, edges)), marks=(f"answered/{self.session.context.hex()}",)
        )

    def _view(self, asked: Release) -> set[int]:
        """The survivors, after checking that this view is one a holder may answer."""
        rules = self.rules
        try:
            alive = unpack_bits(asked.bits, self.session.clients)
        except WireError as error:
            raise WireError(str(error), str(SERVER)) from None
        if self.index not in alive:
            raise refuse("the survivors do not have this client, whose masked vector was sent")
        if len(alive) < rules.survivors:
            raise refuse(f"expected at least {rules.survivors} survivors, the server names {len(alive)}")
        sure = rules.surely_alive(len(alive))
        if sure < self.session.min_survivors:
            raise refuse(
                f"expected at least {self.session.min_survivors} clients in the sum, {sure} are sure "
                "if other holders are shown others"
            )
        alone = rules.left_alone(alive)
        if alone is not None:
            raise refuse(f"{client(alone)} is left with fewer neighbours than {rules.threshold}")
        return alive

    def _open(self, owner: int, key: bytes, box: bytes) -> Entrusted | None:
        name = self.session.roster[owner]
        try:
            return Entrusted.decode(
                unseal(key, box, binding(self.session.context, INPUT, name, self.name), str(client(owner)))
            )
        except PeerError:
            return None


def _released(seeds: dict[int, bytes], edges: dict[tuple[int, int], bytes]) -> Released:
    pairs = sorted(edges)
    return Released(
        indices(sorted(seeds)),
        b"".join(seeds[i] for i in sorted(seeds)),
        indices(i for i, _ in pairs),
        indices(j for _, j in pairs),
        b"".join(edges[pair] for pair in pairs),
    )
