"""What the roles need of Paillier where somebody holds the whole key: how the server adds, how a sum is recognised and
opened. What does not belong here: decryptors, states, tags' mathematics (`tags`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.cipher import CrtDecryption, add, parse, serialise
from he.paillier.keyring import HolderKey
from he.paillier.keys import PublicKey
from he.paillier.messages import Ticket, checked, ciphertexts_of, parse_named
from he.paillier.parameters import scheme, total_of
from he.paillier.tags import remove_tags, seed_for_holder, seed_in_group
from he.roles.messages import EncryptedInput, OpenRequest, decode
from he.roles.recipients import PURPOSE
from he.roles.scheme import Accumulator, GroupKey, HeldKey, NotTheSum
from he.sealing import agree
from protocols.errors import PeerError, ProtocolViolation
from protocols.session import Session
from protocols.summation import IntVector


@dataclass
class PaillierAccumulator(Accumulator):
    """sum: the ciphertexts of the sum so far (empty: none yet). signers: the clients' keys, 32 bytes each, or empty.
    tagged: each ticket must carry a key that tags are agreed with (KeyHolder).
    """

    TAG: ClassVar[int | None] = 1

    public: PublicKey
    signers: bytes
    tagged: bool
    sum: bytes = field(default=b"", repr=False)

    def add(self, session: Session, index: int, sent: EncryptedInput) -> None:
        ticket, vector = checked(sent, session, index, self.signers, self.public)
        if len(ticket.tag) != 32 * self.tagged:
            who = f"client {index}"
            raise ProtocolViolation(f"{who}: expected a key of {32 * self.tagged} bytes for its tags", who)
        if self.sum:
            vector = add(parse(self.sum, ciphertexts_of(session), self.public), vector, self.public)
        self.sum = serialise(vector, self.public)

    def finish(self) -> bytes:
        return self.sum


@dataclass(frozen=True)
class PaillierHeldKey(HeldKey):
    """Tags are agreed with each client by the X25519 key in its ticket."""

    TAG: ClassVar[int | None] = 1

    key: HolderKey = field(repr=False)
    signers: bytes

    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        tickets = {i: _ticket(data, i) for i, data in asked.tickets.items()}
        seeds = {i: seed_for_holder(self.key.sealing, t.tag, session.context, i) for i, t in tickets.items()}
        return _opened(session, self.key, asked, tickets, seeds, self.signers)

    def box_key(self, session: Session, index: int, ticket: bytes) -> bytes:
        tag = _ticket(ticket, index).tag
        return agree(self.key.sealing, tag, session.context, PURPOSE, f"client {index}")


@dataclass(frozen=True)
class PaillierGroupKey(GroupKey):
    """Tags come from the secret that the clients share."""

    TAG: ClassVar[int | None] = 1

    key: HolderKey = field(repr=False)
    signers: bytes

    @property
    def secret(self) -> bytes:
        return self.key.sealing

    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        tickets = {i: _ticket(data, i) for i, data in asked.tickets.items()}
        seeds = {i: seed_in_group(self.key.sealing, session.context, i) for i in tickets}
        return _opened(session, self.key, asked, tickets, seeds, self.signers)


def _ticket(data: bytes, index: int) -> Ticket:
    return decode(Ticket, data, f"client {index}")


def _opened(
    session: Session,
    key: HolderKey,
    asked: OpenRequest,
    tickets: Mapping[int, Ticket],
    seeds: Mapping[int, bytes],
    signers: bytes,
) -> IntVector:
    """Return the total if the ciphertexts are exactly the sum of the contributions behind the tickets."""
    for index, ticket in tickets.items():
        ticket.check(session, index, signers)
    public = key.secret.public
    ciphertexts = parse_named(asked.ciphertexts, session, public, "server")
    opened = remove_tags(CrtDecryption(key.secret).decrypt(ciphertexts), seeds.values(), int(public.n))
    try:
        digits = scheme(session).packing.unpack(opened, session.dimension)
    except PeerError as error:
        raise NotTheSum(str(error)) from None
    return total_of(digits, session)
