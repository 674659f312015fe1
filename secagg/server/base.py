"""What every server state shares: who answered, and how messages are taken and asked for. No state lives here."""

import functools
from dataclasses import dataclass

from protocols.codec import Record
from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.identity import verify
from protocols.kernel import SERVER, Message, client, message
from protocols.roles import Asking
from protocols.sealing import OVERHEAD
from protocols.session import Session
from secagg.advertisement import signing_key
from secagg.commitments import DEAL, dealt_bytes
from secagg.messages import DIGEST_BYTES, Dealing, Indices, Pledge
from secagg.places import Places
from secagg.ring import Words
from secagg.session_rules import Rules, rules_of


@dataclass(frozen=True, eq=False)
class ServerState(Asking):
    """A state that waits for one answer of each of some clients. Subclasses say of whom, and what has come."""

    session: Session

    @functools.cached_property
    def rules(self) -> Rules:
        return rules_of(self.session)

    def request(self, stage: str, index: int, body: Record) -> Message:
        """Return a request of the next stage."""
        return message(self.session.context, stage, SERVER, client(index), body.encode())

    def enough(self) -> None:
        """Raises TooFewSurvivors unless more clients answered than the threshold: each secret has its
        holders among the others.
        """
        came, needed = len(self.answers), self.rules.threshold + 1
        if came < needed:
            raise TooFewSurvivors(
                f"stage {self.STAGE!r}: expected answers of at least {needed} clients, got {came}"
            )

    def enough_left(self, graph_seed: bytes) -> None:
        """Raises TooFewSurvivors if those who answered are too few for what every client insists on."""
        self.enough()
        if reason := self.rules.shortfall(self.answers, graph_seed):
            raise TooFewSurvivors(f"stage {self.STAGE!r}: {reason}")

    def check_dealing(
        self, places: Places, index: int, dealing: Dealing, keys: bytes, vector: bytes | memoryview = b""
    ) -> None:
        """Raises PeerError naming the dealer unless it dealt shares of all its secrets to its holders, and signed that,
        where the server may be two-faced.
        """
        who, secrets = str(client(index)), len(places.kinds(index))
        if dealing.holders.tolist() != places.holders(index):
            raise ProtocolViolation("dealt to others than those who hold its shares", who)
        rows, pledged = len(dealing.holders), secrets if places.reuse else 1
        sizes = (len(dealing.boxes), len(dealing.digests), len(dealing.pledges))
        if sizes != (rows * (OVERHEAD + places.size(secrets)), rows * secrets * DIGEST_BYTES, 32 * pledged):
            raise ProtocolViolation(f"expected shares of {secrets} secrets for {rows} holders", who)
        if self.rules.voted:
            signed = dealt_bytes(self.session.context, index, dealing, vector)
            verify(signing_key(self.rules, index, keys), DEAL, signed, dealing.signature, who)


@dataclass(frozen=True, eq=False)
class Input(Record):
    """What came with a masked vector: the dealers it complains about, its signature of all dealers; with reused keys,
    its boxes.
    """

    complaints: Indices
    signature: bytes
    boxes: bytes


@dataclass(frozen=True, eq=False)
class Facts(Record):
    """What the server knows of the dealers: their advertised keys, their pledges (with reused keys, of those whose
    masked vector came), the graph's seed.
    """

    keys: dict[int, bytes]
    pledges: dict[int, Pledge]
    graph_seed: bytes

    def places(self, rules: Rules) -> Places:
        return Places(rules, self.graph_seed, self.keys)


@dataclass(frozen=True, eq=False)
class SumState(ServerState):
    """Base of the states that hold the sum of the masked vectors, and what is known of the dealers."""

    facts: Facts
    total: Words

    @functools.cached_property
    def places(self) -> Places:
        """Who shares what with whom, among the dealers."""
        return self.facts.places(self.rules)
