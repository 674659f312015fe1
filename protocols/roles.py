"""What the states of servers, clients and helpers share: who is asked, who answered, how messages are read.

What does not belong here: any protocol's states and messages; what a driver does with a step (`kernel`).
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from protocols.codec import Record
from protocols.errors import ProtocolViolation, WireError
from protocols.kernel import SERVER, Message, Party, State, client, expect, message
from protocols.session import Session

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Ask(Record):
    """Server to a party: answer this stage."""


@contextmanager
def naming(who: str, what: str = "") -> Iterator[None]:
    """Let a WireError that is raised within name its sender `who`, in its text and as `party`. what: the part of a
    message at which the text begins.
    """
    try:
        yield
    except WireError as error:
        raise WireError(f"{what}{who}: {error}", who) from None


def read(kind: type[R], sent: Message) -> R:
    """Return the body of a message. Raises WireError naming its sender."""
    with naming(str(sent.sender)):
        return kind.decode(sent.body)


def requests(session: Session, stage: str, bodies: Mapping[Party, Record]) -> tuple[Message, ...]:
    """Return a stage's requests, one per party; what goes to several is encoded once."""
    distinct = {id(body): body for body in bodies.values()}
    encoded = {key: body.encode() for key, body in distinct.items()}
    return tuple(message(session.context, stage, SERVER, to, encoded[id(b)]) for to, b in bodies.items())


class Asking(State):
    """A server's state that waits for one answer of each party it asked.

    STAGE, ROLE: which answers. answers: what has come, by the sender's number; subclasses fill it in `receive`.
    """

    STAGE: ClassVar[str]
    ROLE: ClassVar[str] = "client"

    session: Session
    answers: Mapping[int, object]

    def asked(self) -> Collection[int]:
        """Numbers of the parties whose answer is expected; all clients unless a subclass says otherwise."""
        return range(self.session.clients)

    def waiting_for(self) -> list[Party]:
        return [Party(self.ROLE, i) for i in self.asked() if i not in self.answers]

    def take(self, kind: type[R], answer: Message) -> tuple[int, R]:
        """Return number and body of an answer that is expected. Raises PeerError for any other message."""
        return self.admit(answer), read(kind, answer)

    def admit(self, answer: Message) -> int:
        """Return the number of the sender of an answer that is expected, whatever its body. Raises PeerError."""
        expect(answer, self.session.context, self.STAGE, self.ROLE, SERVER)
        number = answer.sender_index
        asked = number in self.asked()
        if not asked or number in self.answers:
            who, stage = str(answer.sender), f"stage {self.STAGE!r}"
            what = f"has answered {stage} already" if asked else f"was not asked in {stage}"
            raise ProtocolViolation(f"{who} {what}", who)
        return number


class Asked(State):
    """A client's or helper's state that waits for one request of the server and answers it."""

    STAGE: ClassVar[str]

    session: Session
    index: int

    @property
    def party(self) -> Party:
        """Who this is; a client unless a subclass says otherwise."""
        return client(self.index)

    def take(self, kind: type[R], request: Message, stage: str = "") -> R:
        """Return the body of the one request this state waits for. Raises PeerError for any other message.

        stage: another one than STAGE, for a state that answers two.
        """
        expect(request, self.session.context, stage or self.STAGE, "server", self.party)
        return read(kind, request)

    def answer(self, body: Record, stage: str = "") -> tuple[Message]:
        """Return the answer to this stage."""
        return (message(self.session.context, stage or self.STAGE, self.party, SERVER, body.encode()),)
