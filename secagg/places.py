"""Who shares what with whom in one session. It follows from the rules, the graph and who is there, and is the same for
every party.

Every client entrusts shares of its secrets to holders. With fresh keys the holders are its neighbours, and the secrets
are two: the seed of its own mask, which opens if the client stays, and the key behind its masks with neighbours, which
opens if it leaves. With reused keys the holders are one committee, and the secrets are the seed of its own mask and
one seed for each edge. Of a survivor the first opens, and the edges to clients that are gone; of a client that is gone
nothing opens. What does not belong here: keys, shares.
"""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from protocols.agreement import Certificate
from secagg.commitments import KEY, SEED, edge_kind
from secagg.messages import Unmask, items, pack_bits
from secagg.session_rules import Rules

SEED_BYTES, EDGE_BYTES = 32, 16


@dataclass(frozen=True)
class Places:
    """Who is joined to whom in one session. rules: of the session. seed: of its graph. present: the clients whose keys
    are known, who dealt or enrolled.
    """

    rules: Rules
    seed: bytes
    present: Collection[int]

    @functools.cached_property
    def reuse(self) -> bool:
        return self.rules.parameters.reuse

    def neighbours(self, index: int) -> list[int]:
        """Return the clients with whom a client shares masks, ascending."""
        return [j for j in self.rules.neighbours(index, self.seed) if j in self.present]

    def holders(self, owner: int) -> list[int]:
        """Return the clients that hold shares of a client's secrets, ascending."""
        if not self.reuse:
            return self.neighbours(owner)
        return [j for j in sorted(self.rules.holders) if j in self.present and j != owner]

    def peers(self, index: int) -> list[int]:
        """Return the clients with whom a client exchanges sealed shares, ascending: its holders. With reused keys a
        holder exchanges shares with everybody.
        """
        if self.reuse and index in self.rules.holders:
            return [j for j in sorted(self.present) if j != index]
        return self.holders(index)

    def known(self, index: int) -> list[int]:
        """Return the clients whose keys a client needs, ascending."""
        return sorted({*self.neighbours(index), *self.peers(index)})

    def kinds(self, owner: int) -> list[bytes]:
        """Return the kinds of a client's secrets, under which their shares are digested. The first is the seed of its
        own mask.
        """
        return [SEED, *map(edge_kind, self.neighbours(owner))] if self.reuse else [SEED, KEY]

    def opens(self, owner: int, alive: Collection[int]) -> list[int]:
        """Return which of a client's secrets open when `alive` are the survivors, as places in `kinds`."""
        if not self.reuse:
            return [int(owner not in alive)]
        return [0, *(at for at, j in enumerate(self.neighbours(owner), 1) if j not in alive)]

    @functools.cached_property
    def bits(self) -> bytes:
        """Who is present, as bits."""
        return pack_bits(self.present, self.rules.clients)

    def request_to_open(
        self,
        holder: int,
        certificate: Certificate | None,
        signed: Mapping[int, bytes],
        boxes: Mapping[int, bytes],
    ) -> Unmask:
        """Return what the server asks a holder if those present are the survivors. signed: each survivor's signature,
        with its masked vector. boxes: with reused keys, what owners sealed for this holder.
        """
        owners, voted = self.peers(holder), certificate.signers if certificate else ()
        inputs = b"".join(signed[j] for j in owners if j not in voted)
        return Unmask(self.bits, certificate, inputs, {j: boxes[j] for j in owners if j in boxes})

    @functools.cached_property
    def width(self) -> int:
        """Bytes of a share of any secret but the first, which has 32."""
        return EDGE_BYTES if self.reuse else SEED_BYTES

    def cut(self, shares: bytes) -> list[bytes]:
        """The shares of several secrets, end to end, each by itself."""
        return [shares[:SEED_BYTES], *items(shares[SEED_BYTES:], self.width)]

    def size(self, count: int) -> int:
        """Bytes of the shares of so many secrets, at least one."""
        return SEED_BYTES + self.width * (count - 1)
