"""How a store's file and its anchor look on disk. What does not belong here: reading, writing, locking.

State file: magic, version (u64), nonce (12 bytes), AES-256-GCM of the entries; the associated data is magic,
store name and version, so that no file passes for another party's or another version's. Anchor: the version
and the SHA-256 of the state file that was last answered from, under HMAC-SHA-256. Both keys are derived from
the party's key file.
"""

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass
from typing import final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.codec import Record
from protocols.errors import RollbackDetected, StoreError, WireError

KEY_BYTES = 32
MAGIC, ANCHOR_MAGIC = b"SASTORE\x01", b"SAANCHR\x01"
_VERSION = struct.Struct(">Q")
FIRST_ANCHOR = ANCHOR_MAGIC + _VERSION.pack(0)
"""How the anchor of a store begins that nothing was saved in."""
_NONCE, _DIGEST = 12, 32
ANCHOR_BYTES = len(ANCHOR_MAGIC) + _VERSION.size + 2 * _DIGEST


@dataclass(frozen=True)
class Entries(Record):
    """What a state file holds, in clear."""

    entries: dict[str, bytes]


@dataclass(frozen=True)
class Anchor:
    """The state that was last answered from: its version (0: none yet) and the digest of its file."""

    version: int
    digest: bytes


@final
class Sealer:
    """Seals and opens one party's files. Raises StoreError for damage, a wrong key or another party's
    file.
    """

    def __init__(self, key: bytes, name: str) -> None:
        if len(key) != KEY_BYTES:
            raise StoreError(f"the key file of store {name!r} has {len(key)} bytes, expected {KEY_BYTES}")
        self._name = name
        self._aead = AESGCM(_derive(key, b"secagg store: seal"))
        self._mac_key = _derive(key, b"secagg store: anchor")

    def __repr__(self) -> str:
        return f"Sealer({self._name!r})"

    def seal(self, version: int, entries: dict[str, bytes]) -> bytes:
        """Return the state file of `version`. Nonces are random: a restored machine must not repeat a
        counter.
        """
        nonce = os.urandom(_NONCE)
        plain = Entries(entries).encode()
        return MAGIC + _VERSION.pack(version) + nonce + self._aead.encrypt(nonce, plain, self._bound(version))

    def open(self, data: bytes) -> tuple[int, dict[str, bytes]]:
        """Return version and entries."""
        head = len(MAGIC) + _VERSION.size
        if data[: len(MAGIC)] != MAGIC or len(data) < head + _NONCE:
            raise StoreError(f"store {self._name!r}: not a state file of format 1")
        version = int(_VERSION.unpack(data[len(MAGIC) : head])[0])
        try:
            plain = self._aead.decrypt(
                data[head : head + _NONCE], data[head + _NONCE :], self._bound(version)
            )
            return version, Entries.decode(plain).entries
        except (InvalidTag, WireError):
            raise StoreError(
                f"store {self._name!r}: the state file is damaged, or was sealed under another key or name"
            ) from None

    def anchor(self, version: int, state: bytes) -> bytes:
        """Return the anchor of the state file `state` (empty for version 0)."""
        body = ANCHOR_MAGIC + _VERSION.pack(version) + hashlib.sha256(state).digest()
        return body + self._mac(body)

    def open_anchor(self, data: bytes) -> Anchor:
        """Return what an anchor file says. Raises RollbackDetected if it was not made by this party."""
        body, tag = data[:-_DIGEST], data[-_DIGEST:]
        if len(data) != ANCHOR_BYTES or body[: len(ANCHOR_MAGIC)] != ANCHOR_MAGIC:
            raise RollbackDetected(
                f"store {self._name!r}: the anchor file is damaged; it is needed to rule out a rollback"
            )
        if not hmac.compare_digest(tag, self._mac(body)):
            raise RollbackDetected(
                f"store {self._name!r}: the anchor file was not written by this party: with another key, or "
                "under another name. Put back the key, or the name that it had (a site's is `name` in site.toml)"
            )
        version = int(_VERSION.unpack(body[len(ANCHOR_MAGIC) : len(ANCHOR_MAGIC) + _VERSION.size])[0])
        return Anchor(version, body[-_DIGEST:])

    def _bound(self, version: int) -> bytes:
        return MAGIC + _VERSION.pack(version) + self._name.encode()

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._mac_key, body + self._name.encode(), "sha256")


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)
