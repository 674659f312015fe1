"""Who is who: Ed25519 identities, and the roster that a third party signed.

What does not belong here: policy (what a client insists on), session keys (made per session), TLS. The roster
binds names to keys so that a server cannot sit in the middle; it is signed by an authority that is not the
aggregator.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols.codec import Record
from protocols.errors import Misuse, PeerError, StoreError
from protocols.store.files import read_private, write_atomic

ROLES = ("client", "server", "key-holder", "decryptor")
KEY_BYTES, SIGNATURE_BYTES = 32, 64
FORMAT = "secagg-roster/1"
_DOMAIN = b"secagg identity v1\0"


class BadSignature(PeerError):
    """A signature does not verify: the data was changed, or another key signed it."""


@dataclass(frozen=True)
class _Signed(Record):
    purpose: str
    data: bytes


def verify(public: bytes, purpose: str, data: bytes, signature: bytes, party: str | None = None) -> None:
    """Check an Ed25519 signature (64 bytes) by key `public` (32 bytes). Raises BadSignature, naming the `party` that
    should have signed; returns nothing.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed_bytes(purpose, data))
    except (InvalidSignature, ValueError):
        whose = f" of {party}" if party else ""
        reason = f"the signature{whose} for {purpose!r} does not verify under key {public.hex()[:16]}"
        raise BadSignature(reason, party) from None


@final
class Identity:
    """A party's signing key. `repr` shows its name and public key only."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, public={self.public.hex()})"

    @classmethod
    def generate(cls, name: str) -> Self:
        """Return a new identity; its key comes from the operating system."""
        return cls(name, Ed25519PrivateKey.generate())

    def sign(self, purpose: str, data: bytes) -> bytes:
        """Return the signature (64 bytes) of `data` for `purpose`; one purpose's signature is none for
        another.
        """
        return self._key.sign(_signed_bytes(purpose, data))

    def private_bytes(self) -> bytes:
        """Return the private key (32 bytes): secret, for its owner's store only."""
        return self._key.private_bytes_raw()

    def save(self, path: Path) -> None:
        """Write the private key as PEM (PKCS #8), mode 0600. Raises StoreError."""
        form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        write_atomic(path, self._key.private_bytes(serialization.Encoding.PEM, form, encryption), mode=0o600)

    @classmethod
    def load(cls, path: Path, name: str | None = None) -> Self:
        """Read a key that `save` wrote; `name` defaults to the file's stem. Raises StoreError if it is
        open to others.
        """
        data = read_private(path, 4096)
        if data is None:
            raise StoreError(f"no identity at {path}: make one with `secagg keys new`")
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except ValueError:
            raise StoreError(f"{path} is not a private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise StoreError(f"{path}: expected an Ed25519 key")
        return cls(name or path.stem, key)


@dataclass(frozen=True)
class Member(Record):
    """One party: its name, its role (one of ROLES), its Ed25519 key (32 bytes), and the name under which
    the transport authenticates it (such as the digest of its connection key; empty if the transport does
    not).
    """

    name: str
    role: str
    key: bytes
    transport: str = ""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 200 or not self.name.isprintable():
            raise Misuse("a member's name has 1 to 200 printable characters")
        if self.role not in ROLES:
            raise Misuse(f"member {self.name!r}: expected a role of {ROLES}, got {self.role!r}")
        if len(self.key) != KEY_BYTES:
            raise Misuse(f"member {self.name!r}: expected a key of {KEY_BYTES} bytes, got {len(self.key)}")


@dataclass(frozen=True)
class Roster(Record):
    """The members of a federation, by ascending name. `serial` grows with every change, so that an old roster
    is refused.

    Raises Misuse if a name, a key or a transport name occurs twice: one party would count as two.
    """

    federation: str
    serial: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if self.serial < 1:
            raise Misuse(f"a roster's serial starts at 1, got {self.serial}")
        names = [m.name for m in self.members]
        if names != sorted(set(names)):
            raise Misuse("a roster lists its members once each, by ascending name")
        bound = [m.transport for m in self.members if m.transport]
        if len({m.key for m in self.members}) != len(names) or len(set(bound)) != len(bound):
            raise Misuse("two members of the roster share a key or a transport name")

    @classmethod
    def of(cls, federation: str, serial: int, members: Iterable[Member]) -> Self:
        """Return the roster of `members` in any order."""
        return cls(federation, serial, tuple(sorted(members, key=lambda m: m.name)))

    def member(self, name: str) -> Member:
        """Return the member called `name`. Raises PeerError if there is none."""
        found = [member for member in self.members if member.name == name]
        if not found:
            raise PeerError(f"{name!r} is not on the roster of {self.federation!r}", name)
        return found[0]

    def with_role(self, role: str) -> tuple[Member, ...]:
        """Return the members of a role, by ascending name."""
        return tuple(m for m in self.members if m.role == role)


@dataclass(frozen=True)
class SignedRoster(Record):
    """A roster, the key that signed it (32 bytes) and the signature (64 bytes)."""

    roster: Roster
    authority: bytes
    signature: bytes = field(repr=False)

    @classmethod
    def sign(cls, roster: Roster, authority: Identity) -> Self:
        """Return `roster` signed. Raises Misuse if the authority is one of its servers: it would vouch
        for itself.
        """
        _refuse_own_server(roster, authority.public)
        return cls(roster, authority.public, authority.sign("roster", roster.encode()))

    def verified(self, authority: bytes, least_serial: int = 1) -> Roster:
        """Return the roster if `authority`, the key that the caller pinned, signed it.

        Raises BadSignature for another key or changed content, PeerError for a serial below `least_serial`
        (an old roster played again), Misuse if the pinned key is one of the roster's servers.
        """
        if self.authority != authority:
            raise BadSignature(
                f"the roster is signed by {self.authority.hex()[:16]}, the pinned authority is {authority.hex()[:16]}"
            )
        verify(authority, "roster", self.roster.encode(), self.signature)
        _refuse_own_server(self.roster, authority)
        if self.roster.serial < least_serial:
            raise PeerError(
                f"roster {self.roster.serial} is older than {least_serial}, which was accepted before"
            )
        return self.roster

    def to_json(self) -> str:
        """Return a form that people can read; what is signed is the canonical encoding of the roster."""
        members = [{**vars(m), "key": m.key.hex()} for m in self.roster.members]
        fields = {"format": FORMAT, "federation": self.roster.federation, "serial": self.roster.serial}
        signed = {"members": members, "authority": self.authority.hex(), "signature": self.signature.hex()}
        return json.dumps({**fields, **signed}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the roster of `to_json`; nothing is verified yet. Raises PeerError for anything else."""
        try:
            return cls._from_fields(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PeerError(f"not a roster of format {FORMAT}: {error}") from None

    @classmethod
    def _from_fields(cls, raw: dict[str, Any]) -> Self:
        if set(raw) != {"format", "federation", "serial", "members", "authority", "signature"}:
            raise ValueError("unknown or missing fields")
        types = [type(raw["serial"]), type(raw["federation"])]
        if raw["format"] != FORMAT or types != [int, str]:
            raise ValueError(f"expected format {FORMAT!r}, got {raw['format']!r}")
        members = tuple(_member(m) for m in raw["members"])
        roster = Roster(raw["federation"], raw["serial"], members)
        return cls(roster, from_hex(raw["authority"]), from_hex(raw["signature"]))

    def save(self, path: Path) -> None:
        """Write the JSON form. A roster is public; its mode is 0644."""
        write_atomic(path, self.to_json().encode(), mode=0o644)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a roster file; nothing is verified yet. Raises StoreError if there is none, PeerError if
        it is none.
        """
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise StoreError(f"the roster {path} cannot be read: {error.strerror}") from None


def _member(raw: dict[str, Any]) -> Member:
    if set(raw) != {"name", "role", "key", "transport"}:
        raise ValueError("unknown or missing fields of a member")
    return Member(str(raw["name"]), str(raw["role"]), from_hex(raw["key"]), str(raw["transport"]))


def from_hex(text: str) -> bytes:
    """Return the bytes that `bytes.hex` wrote. Raises ValueError for any other spelling (upper case, blanks): one value
    has one text.
    """
    if (data := bytes.fromhex(text)).hex() != text:
        raise ValueError("expected lower-case hexadecimal digits without blanks")
    return data


def _refuse_own_server(roster: Roster, authority: bytes) -> None:
    if any(m.key == authority for m in roster.with_role("server")):
        raise Misuse("the roster must be signed by someone other than the server that aggregates")


def _signed_bytes(purpose: str, data: bytes) -> bytes:
    return _DOMAIN + _Signed(purpose, data).encode()
