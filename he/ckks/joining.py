"""What comes before ciphertexts where a key holder opens: clients join, the holder makes the session's keys, the server
relays them. What does not belong here: what follows the ciphertexts (`he.roles`), opening, the messages themselves.

A fresh key for every session: what is asked, answered or refused in one session tells nothing about another.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from he.ckks.ciphertexts import Adder, encrypt
from he.ckks.coefficients import KEY_BYTES
from he.ckks.keys import Context
from he.ckks.messages import JOIN, KEY, ClientKeys, HolderKeys, Join, Joined, Published
from he.ckks.parameters import scheme
from he.ckks.whole_key import CKKSAccumulator, CKKSHeldKey, Secrets, contribution
from he.residues import Words
from he.roles.messages import HOLDER, INPUT, KEY_HOLDER
from he.roles.parties import HoldsKey, after_input
from he.roles.recipients import PURPOSE
from he.roles.scheme import least_survivors
from he.roles.server import AddsCiphertexts
from he.sealing import agree, seal, unseal
from protocols.codec import Record
from protocols.errors import Aborted, PolicyRefusal, ProtocolViolation, TooFewSurvivors, refuse
from protocols.identity import Identity
from protocols.kernel import Message, Party, Step, client, spending
from protocols.randomness import SecureRandom
from protocols.roles import Ask, Asked, Asking, requests
from protocols.session import Session


@dataclass(frozen=True, eq=False)
class OwnInput(Record):
    """What a client brings: its input and what the input was made from; its key for this session's boxes; the holder's
    signing key, or empty.
    """

    vector: NDArray[np.int64] = field(repr=False)
    update: bytes
    private: bytes = field(repr=False)
    holder: bytes


@dataclass(frozen=True, eq=False)
class HoldsInput(Asked):
    """Base of a client's states before its input leaves."""

    session: Session
    index: int
    own: OwnInput

    @property
    def update(self) -> bytes:
        """What the input was made from."""
        return self.own.update


@dataclass(frozen=True, eq=False)
class MayJoin(HoldsInput):
    """Client: waits to be asked to join."""

    TAG = 19
    STAGE = JOIN

    join: Join

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Ask, request)
        return Step(HasJoined(self.session, self.index, self.own), self.answer(self.join))


@dataclass(frozen=True, eq=False)
class HasJoined(HoldsInput):
    """Client: waits for the holder's keys; then encrypts and sends."""

    TAG = 20
    STAGE = INPUT

    def receive(self, request: Message, random: SecureRandom) -> Step:
        keys, own, session = self.take(ClientKeys, request), self.own, self.session
        check_key, public = self._opened(keys)
        shared = self._agreed(keys, "to holder"), check_key
        sent = contribution(
            session, self.index, shared, own.vector, lambda x, p, pad: encrypt(x, p, public, pad)
        )
        after = after_input(session, self.index, self._agreed(keys, PURPOSE))
        return Step(after, self.answer(sent), marks=(spending(own.update),))

    def _agreed(self, keys: ClientKeys, purpose: str) -> bytes:
        return agree(self.own.private, keys.published.key, self.session.context, purpose, HOLDER)

    def _opened(self, keys: ClientKeys) -> tuple[bytes, Words]:
        """Return the session's check key and the public key. Raises PeerError unless both are the holder's."""
        published, context = keys.published, self.session.context
        if self.own.holder:
            published.verify(self.own.holder, context)
        plain = unseal(self._agreed(keys, "to client"), keys.box, context, HOLDER)
        check_key, digest = plain[:KEY_BYTES], plain[KEY_BYTES:]
        if len(check_key) != KEY_BYTES or digest != published.digest:
            raise refuse("the context is not the one that the holder vouches for")
        made = Context.load(published.context, "client", HOLDER)
        if made.parameters != scheme(self.session):
            raise ProtocolViolation("the holder's context has other parameters than the session", HOLDER)
        return check_key, made.public_key()


@dataclass(frozen=True)
class GathersJoins(Asking):
    """Server: collects the clients' public keys for boxes."""

    TAG = 38
    STAGE = JOIN

    session: Session
    answers: dict[int, Join]

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        index, join = self.take(Join, sent)
        self.answers[index] = join
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        if len(self.answers) < (least := least_survivors(self.session)):
            raise TooFewSurvivors(f"expected at least {least} clients to join, {len(self.answers)} did")
        asks = requests(self.session, KEY, {KEY_HOLDER: Joined(self.answers)})
        return Step(AwaitsHolderKeys(self.session, tuple(self.answers), {}), asks)


@dataclass(frozen=True)
class AwaitsHolderKeys(Asking):
    """Server: waits for what the holder made for this session."""

    TAG = 39
    STAGE = KEY
    ROLE = HOLDER

    session: Session
    joined: tuple[int, ...]
    answers: dict[int, HolderKeys]

    def asked(self) -> Collection[int]:
        return (0,)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        (number, answer), who = self.take(HolderKeys, sent), str(sent.sender)
        if set(answer.boxes) != set(self.joined):
            raise ProtocolViolation("expected one answer, with a box for every client that joined", who)
        Context.load(answer.published.context, "server", who)
        self.answers[number] = answer
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        if not self.answers:
            raise Aborted("the key holder sent no key")
        keys, session = self.answers[0], self.session
        bodies = {client(i): ClientKeys(keys.published, box) for i, box in keys.boxes.items()}
        adding = CKKSAccumulator(Adder.empty(scheme(session)))
        return Step(
            AddsCiphertexts(session, tuple(keys.boxes), HOLDER, adding), requests(session, INPUT, bodies)
        )


def published(secrets: Secrets, session: Session, identity: Identity | None) -> Published:
    """Return the public part of what the holder made, signed if it has an identity."""
    return Published(secrets.keys.dump(), secrets.public, b"").by(session.context, identity)


@dataclass(frozen=True)
class MadeKeys(Asked):
    """Holder: waits for the clients' keys; then gives every client its box.

    signers: the clients' signing keys in roster order, 32 bytes each; empty if nobody signs.
    """

    TAG = 26
    STAGE = KEY

    session: Session
    signers: bytes
    secrets: Secrets
    published: Published

    @property
    def party(self) -> Party:
        return KEY_HOLDER

    def receive(self, request: Message, random: SecureRandom) -> Step:
        clients, context = self._clients(self.take(Joined, request)), self.session.context
        plain, boxes = self.secrets.check_key + self.published.digest, {}
        for index, key in clients.items():
            box_key = agree(self.secrets.private, key, context, "to client", str(client(index)))
            boxes[index] = seal(box_key, plain, context, HOLDER, random)
        holding = HoldsKey(self.session, CKKSHeldKey(clients, self.secrets))
        return Step(holding, self.answer(HolderKeys(self.published, boxes)))

    def _clients(self, joined: Joined) -> dict[int, bytes]:
        """Return the keys of those who joined. Raises PeerError for one that may not, PolicyRefusal for too
        few.
        """
        for index, join in joined.clients.items():
            if not 0 <= index < self.session.clients:
                raise refuse("a client that is not on the roster joined")
            if self.signers:
                signer = self.signers[32 * index : 32 * index + 32]
                join.verify(signer, self.session.context, index)
        keys = {index: join.key for index, join in joined.clients.items()}
        if len(set(keys.values())) != len(keys):
            raise refuse("two clients joined with one key")
        if len(keys) < (least := least_survivors(self.session)):
            raise PolicyRefusal(f"contributions: at least {least} are demanded, {len(keys)} clients joined")
        return keys
