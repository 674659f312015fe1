"""A holder's last trips: on sparse graphs it signs who survived, once; it opens, once, the survivors' own seeds
and their edges to those who are gone.

Two secrets of one client are never opened to one view: a survivor's edges to survivors stay closed, and who is gone
entrusted nothing. On sparse graphs a quorum of the committee has signed that view, so there is no other. On the
complete graph the threshold keeps two views apart (2 t > holders + corrupt): t holders were shown a client alive, or t
were shown it gone, not both; what a mixture of views leaves out of the total is counted (`Rules.shown`).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.errors import PeerError
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from secagg.client.base import refuse
from secagg.client.opening import Opener
from secagg.messages import CONFIRM, INPUT, UNMASK, indices, items, unpack_bits
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES, Release, Released
from secagg.reuse.places import Places
from secagg.sealing import binding, unseal


@dataclass(frozen=True, eq=False)
class Guarding(Opener):
    """Waits for the survivors and their boxes. channels: this round's sealing keys (32 bytes each), by peer."""

    TAG: ClassVar[int | None] = 51

    channels: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Release, request)
        alive = self.survivors(asked.survivors)
        self.check(asked, sorted(alive - {self.index}))
        if not set(asked.boxes) <= alive - {self.index}:
            raise refuse("a box of a client who is no survivor")
        return self.opened(self._released(asked, alive))

    def _released(self, asked: Release, alive: set[int]) -> Released:
        """What this view opens. A box that does not open, or holds something else, is left out: the server sees it."""
        places = Places(self.rules, unpack_bits(self.shown.dealers, self.session.clients))
        keys = dict(zip(places.peers(self.index), items(self.channels, 32), strict=True))
        opened: dict[int, bytes] = {}
        for owner in sorted(asked.boxes):
            around = places.neighbours(owner)
            share = self._open(owner, keys[owner], asked.boxes[owner])
            if len(share) == SEED_BYTES + EDGE_BYTES * len(around):
                parts = zip(around, items(share[SEED_BYTES:], EDGE_BYTES), strict=True)
                opened[owner] = share[:SEED_BYTES] + b"".join(part for j, part in parts if j not in alive)
        return Released(indices(opened), b"".join(opened.values()))

    def _open(self, owner: int, key: bytes, box: bytes) -> bytes:
        name = self.session.roster[owner]
        bound = binding(self.session.context, INPUT, name, self.name)
        try:
            return unseal(key, box, bound, str(client(owner)))
        except PeerError:
            return b""


@dataclass(frozen=True, eq=False)
class Voting(Guarding):
    """Waits for the survivors to sign, or for the request to open: others' votes may be enough. sign: the key that
    signs.
    """

    TAG: ClassVar[int | None] = 56
    STAGE: ClassVar[str] = CONFIRM

    sign: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        after = Guarding(self.session, self.index, self.shown, self.channels)
        return (
            after.receive(request, random)
            if request.stage == UNMASK
            else self.vote(request, self.sign, after)
        )
