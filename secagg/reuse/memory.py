"""What parties keep between rounds of one set-up. What does not belong here: when it is used.

A client's pair keys are chains: each round uses a key and replaces it by its successor, from which the key
itself cannot be had. So whoever reads a client's store later learns nothing about earlier rounds.
"""

import hashlib
from dataclasses import dataclass, field, replace

from protocols.codec import Record
from protocols.errors import Misuse, PolicyRefusal, WireError
from protocols.session import Session
from secagg.key_agreement import derive
from secagg.messages import Indices, expect_ascending, expect_size, items
from secagg.rules import Rules

MOST_SKIPPED = 100_000
FIRST_PATIENCE = 4
_RATCHET = b"secagg ratchet v1"


@dataclass(frozen=True, eq=False)
class ClientMemory(Record):
    """epoch: context of the set-up session. roster: digest of its names. next_round: the least round still
    allowed.

    neighbours, chains: with whom masks are shared, and one chain key (32 bytes) each. peers, channels: to
    whom shares are sealed (the committee; for its members everybody), and one chain key each. sign: the
    set-up's signing key.
    """

    epoch: bytes
    roster: bytes
    next_round: int
    neighbours: Indices
    chains: bytes = field(repr=False)
    peers: Indices
    channels: bytes = field(repr=False)
    sign: bytes = field(repr=False)

    def __post_init__(self) -> None:
        expect_ascending("neighbours", self.neighbours)
        expect_ascending("peers", self.peers)
        expect_size("chains", self.chains, 32 * len(self.neighbours))
        expect_size("channels", self.channels, 32 * len(self.peers))

    def at(self, session: Session, epoch: bytes) -> "ClientMemory":
        """Return the memory with its chains moved forward to the session's round.

        Raises PolicyRefusal for a round that was used already or lies too far ahead, another set-up or
        another roster.
        """
        if self.epoch != epoch or self.roster != roster_digest(session):
            raise PolicyRefusal(
                "setup: the session builds on another set-up than the one this client took part in"
            )
        steps = session.round - self.next_round
        if steps < 0:
            raise PolicyRefusal(
                f"setup: round {session.round} was used or passed already, the next one is {self.next_round}: "
                "its keys are gone, and no round is answered twice"
            )
        if steps > MOST_SKIPPED:
            raise PolicyRefusal(f"setup: round {session.round} lies more than {MOST_SKIPPED} rounds ahead")
        return self.forward(steps)

    def forward(self, steps: int) -> "ClientMemory":
        """Return the memory `steps` rounds later."""
        if not steps:
            return self
        return replace(
            self,
            next_round=self.next_round + steps,
            chains=b"".join(ratchet(key, steps) for key in items(self.chains, 32)),
            channels=b"".join(ratchet(key, steps) for key in items(self.channels, 32)),
        )


@dataclass(frozen=True, eq=False)
class ServerMemory(Record):
    """epoch: context of the set-up session; first_round: its round; last_round: the last one begun.

    keys: what was advertised. established: clients whose masked vector came in some round, so that they have
    pair keys. patience: rounds after which a set-up that somebody of the roster missed is made anew.
    """

    epoch: bytes
    roster: bytes
    parameters: bytes
    first_round: int
    last_round: int
    keys: dict[int, bytes]
    established: Indices
    patience: int

    def __post_init__(self) -> None:
        expect_size("epoch", self.epoch, 32)
        expect_ascending("established", self.established)

    def serves(self, session: Session, renew: int) -> bool:
        """Whether a session of the same roster and parameters, at a later round, builds on this set-up.

        Not after `renew` rounds, nor after `patience` rounds if somebody missed it: late joiners wait no
        longer than that.
        """
        if self.roster != roster_digest(session) or self.parameters != session.parameters:
            return False
        lasts = renew if len(self.established) == session.clients else min(self.patience, renew)
        return self.last_round < session.round < self.first_round + lasts

    def next_patience(self, session: Session) -> int:
        """The patience of a new set-up: twice as long as long as somebody of the same roster is missing."""
        same = self.roster == roster_digest(session) and len(self.established) < session.clients
        return min(2 * self.patience, 1 << 20) if same else FIRST_PATIENCE


def roster_digest(session: Session) -> bytes:
    """Return a digest (32 bytes) of the roster's names in their order."""
    names = b"".join(len(n.encode()).to_bytes(4, "big") + n.encode() for n in session.roster)
    return hashlib.sha256(b"secagg roster v1\0" + names).digest()


def epoch_of(session: Session, rules: Rules) -> bytes:
    """Return the context of the set-up that a session belongs to: its own, if it is the set-up."""
    return rules.parameters.epoch or session.context


def ratchet(key: bytes, steps: int) -> bytes:
    for _ in range(steps):
        key = derive(key, bytes(32), _RATCHET)
    return key


def build_on(session: Session, memory: bytes | None, renew: int) -> bytes:
    """Return the epoch (32 bytes) of the set-up that a server kept, if this session builds on it, else
    nothing (a new set-up).
    """
    kept = recalled(memory)
    return kept.epoch if kept is not None and kept.serves(session, renew) else b""


def recalled(memory: bytes | None) -> ServerMemory | None:
    """Return what a server kept, or None. Raises Misuse if it is not readable."""
    try:
        return None if memory is None else ServerMemory.decode(memory)
    except WireError as error:
        raise Misuse(f"what the server kept of its set-up is not readable: {error}") from None
