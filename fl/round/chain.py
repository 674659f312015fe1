"""The models of a run, one after the other: links of a chain that every client remembers.

A client that has seen a link refuses every chain without it. A server that shows a few clients another model must
therefore keep up another chain for them, to the end of the run. What does not belong here: who started from which
model (`manifest`).
"""

import hashlib
from dataclasses import dataclass

from protocols.codec import Record
from protocols.errors import refuse
from protocols.identity import Identity, verify
from protocols.store import Store

PURPOSE = "model chain"


@dataclass(frozen=True)
class Chain(Record):
    """Every model of a run so far. digests: of version 0, 1, ... (`Reference.digest`). signature: the server's, of the
    last head; b"" from one without an identity.
    """

    digests: tuple[bytes, ...] = ()
    signature: bytes = b""

    @property
    def newest(self) -> int:
        """The number of the newest version."""
        return len(self.digests) - 1

    def head(self, number: int) -> bytes:
        """Return SHA-256 over all versions up to `number` (32 bytes), each link over the one before."""
        head = bytes(32)
        for at, digest in enumerate(self.digests[: number + 1]):
            head = hashlib.sha256(b"secagg model chain v1\0" + at.to_bytes(8, "big") + head + digest).digest()
        return head

    def signed(self, run: str, signer: Identity | None) -> "Chain":
        """Return the same chain of the run that `run` names, signed where there is somebody who signs."""
        told = run.encode() + self.head(self.newest)
        return Chain(self.digests, b"" if signer is None else signer.sign(PURPOSE, told))

    def require_signed(self, run: str, key: bytes | None) -> None:
        """Raises BadSignature unless `key` signed it; without a key nothing is known of who did."""
        if key is not None:
            verify(key, PURPOSE, run.encode() + self.head(self.newest), self.signature)

    def remember(self, run: str, store: Store) -> None:
        """Keep the newest link in a client's own store. Raises ProtocolViolation for a chain without the one that is
        kept there: an older one, or one with another model in its past.
        """
        with store.transaction() as t:
            kept = t.get(place := f"chain/{run}")
            known = -1 if kept is None else int.from_bytes(kept[:8], "big")
            if known > self.newest or (kept is not None and kept[8:] != self.head(known)):
                raise refuse(
                    f"the models of this run up to version {self.newest} are not those that this client saw up to "
                    f"version {known}: the server shows others than before"
                )
            if known < self.newest:
                t.put(place, self.newest.to_bytes(8, "big") + self.head(self.newest))
