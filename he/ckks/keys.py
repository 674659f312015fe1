"""CKKS keys: a session's context (parameters, public key and, with whoever opens, the secret key), the long-term key
that clients share under `SharedByClients`, and their files. What does not belong here: sessions, boxes.

A context's bytes carry no secret unless asked, and a side that must not hold a secret refuses bytes that carry one, so
that a slip elsewhere is found at once. Every session's CKKS key, check key and box key are derived from the shared key
and from the session's context; it encrypts nothing itself.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, final

from he.ckks.parameters import CKKSParameters
from he.ckks.seal import ring
from he.key_files import read_key_file, write_key_file
from he.residues import Words, pack, unpack_below
from protocols.codec import Record
from protocols.errors import Misuse, ProtocolViolation, StoreError, WireError, require
from protocols.randomness import SystemRandom

MAGIC = b"secagg ckks context v1\n"
Side = Literal["server", "client", "holder"]


@dataclass(frozen=True)
class Context(Record):
    """parameters. public: the public key, packed residues. secret: SEAL's encoding of the secret key, or
    empty.
    """

    parameters: CKKSParameters
    public: bytes
    secret: bytes = field(repr=False)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise Misuse("a context is not pickled: use dump(), which leaves the secret key out unless asked")

    @classmethod
    def make(cls, parameters: CKKSParameters) -> Self:
        """Return a context with fresh keys from the operating system's generator."""
        made = ring(parameters.degree, parameters.modulus)
        secret = made.new_secret()
        public = made.public_of(secret).ravel()
        return cls(parameters, pack(public, parameters.modulus.bit_length()), secret)

    def dump(self, *, secret: bool = False) -> bytes:
        """Return the context's bytes, without the secret key unless `secret`. Raises Misuse if there is
        none to give.
        """
        if secret and not self.secret:
            raise Misuse("this context holds no secret key")
        return MAGIC + (self if secret else Context(self.parameters, self.public, b"")).encode()

    @classmethod
    def load(cls, data: bytes, side: Side, sender: str | None = None) -> Self:
        """Return the context of `dump`'s bytes.

        Raises ProtocolViolation naming `sender` if it carries a secret key and `side` is not the holder,
        WireError if it is none.
        """
        if not data.startswith(MAGIC):
            raise WireError("expected a CKKS context of version 1", sender)
        try:
            context = cls.decode(memoryview(data)[len(MAGIC) :])
        except WireError as error:
            raise WireError(str(error), sender) from None
        if context.secret and side != "holder":
            raise ProtocolViolation(
                f"this context carries a secret key, and the {side} must hold none: the bytes were dropped; the holder "
                "should make a new key and send dump() without secret=True",
                sender,
            )
        return context

    def save(self, path: str | Path, *, secret: bool = False) -> None:
        """Write a file of mode 0600, without the secret key unless `secret`. Raises StoreError if the path
        exists.
        """
        write_key_file(path, self.dump(secret=secret))

    @classmethod
    def read(cls, path: str | Path, side: Side) -> Self:
        """Read a file that `save` wrote. Raises StoreError if it is missing or open to others, and as
        `load` does.
        """
        return cls.load(read_key_file(path), side, str(path))

    def public_key(self) -> Words:
        """Return the public key, [2, N] residues. Raises WireError unless they are that many, and residues."""
        count, bits = 2 * self.parameters.degree, self.parameters.modulus.bit_length()
        return unpack_below(self.public, count, bits, self.parameters.modulus).reshape(
            2, self.parameters.degree
        )


SHARED_MAGIC = b"secagg ckks shared key v1\n"
SECRET_BYTES = 32


@final
class SharedKey:
    """32 secret bytes. `repr` shows none of them.

    simulated: all clients are simulated parties, so the key may go to the worker processes of one simulation.
    """

    def __init__(self, secret: bytes, simulated: bool = False) -> None:
        require(len(secret) == SECRET_BYTES, f"a shared key of {SECRET_BYTES} bytes", len(secret))
        self.secret, self.simulated = secret, simulated

    def __repr__(self) -> str:
        return "SharedKey(...)"

    def __reduce__(self) -> str | tuple[object, ...]:
        if self.simulated:
            return SharedKey, (self.secret, True)
        raise Misuse("a shared key is not pickled: save it to a file of its owner")

    @classmethod
    def generate(cls, *, simulated: bool = False) -> Self:
        """Return a new key from the operating system's generator."""
        return cls(SystemRandom().bytes(SECRET_BYTES), simulated)

    def save(self, path: str | Path) -> None:
        """Write the key file, mode 0600. Raises StoreError if the path exists."""
        write_key_file(path, SHARED_MAGIC + self.secret)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a key file. Raises StoreError if it is missing, open to others or not such a file."""
        data = read_key_file(path, 4096)
        if not data.startswith(SHARED_MAGIC) or len(data) != len(SHARED_MAGIC) + SECRET_BYTES:
            raise StoreError(f"{path} is not a shared CKKS key")
        return cls(data[len(SHARED_MAGIC) :])
