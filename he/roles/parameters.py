"""The public parameters that sessions of both schemes have: who opens, for whom, from how many clients on.

What does not belong here: a scheme's numbers, which are opaque here. They enter the session's context, and every party
derives them from its own configuration and refuses a session that says otherwise: none of them is the server's choice.
"""

from collections.abc import Collection
from dataclasses import dataclass

from protocols.codec import Record
from protocols.errors import Misuse, PeerError, WireError
from protocols.session import Session


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


def expect_clients(session: Session, indices: Collection[int], least: int) -> None:
    """Refuse a sum over fewer than `least` clients, or over strangers. Raises PeerError."""
    if len(indices) < least:
        raise PeerError(
            f"contributions: at least {least} are demanded before a sum is opened, {len(indices)} came",
            "server",
        )
    if any(not 0 <= index < session.clients for index in indices):
        raise PeerError(f"expected clients below {session.clients}, got {sorted(indices)}", "server")
