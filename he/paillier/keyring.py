"""The keys of one arrangement, as each party holds them, and their files. What does not belong here: how
keys are used.

A public file may be read by anyone; a file with a secret has mode 0600 and is never overwritten.
"""

import functools
import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from he.arrangements import Arrangement, Threshold
from he.key_files import read_key_file, write_key_file
from he.paillier.keys import PublicKey, SecretKey, generate
from he.paillier.threshold import KeyShare, ThresholdKey, deal
from he.sealing import expect_key
from protocols.codec import BigInt, Record, decode_tagged, encode_tagged, tags
from protocols.errors import Misuse, StoreError, WireError
from protocols.key_agreement import KEY_BYTES, public_key
from protocols.store.files import write_atomic

MAGIC = b"secagg paillier key 1\0"
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class HolderPublic(Record):
    """Who only encrypts and adds has this: the Paillier key and the X25519 key (32 bytes) that tags are
    agreed with.
    """

    TAG = 1

    public: PublicKey
    sealing: bytes

    def __post_init__(self) -> None:
        expect_key(self.sealing)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding (32 bytes): what names this key."""
        return hashlib.sha256(b"paillier holder key v1\0" + self.encode()).digest()


@dataclass(frozen=True)
class HolderKey(Record):
    """Who opens has this: the factors, and the X25519 private key. Its repr shows neither."""

    TAG = 2

    secret: SecretKey
    sealing: bytes = field(repr=False)

    def __post_init__(self) -> None:
        expect_key(self.sealing)

    @classmethod
    def of(cls, secret: SecretKey) -> "HolderKey":
        """Return `secret` with a fresh X25519 key."""
        return cls(secret, secrets.token_bytes(KEY_BYTES))

    @property
    def published(self) -> HolderPublic:
        return HolderPublic(self.secret.public, public_key(self.sealing))


_KINDS = tags(HolderPublic, HolderKey, ThresholdKey, KeyShare)
Key = HolderPublic | HolderKey | ThresholdKey | KeyShare


@dataclass(frozen=True)
class Keyring:
    """What one process knows: the public part, and those secrets that it holds."""

    public: HolderPublic | ThresholdKey
    holder: HolderKey | None = field(default=None, repr=False)
    shares: tuple[KeyShare, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, *keys: Key) -> "Keyring":
        """Return the ring of keys that belong together: one key, or several shares of one. Raises Misuse if
        they do not.
        """
        for key in keys:
            if not isinstance(key, Key):
                raise Misuse(
                    f"expected a key of he.paillier, or what from_phe makes of a secret key, got {type(key).__name__}: "
                    "who only encrypts under a foreign key takes HolderKey.of(secret).published from its holder"
                )
        shares = tuple(k for k in keys if isinstance(k, KeyShare))
        together = len(shares) == len(keys) and len({s.key.digest for s in shares}) == 1
        if not keys or (len(keys) > 1 and not together) or len({s.index for s in shares}) < len(shares):
            raise Misuse("expected one key, or several different shares of one key")
        first = keys[0]
        if isinstance(first, HolderKey):
            return cls(first.published, holder=first)
        if isinstance(first, KeyShare):
            return cls(first.key, shares=shares)
        return cls(first)

    @property
    def encryption(self) -> PublicKey:
        return self.public.public

    @property
    def digest(self) -> bytes:
        """Names the public part (32 bytes): parties whose keys differ refuse each other's sessions."""
        return self.public.digest

    def fits(self, arrangement: Arrangement) -> None:
        """Raises Misuse unless these keys are of that arrangement."""
        if isinstance(self.public, ThresholdKey) != isinstance(arrangement, Threshold):
            raise Misuse(f"the key was made for another arrangement than {arrangement}")
        if isinstance(self.public, ThresholdKey) and isinstance(arrangement, Threshold):
            key = self.public
            if (key.t, key.holders, key.dealer) != (arrangement.t, arrangement.n, arrangement.dealer):
                raise Misuse(
                    f"the key was dealt as {key.t} of {key.holders} by {key.dealer}, "
                    f"not as {arrangement} by {arrangement.dealer}"
                )

    @property
    def opens(self) -> bool:
        """True if this process alone could open a ciphertext."""
        return self.holder is not None or (
            isinstance(self.public, ThresholdKey) and len(self.shares) >= self.public.t
        )


def make(arrangement: Arrangement, bits: int) -> Keyring:
    """Make the keys of an arrangement, all of them in this process: for simulations, and for whoever hands
    them out.
    """
    if isinstance(arrangement, Threshold):
        return Keyring.of(*deal(arrangement, bits)[1])
    return Keyring.of(HolderKey.of(generate(bits)))


@functools.lru_cache(maxsize=8)
def simulated(arrangement: Arrangement, bits: int) -> Keyring:
    """The keys that all parties simulated in this process share."""
    return make(arrangement, bits)


def save(key: Key, path: str | Path) -> None:
    """Write a key file; one with a secret has mode 0600 and is never overwritten. Raises StoreError."""
    body = encode_tagged(key)
    data = MAGIC + hashlib.sha256(body).digest() + body
    if isinstance(key, HolderKey | KeyShare):
        write_key_file(path, data)
    else:
        write_atomic(Path(path), data, mode=0o644)


def load(path: str | Path) -> Key:
    """Read a key file. Raises StoreError if there is none, if a secret one is open to others, or if
    it is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise StoreError(f"the key file {path} cannot be read: {error.strerror}") from None
    if not data.startswith(MAGIC):
        raise StoreError(f"{path} is not a Paillier key file of version 1")
    digest, body = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(body).digest() != digest:
        raise StoreError(f"{path} is damaged: its checksum does not fit; get the key file anew")
    try:
        key = decode_tagged(body, _KINDS)
    except WireError as error:
        raise StoreError(
            f"{path} holds no key that this version reads ({error}): have it made anew"
        ) from None
    assert isinstance(key, HolderPublic | HolderKey | ThresholdKey | KeyShare)
    if isinstance(key, HolderKey | KeyShare):
        read_key_file(path, _MOST_BYTES)
    return key


def from_phe(key: Any) -> SecretKey | PublicKey:
    """Return the key of a `phe.PaillierPublicKey` or `phe.PaillierPrivateKey`, which gives no base for
    short randomisers.

    Raises Misuse for a key of fewer than 2048 bits, or any other object.
    """
    if hasattr(key, "public_key") and hasattr(key, "p"):
        return SecretKey(PublicKey(BigInt(key.public_key.n)), BigInt(key.p), BigInt(key.q))
    if hasattr(key, "n") and hasattr(key, "nsquare"):
        return PublicKey(BigInt(key.n))
    raise Misuse(f"expected a key of phe, got {type(key).__name__}")
