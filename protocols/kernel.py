"""One step of a role: (state, event) -> (state, messages). What does not belong here: any I/O, clock or
thread.

A role (client, server, key holder, decryptor) is a chain of states; each state is a Record, so that a step
can run in a fresh process. The default answer of a state is refusal. A step consumes the state it is called
on: use the one it returns. A step that raises has changed nothing: the old state is still good.

A driver does the I/O: it delivers messages, calls `close` on the server when nobody else will answer a stage,
and, before a message leaves, saves the returned state, marks and memory in the party's own store
(`protocols.runtime`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from protocols.codec import ByteReader, Record
from protocols.errors import Misuse, ProtocolViolation, WireError, require
from protocols.randomness import SecureRandom

MAGIC = b"SAG1"  # the wire format's name and version
_ROLE = re.compile(r"[a-z][a-z-]{0,31}")


class Party(NamedTuple):
    """Who: a role and its number in the session (a client's number is its index in the roster)."""

    role: str
    number: int = 0

    def __str__(self) -> str:
        return self.role if self.role == "server" else f"{self.role} {self.number}"


SERVER = Party("server")


def client(index: int) -> Party:
    return Party("client", index)


@dataclass(frozen=True)
class Message(Record):
    """An envelope: session context (32 bytes), stage, sender and recipient as (role, index), and an encoded
    body.
    """

    session: bytes
    stage: str
    sender_role: str
    sender_index: int
    recipient_role: str
    recipient_index: int
    body: bytes = field(repr=False)

    def __post_init__(self) -> None:
        require(len(self.session) == 32, "a session context of 32 bytes", len(self.session))
        for role, index in (self.sender, self.recipient):
            if not _ROLE.fullmatch(role) or not 0 <= index < 1 << 32:
                raise Misuse(f"expected a role name and an index below 2^32, got {role!r}, {index}")

    @property
    def sender(self) -> Party:
        return Party(self.sender_role, self.sender_index)

    @property
    def recipient(self) -> Party:
        return Party(self.recipient_role, self.recipient_index)

    @property
    def size(self) -> int:
        """Bytes on the wire, without encoding them."""
        names = len(self.stage.encode()) + len(self.sender_role.encode()) + len(self.recipient_role.encode())
        return len(MAGIC) + 5 * 4 + len(self.session) + names + 2 * 8 + len(self.body)

    def to_wire(self) -> bytes:
        """Return the strict, versioned frame."""
        return MAGIC + self.encode()

    @classmethod
    def from_wire(cls, data: bytes | memoryview) -> "Message":
        """Return the message of a frame. Raises WireError for anything else."""
        reader = ByteReader(data)
        magic = bytes(reader.take(len(MAGIC)))
        if magic != MAGIC:
            raise WireError(f"expected a frame of version {MAGIC!r}, got {magic!r}")
        return cls.decode(reader.take(reader.left))


def message(session: bytes, stage: str, sender: Party, recipient: Party, body: bytes) -> Message:
    return Message(session, stage, *sender, *recipient, body)


@dataclass(frozen=True)
class Step:
    """What a step returns.

    state: the next state. send: messages, to be sent in this order once state, marks and memory are saved.
    marks: names the driver must mark in the party's store, each for the first time ever (an update that is
    spent, a session that is answered); if one is marked already the step is refused and nothing is sent.
    spends: set if the messages carry the client's protected input. memory: bytes the party keeps beyond this
    session (secret), None: unchanged.
    """

    state: "State"
    send: tuple[Message, ...] = ()
    marks: tuple[str, ...] = ()
    memory: bytes | None = field(default=None, repr=False)


def spending(update: bytes) -> str:
    """The mark of an update whose input left. update: what names it; states that wait with it have it by this name."""
    return f"spent/{update.hex()}"


class State(Record):
    """One state of one role. Concrete states carry a TAG (unique within their protocol) and override what
    they accept.
    """

    finished: ClassVar[bool] = False

    def receive(self, message: Message, random: SecureRandom) -> Step:
        """Take one message. Raises PeerError (this state stays good) for one that may not come now."""
        raise ProtocolViolation(
            f"{type(self).__name__} accepts no message, got one of stage {message.stage!r} from {message.sender}",
            str(message.sender),
        )

    def close(self, random: SecureRandom) -> Step:
        """Nobody else will answer this stage: go on with those who did. Raises Aborted below a threshold."""
        raise Misuse(f"{type(self).__name__} has no stage to close")

    @property
    def ends_with(self) -> str:
        """The mark of the update that this state waits to send (empty: none). A driver erases the state once another
        session, of whatever protocol, set it.
        """
        update = getattr(self, "update", b"")
        return spending(update) if update else ""

    def over(self, memory: bytes | None) -> bool:
        """Whether what the party keeps (`Step.memory`) moved past this state in other sessions. A driver erases it."""
        return False

    def waiting_for(self) -> Iterable[Party]:
        """Whose answers this state still waits for; the driver may close the stage when it is empty."""
        return ()


class Finished(State):
    """Base of final states: nothing more is accepted, no secret is left."""

    finished = True


@dataclass(frozen=True)
class Left(Finished):
    """A party that is done: its secrets of this session are gone."""

    TAG = 1


def expect(message: Message, session: bytes, stage: str, sender_role: str, recipient: Party) -> None:
    """Refuse a message of another session, stage, sender role or recipient. Raises ProtocolViolation."""
    if message.session != session:
        raise ProtocolViolation(
            f"expected session {session.hex()[:16]}, got {message.session.hex()[:16]}: "
            "another session, roster or model",
            str(message.sender),
        )
    if message.stage != stage:
        raise ProtocolViolation(f"expected stage {stage!r}, got {message.stage!r}", str(message.sender))
    if message.sender_role != sender_role:
        who = str(message.sender)
        raise ProtocolViolation(f"expected a message from a {sender_role}, got one from {who}", who)
    if message.recipient != recipient:
        told = f"expected a message to {recipient}, got one to {message.recipient}"
        raise ProtocolViolation(told, str(message.sender))
