"""What a scheme gives to the roles: how the server adds ciphertexts, how whoever holds the key opens their sum, and
nothing else.

What does not belong here: messages, states, any scheme. The objects are part of states, so they are records; a state's
field holds either scheme's.

What is wrong before anything is decrypted raises. What only decryption tells is answered by a refusal that ends the
session: an opener that could be asked again would be one bit of an oracle.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from he.roles.messages import EncryptedInput, OpenedTotal, OpenRequest, pack_total
from protocols.codec import Record
from protocols.errors import Misuse, PeerError, WireError
from protocols.session import Session
from protocols.summation import IntVector


@dataclass(frozen=True)
class Parameters(Record):
    """arrangement: how it is written (with threshold and corrupt decryptors). holder: the key holder's name, or empty.
    recipients: clients that are given the total besides the server. roster: SHA-256 of the roster whose keys sign
    what parties send; empty if nobody signs. least: fewest contributions that are ever opened. scheme: its own
    record, encoded.
    """

    arrangement: str
    holder: str
    recipients: tuple[str, ...]
    roster: bytes
    least: int
    scheme: bytes


def parameters(session: Session) -> Parameters:
    """Return a session's parameters. Raises Misuse if they do not decode."""
    try:
        return Parameters.decode(session.parameters)
    except WireError as error:
        raise Misuse(f"the session's parameters do not decode: {error}") from None


def least_survivors(session: Session) -> int:
    """Return the fewest clients whose sum anybody opens."""
    return max(parameters(session).least, session.min_survivors)


def recipients_in(session: Session, survivors: Collection[int]) -> tuple[int, ...]:
    """Return the recipients that are in the sum, by index, ascending: only they have keys with the holder."""
    named = parameters(session).recipients
    return tuple(i for i in sorted(survivors) if session.roster[i] in named)


def expect_clients(session: Session, indices: Collection[int]) -> None:
    """Refuse a sum over fewer clients than the session promises, or over strangers. Raises PeerError."""
    if len(indices) < (least := least_survivors(session)):
        raise PeerError(
            f"contributions: at least {least} are demanded before a sum is opened, {len(indices)} came",
            "server",
        )
    if any(not 0 <= index < session.clients for index in indices):
        raise PeerError(f"expected clients below {session.clients}, got {sorted(indices)}", "server")


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


def opened(session: Session, key: OpeningKey, asked: OpenRequest) -> OpenedTotal:
    """Return the total of as many contributions as the session promises, or a refusal. Raises PeerError."""
    expect_clients(session, asked.tickets)
    try:
        return OpenedTotal(pack_total(key.open(session, asked), session))
    except NotTheSum as reason:
        return OpenedTotal(b"", f"this is something else than the sum: {reason}")
