"""What the roles need of CKKS: how the server adds, how a sum is recognised and opened by a key holder or by a client
that shares the key. What does not belong here: states, ciphertexts' mathematics (`ciphertexts`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from he.ckks.ciphertexts import Adder, Sum, Upload, check_words, encrypt_seeded, open_sum
from he.ckks.coefficients import KEY_BYTES, check_value, gather, pad_of, spread
from he.ckks.keys import Context
from he.ckks.parameters import CKKSParameters, scheme
from he.ckks.seal import ring
from he.residues import Words
from he.roles.messages import EncryptedInput, OpenRequest, decode
from he.roles.recipients import PURPOSE
from he.roles.scheme import Accumulator, GroupKey, HeldKey, NotTheSum
from he.sealing import agree, derive
from protocols.codec import Record
from protocols.errors import ProtocolViolation, refuse
from protocols.kernel import client
from protocols.key_agreement import public_key
from protocols.randomness import SecureRandom
from protocols.roles import naming
from protocols.session import Session
from protocols.summation import IntVector, centred


@dataclass(frozen=True, eq=False)
class CKKSAccumulator(Accumulator):
    """Adds uploads; needs no key."""

    TAG = 2

    adder: Adder

    def add(self, session: Session, index: int, sent: EncryptedInput) -> None:
        who = str(client(index))
        with naming(who):
            self.adder.add(Upload.decode(sent.ciphertexts))

    def finish(self) -> bytes:
        return self.adder.finish().encode()


@dataclass(frozen=True)
class Secrets(Record):
    """What the holder makes for one session: the CKKS keys, a key for boxes, the check key."""

    keys: Context
    private: bytes = field(repr=False)
    check_key: bytes = field(repr=False)

    @classmethod
    def make(cls, session: Session, random: SecureRandom) -> Self:
        return cls(Context.make(scheme(session)), random.bytes(32), random.bytes(KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The X25519 key of boxes."""
        return public_key(self.private)


@dataclass(frozen=True)
class CKKSHeldKey(HeldKey):
    """clients: the X25519 keys of those that joined. Tickets are empty."""

    TAG = 2

    clients: dict[int, bytes]
    secrets: Secrets

    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        boxes = {i: self._agreed(session, i, "to holder") for i in self.clients}
        return opened(session, asked, boxes, self.secrets.check_key, self.secrets.keys.secret)

    def box_key(self, session: Session, index: int, ticket: bytes) -> bytes:
        return self._agreed(session, index, PURPOSE)

    def _agreed(self, session: Session, index: int, purpose: str) -> bytes:
        return agree(self.secrets.private, self.clients[index], session.context, purpose, str(client(index)))


@dataclass(frozen=True)
class CKKSGroupKey(GroupKey):
    """What every client derives from the shared key for one session; nobody else can. root: 32 bytes."""

    TAG = 2

    root: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes, session: Session) -> Self:
        return cls(derive(key, session.context, "session"))

    @property
    def secret(self) -> bytes:
        return self.root

    @property
    def check_key(self) -> bytes:
        return derive(self.root, b"", "check")

    @property
    def box_key(self) -> bytes:
        return derive(self.root, b"", "boxes")

    def ckks_secret(self, parameters: CKKSParameters) -> bytes:
        """Return the session's CKKS secret key, the same for every client."""
        seed = derive(self.root, b"", "ckks", 64)
        return ring(parameters.degree, parameters.modulus).secret_from_seed(seed)

    def encrypted(self, session: Session, index: int, vector: IntVector) -> EncryptedInput:
        """Return a client's contribution, under the secret key."""
        secret = self.ckks_secret(scheme(session))
        keys = self.box_key, self.check_key
        return contribution(session, index, keys, vector, lambda x, p, pad: encrypt_seeded(x, p, secret, pad))

    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        boxes = dict.fromkeys(range(session.clients), self.box_key)
        return opened(session, asked, boxes, self.check_key, self.ckks_secret(scheme(session)))


def pad_for(box_key: bytes, session: Session, index: int) -> Words:
    """Return client `index`'s pad of its ciphertexts. box_key: what it shares with whoever opens."""
    p = scheme(session)
    return pad_of(derive(box_key, session.context, f"pad {index}"), p.coefficients, p.modulus)


def check_pad(box_key: bytes, session: Session, index: int) -> Words:
    """Return client `index`'s pad of its check value, uint64 [checks]."""
    data = derive(box_key, session.context, f"check {index}", 8 * scheme(session).checks)
    return np.frombuffer(data, np.dtype("<u8"))


def contribution(
    session: Session,
    index: int,
    keys: tuple[bytes, bytes],
    vector: IntVector,
    encrypting: Callable[[IntVector, CKKSParameters, Words], Upload],
) -> EncryptedInput:
    """Return what client `index` sends. keys: what it shares with whoever opens; of check values."""
    parameters, (box_key, check_key) = scheme(session), keys
    coefficients = spread(vector, parameters)
    upload = encrypting(coefficients, parameters, pad_for(box_key, session, index))
    check = check_value(check_key, coefficients, parameters.checks) + check_pad(box_key, session, index)
    return EncryptedInput(replace(upload, checks=check.tobytes()).encode(), b"")


def opened(
    session: Session, asked: OpenRequest, boxes: Mapping[int, bytes], check_key: bytes, secret: bytes
) -> IntVector:
    """Return the sum of exactly the named clients' ciphertexts.

    boxes: what each client shares with whoever opens. Raises NotTheSum for other ciphertexts, ProtocolViolation for a
    client that did not take part.
    """
    if strangers := [str(client(i)) for i in asked.tickets if i not in boxes]:
        raise refuse(f"{strangers[0]} is in the sum but did not take part")
    parameters, clients, modulus = scheme(session), len(asked.tickets), int(session.modulus)
    total = decode(Sum, asked.ciphertexts, "server")
    with naming("server"):
        expected = check_words(total.checks, parameters).copy()
    for i in asked.tickets:
        expected -= check_pad(boxes[i], session, i)
    pads = (pad_for(boxes[i], session, i) for i in asked.tickets)
    try:
        coefficients = open_sum(total, parameters, clients, secret, pads)
    except ProtocolViolation as error:
        raise NotTheSum(str(error)) from None
    if not np.array_equal(check_value(check_key, coefficients, parameters.checks), expected):
        raise NotTheSum("the check values do not match: other ciphertexts than the named clients'")
    values = gather(coefficients, parameters, modulus)
    if modulus:
        return centred(values, modulus)
    if np.abs(values).max() > clients * session.bound:
        raise NotTheSum("out of the session's bounds: a client's input was")
    return values
