"""What every server state shares: who answered, and how messages are taken and asked for. No state lives
here.
"""

import functools
from abc import abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from protocols.codec import Record
from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, client, expect, message
from protocols.session import Session
from secagg.messages import Indices, R, pack_bits, read
from secagg.rules import Rules, rules_of


@dataclass(frozen=True, eq=False)
class ServerState(State):
    """A state that waits for one answer of each of some clients. Subclasses say of whom, and what has come."""

    STAGE: ClassVar[str]

    session: Session

    @functools.cached_property
    def rules(self) -> Rules:
        return rules_of(self.session)

    @abstractmethod
    def asked(self) -> Collection[int]:
        """The clients whose answer is expected."""

    @abstractmethod
    def answered(self) -> Collection[int]:
        """The clients whose answer has come."""

    def waiting_for(self) -> Iterable[Party]:
        came = self.answered()
        return [client(i) for i in self.asked() if i not in came]

    def admit(self, answer: Message) -> int:
        """Return the sender of an answer that is expected. Raises ProtocolViolation for any other message."""
        expect(answer, self.session.context, self.STAGE, "client", SERVER)
        index = answer.sender.number
        if index not in self.asked():
            raise ProtocolViolation(
                f"{answer.sender} was not asked in stage {self.STAGE!r}", str(answer.sender)
            )
        if index in self.answered():
            raise ProtocolViolation(
                f"{answer.sender} has answered stage {self.STAGE!r} already", str(answer.sender)
            )
        return index

    def take(self, kind: type[R], answer: Message) -> tuple[int, R]:
        """Return sender and body of an answer that is expected. Raises PeerError for any other message."""
        return self.admit(answer), read(kind, answer)

    def request(self, stage: str, index: int, body: Record) -> Message:
        """Return a request of the next stage."""
        return message(self.session.context, stage, SERVER, client(index), body.encode())

    def enough(self) -> None:
        """Raises TooFewSurvivors unless more clients answered than the threshold: each secret has its
        holders among the others.
        """
        came, needed = len(self.answered()), self.rules.threshold + 1
        if came < needed:
            raise TooFewSurvivors(
                f"stage {self.STAGE!r}: expected answers of at least {needed} clients, got {came}"
            )

    def enough_left(self, graph_seed: bytes) -> None:
        """Raises TooFewSurvivors if those who answered are too few for what every client insists on."""
        self.enough()
        if reason := self.rules.shortfall(self.answered(), graph_seed):
            raise TooFewSurvivors(f"stage {self.STAGE!r}: {reason}")


@dataclass(frozen=True, eq=False)
class Pledge(Record):
    """What a dealer is bound to: its holders, two digests of shares for each, the digest of its self-mask
    seed.
    """

    holders: Indices
    digests: bytes
    seed_digest: bytes


@dataclass(frozen=True, eq=False)
class Input(Record):
    """What came with a masked vector: the dealers it complains about, its signature of all dealers."""

    complaints: Indices
    signature: bytes


@dataclass(frozen=True, eq=False)
class Facts(Record):
    """What the server knows once shares are dealt: the dealers' advertised keys and pledges, the graph's
    seed.
    """

    keys: dict[int, bytes]
    pledges: dict[int, Pledge]
    graph_seed: bytes

    def dealers(self, clients: int) -> bytes:
        """All who dealt, as bits."""
        return pack_bits(self.keys, clients)
