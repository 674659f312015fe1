"""What parties keep between rounds of one set-up. What does not belong here: when it is used.

A client's pair keys are chains: each round uses a key and replaces it by its successor, from which the key
itself cannot be had. Sessions that wait beside the one that used it are erased with it (`protocols.runtime`). So
whoever reads a client's store later learns nothing about earlier rounds but the digests of the updates that left
(marks).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from protocols.codec import Record
from protocols.errors import Misuse, SetupMissing, WireError
from protocols.key_agreement import derive
from protocols.session import Session
from secagg.messages import Body, Indices, exactly, indices, items
from secagg.session_rules import rules_of
from secagg.signers import Signers

MOST_SKIPPED = 100_000
FIRST_PATIENCE = 4
_RATCHET = b"secagg ratchet v1"


@dataclass(frozen=True)
class Setup(Body):
    """Which set-up, and everything it fixes for its later rounds.

    epoch: context of its session. round: its round. pins: digest of the roster's names in their order and of all
    parameters (threat, degree, threshold, corrupt, survivors, quorum, committee, window, beacon, identities).
    """

    epoch: bytes = field(metadata=exactly(32))
    round: int
    pins: bytes = field(metadata=exactly(32))

    @classmethod
    def of(cls, session: Session) -> Self:
        """Return the set-up that a session builds on: its own, if it is one."""
        p = rules_of(session).parameters
        return cls(p.epoch or session.context, p.begun or session.round, pins(session))


def pins(session: Session) -> bytes:
    """Return a digest (32 bytes) of what every round of a set-up has in common."""
    names = b"".join(len(n.encode()).to_bytes(4, "big") + n.encode() for n in session.roster)
    common = replace(rules_of(session).parameters, epoch=b"", begun=0).encode()
    return hashlib.sha256(b"secagg set-up v2\0" + hashlib.sha256(names).digest() + common).digest()


@dataclass(frozen=True, eq=False)
class ClientMemory(Record):
    """setup: the set-up. next_round: the least round still allowed. enrolled: who enrolled (`pack_bits`).

    chains, channels: one chain key (32 bytes) for each neighbour, and for each to whom shares are sealed
    (`places.Places`). sign: the set-up's signing key (empty where the roster's signs). signers: others' keys of that
    kind.
    """

    setup: Setup
    next_round: int
    enrolled: bytes
    chains: bytes = field(repr=False)
    channels: bytes = field(repr=False)
    sign: bytes = field(repr=False)
    signers: Signers

    def at(self, session: Session) -> "ClientMemory":
        """Return the memory with its chains moved forward to the session's round.

        Raises SetupMissing for a round that was used already or lies too far ahead, another set-up,
        another roster or other parameters.
        """
        claimed = Setup.of(session)
        if (self.setup.epoch, self.setup.round) != (claimed.epoch, claimed.round):
            raise SetupMissing(
                "setup: the session builds on another set-up than the one this client took part in"
            )
        if self.setup.pins != claimed.pins:
            raise SetupMissing("setup: the session's roster or parameters are not those of the set-up")
        steps = session.round - self.next_round
        if steps < 0:
            raise SetupMissing(
                f"setup: round {session.round} was used or passed already, the next one is {self.next_round}: "
                "its keys are gone, and no round is answered twice"
            )
        if steps > MOST_SKIPPED:
            raise SetupMissing(f"setup: round {session.round} lies more than {MOST_SKIPPED} rounds ahead")
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
class ServerMemory(Body):
    """setup: the set-up. last_round: the last one begun. keys: what was advertised, by client. established: clients
    whose masked vector came in some round, so that they have pair keys. patience: rounds after which a set-up that
    somebody of the roster missed is made anew.
    """

    setup: Setup
    last_round: int
    keys: dict[int, bytes]
    established: Indices
    patience: int

    def serves(self, session: Session, renew: int) -> bool:
        """Whether a session of the same roster and parameters, at a later round, builds on this set-up.

        Not after `renew` rounds, nor after `patience` rounds if somebody missed it: late joiners wait no
        longer than that.
        """
        if self.setup.pins != Setup.of(session).pins:
            return False
        lasts = renew if len(self.established) == session.clients else min(self.patience, renew)
        return self.last_round < session.round < self.setup.round + lasts

    def after(self, arrived: Iterable[int]) -> Self:
        """Return the memory after a round in which these clients' vectors came."""
        return replace(self, established=indices(sorted({*self.established.tolist(), *arrived})))

    def next_patience(self, session: Session) -> int:
        """The patience of a new set-up: twice as long as long as somebody of the same roster is missing."""
        same = self.setup.pins == Setup.of(session).pins and len(self.established) < session.clients
        return min(2 * self.patience, 1 << 20) if same else FIRST_PATIENCE


def ratchet(key: bytes, steps: int) -> bytes:
    for _ in range(steps):
        key = derive(key, bytes(32), _RATCHET)
    return key


def build_on(session: Session, memory: bytes | None, renew: int) -> Setup | None:
    """Return the set-up that a server kept, if this session builds on it; None: it makes a new one."""
    kept = recalled(memory)
    return kept.setup if kept is not None and kept.serves(session, renew) else None


def recalled(memory: bytes | None) -> ServerMemory | None:
    """Return what a server kept, or None. Raises Misuse if it is not readable."""
    try:
        return None if memory is None else ServerMemory.decode(memory)
    except WireError as error:
        raise Misuse(f"what the server kept of its set-up is not readable: {error}") from None
