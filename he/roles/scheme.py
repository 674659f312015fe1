"""What a scheme gives to the roles: how the server adds ciphertexts, how whoever holds the key opens their sum, and
nothing else.

What does not belong here: messages, states, any scheme. The objects are part of states, so they are records; a state's
field holds either scheme's.

What is wrong before anything is decrypted raises. What only decryption tells is answered by a refusal that ends the
session: an opener that could be asked again would be one bit of an oracle.
"""

from abc import ABC, abstractmethod

from he.roles.messages import EncryptedInput, OpenedTotal, OpenRequest, pack_total
from he.roles.parameters import expect_clients
from protocols.codec import Record
from protocols.session import Session
from protocols.summation import IntVector


class NotTheSum(Exception):
    """Decryption told that a ciphertext is something else than the sum of the named contributions, and why."""


class Accumulator(Record, ABC):
    """What the server adds with; changed in place, holds no secret."""

    @abstractmethod
    def add(self, session: Session, index: int, sent: EncryptedInput) -> None:
        """Add client `index`'s ciphertexts. Raises PeerError naming the client, changing nothing, if they are none."""

    @abstractmethod
    def finish(self) -> bytes:
        """Return the ciphertexts of the sum of at least one contribution."""


class OpeningKey(Record, ABC):
    """What opens a sum, and finds out whether it is one. Secret."""

    @abstractmethod
    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        """Return the exact total, int64 [dimension], reduced modulo M where the group is Z_M.

        Raises PeerError for what is wrong before anything is decrypted, NotTheSum for what only decryption tells.
        """


class HeldKey(OpeningKey):
    """A key holder's."""

    @abstractmethod
    def box_key(self, session: Session, index: int, ticket: bytes) -> bytes:
        """Return the key (32 bytes) of what this holder seals to client `index`, whose ticket is in the request."""


class GroupKey(OpeningKey):
    """What all clients share."""

    @property
    @abstractmethod
    def secret(self) -> bytes:
        """32 uniform bytes that the server does not have."""


def opened(session: Session, key: OpeningKey, asked: OpenRequest, least: int) -> OpenedTotal:
    """Return the total of at least `least` contributions, or a refusal. Raises PeerError."""
    expect_clients(session, asked.tickets, least)
    try:
        return OpenedTotal(pack_total(key.open(session, asked), session))
    except NotTheSum as reason:
        return OpenedTotal(b"", f"this is something else than the sum: {reason}")
