"""What the roles need of CKKS: how the server adds, how a sum is recognised and opened by a key holder or by a client
that shares the key. What does not belong here: states, ciphertexts' mathematics (`ciphertexts`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from he.ckks.ciphertexts import Adder, Sum, Upload, encrypt_seeded, open_sum
from he.ckks.coefficients import KEY_BYTES, check_value, gather, pad_of, spread
from he.ckks.keys import Context
from he.ckks.parameters import CKKSParameters, scheme
from he.ckks.seal import ring
from he.residues import Words
from he.roles.messages import EncryptedInput, OpenRequest, decode
from he.roles.recipients import PURPOSE
from he.roles.scheme import Accumulator, GroupKey, HeldKey, NotTheSum
from he.sealing import agree, derive, public_key, seal, unseal
from protocols.codec import Record
from protocols.errors import ProtocolViolation
from protocols.kernel import client
from protocols.randomness import SecureRandom
from protocols.roles import naming
from protocols.session import Session
from protocols.summation import IntVector, centred


@dataclass(frozen=True, eq=False)
class CKKSAccumulator(Accumulator):
    """Adds uploads; needs no key."""

    TAG: ClassVar[int | None] = 2

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
    """clients: the X25519 keys of those that joined. A ticket is a client's check value, sealed."""

    TAG: ClassVar[int | None] = 2

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

    TAG: ClassVar[int | None] = 2

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

    def encrypted(
        self, session: Session, index: int, vector: IntVector, random: SecureRandom
    ) -> EncryptedInput:
        """Return a client's contribution, under the secret key."""
        parameters = scheme(session)
        coefficients = spread(vector, parameters, random)
        check = check_value(self.check_key, coefficients, parameters).tobytes()
        box = seal(self.box_key, check, session.context, str(client(index)), random)
        pad = pad_for(self.box_key, session, index)
        ciphertexts = encrypt_seeded(coefficients, parameters, self.ckks_secret(parameters), pad)
        return EncryptedInput(ciphertexts.encode(), box)

    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        boxes = dict.fromkeys(range(session.clients), self.box_key)
        return opened(session, asked, boxes, self.check_key, self.ckks_secret(scheme(session)))


def pad_for(box_key: bytes, session: Session, index: int) -> Words:
    """Return client `index`'s pad. box_key: what it seals its check value with."""
    parameters = scheme(session)
    seed = derive(box_key, session.context, f"pad {index}")
    return pad_of(seed, parameters.coefficients, parameters.modulus)


def summed_checks(
    boxes: Mapping[int, bytes], keys: Mapping[int, bytes], session: Session
) -> NDArray[np.uint64]:
    """Return the sum of the check values in the clients' boxes, uint64 [checks].

    keys: what each client's box is sealed with. Raises ProtocolViolation for a client that may not be there or a box
    that does not open.
    """
    total = np.zeros(scheme(session).checks, np.uint64)
    for index, box in boxes.items():
        name = str(client(index))
        if index not in keys:
            raise ProtocolViolation(f"{name} is in the sum but did not take part", "server")
        plain = unseal(keys[index], box, session.context, name)
        if len(plain) != total.nbytes:
            raise ProtocolViolation(f"expected a check value of {total.nbytes} bytes", name)
        total += np.frombuffer(plain, np.dtype("<u8"))
    return total


def opened(
    session: Session, asked: OpenRequest, boxes: Mapping[int, bytes], check_key: bytes, secret: bytes
) -> IntVector:
    """Return the sum of exactly the ciphertexts that the check values in the clients' boxes came from.

    boxes: the keys of the boxes. Raises NotTheSum for other ciphertexts, ProtocolViolation as `summed_checks` does.
    """
    expected = summed_checks(asked.tickets, boxes, session)
    parameters, clients, modulus = scheme(session), len(asked.tickets), int(session.modulus)
    try:
        pads = (pad_for(boxes[i], session, i) for i in asked.tickets)
        total = decode(Sum, asked.ciphertexts, "server")
        coefficients = open_sum(total, parameters, clients, secret, pads)
    except ProtocolViolation as error:
        raise NotTheSum(str(error)) from None
    if not np.array_equal(check_value(check_key, coefficients, parameters), expected):
        raise NotTheSum("the check values do not match: other ciphertexts than the named clients'")
    values = gather(coefficients, parameters, modulus)
    if modulus:
        return centred(values, modulus)
    if np.abs(values).max() > clients * session.bound:
        raise NotTheSum("out of the session's bounds: a client's input was")
    return values
