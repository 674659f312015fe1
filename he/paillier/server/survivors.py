"""What the server's states share about who is in the sum. No messages or states belong here."""

from collections.abc import Container, Mapping

from he.paillier.parameters import least_survivors
from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.kernel import Message
from protocols.session import Session


def newcomer(message: Message, session: Session, seen: Container[int]) -> int:
    """Return the sender's index. Raises ProtocolViolation for one who is not in the roster, or has answered
    already.
    """
    index = message.sender.number
    if index >= session.clients or index in seen:
        raise ProtocolViolation("expected one input from each client of the roster", str(message.sender))
    return index


def enough(arrived: Mapping[int, object], session: Session) -> tuple[int, ...]:
    """Return the survivors, ascending. Raises TooFewSurvivors."""
    least = least_survivors(session)
    if len(arrived) < least:
        raise TooFewSurvivors(
            f"expected the inputs of at least {least} clients, {len(arrived)} of {session.clients} came"
        )
    return tuple(sorted(arrived))
