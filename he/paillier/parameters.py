"""The public parameters of a Paillier session: which key, which slots, and why no carry crosses. No
ciphertexts belong here.

Everything follows from public facts, so every party derives it again and refuses a session that says
otherwise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he.arrangements import Arrangement, Threshold
from he.packing import Packing, Values
from he.paillier.keyring import Keyring
from he.roles.scheme import parameters
from protocols.codec import Record
from protocols.errors import Misuse
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import IntVector, centred, representatives

RESERVED_BITS = 64  # low bits of a plaintext that hold nothing but tags, where one party opens
HIDING_BITS = 64  # what the multiples of M hide about wraps differs from nothing by at most 2^-64 per session


@dataclass(frozen=True)
class PaillierParameters(Record):
    """key: digest (32 bytes) of the public key material. width, slots, reserved: the packing. wrap_bits: length of
    the random multiples of M that hide how often coordinates wrapped (0: none needed). exponent_bits: length
    of the randomisers' exponents. corrupt: most decryptors that may collude with the server.
    """

    key: bytes
    width: int
    slots: int
    reserved: int
    wrap_bits: int
    exponent_bits: int
    corrupt: int = 0

    def __post_init__(self) -> None:
        if len(self.key) != 32 or min(self.width, self.slots) < 1 or min(self.reserved, self.wrap_bits) < 0:
            raise Misuse("expected a key digest of 32 bytes and a packing of at least one slot of one bit")

    @property
    def packing(self) -> Packing:
        return Packing(self.width, self.slots, self.reserved)


def scheme(session: Session) -> PaillierParameters:
    """Return Paillier's part of a session's parameters. Raises WireError if it does not decode."""
    return PaillierParameters.decode(parameters(session).scheme)


def choose(
    arrangement: Arrangement,
    keys: Keyring,
    exponent_bits: int,
    clients: int,
    dimension: int,
    bound: int,
    modulus: int,
) -> PaillierParameters:
    """Return the parameters of a session: slots in which the sum over the whole cohort fits.

    Raises CapacityError where the key is too short for one slot.
    """
    largest, wrap_bits = modulus // 2 if modulus else bound, 0
    if modulus and isinstance(arrangement, Threshold):
        # Whoever combines sees the sum over Z; each client adds u M, u uniform below 2^wrap_bits, so that
        # it says nothing about wraps.
        wrap_bits = HIDING_BITS + clients.bit_length() + dimension.bit_length()
        largest = modulus << wrap_bits
    reserved = 0 if isinstance(arrangement, Threshold) else RESERVED_BITS
    # |sum| < 2^(bits - 3) < n / 3: within (-n/2, n/2), and within the range that phe takes for numbers.
    packing = Packing.fit(keys.encryption.bits - 2, clients * largest, dimension, reserved)
    return PaillierParameters(
        keys.digest,
        packing.width,
        packing.slots,
        packing.reserved,
        wrap_bits,
        exponent_bits,
        arrangement.corrupt if isinstance(arrangement, Threshold) else 0,
    )


def digits_of(
    vector: IntVector, session: Session, wrap_bits: int, random: SecureRandom
) -> Values | list[int]:
    """Return what a client packs: its vector over Z, representatives in [-M/2, M/2) over Z_M, with random
    multiples of M if asked.
    """
    modulus = int(session.modulus)
    reduced = representatives(vector, modulus)
    if not wrap_bits:
        return reduced
    size = (wrap_bits + 7) // 8
    data, mask = random.bytes(size * len(reduced)), (1 << wrap_bits) - 1
    multiples = [int.from_bytes(data[i : i + size], "big") & mask for i in range(0, len(data), size)]
    return [value + modulus * u for value, u in zip(reduced.tolist(), multiples, strict=True)]


def total_of(digits: Values, session: Session) -> NDArray[np.int64]:
    """Return the sum as the session wants it: reduced modulo M where the group is Z_M. Nothing else leaves
    whoever opens.
    """
    modulus = int(session.modulus)
    if not modulus:
        return digits.astype(np.int64)
    if digits.dtype == object:
        return centred(np.array([int(x) % modulus for x in digits], np.uint64), modulus)
    return representatives(digits.astype(np.int64, copy=False), modulus)
