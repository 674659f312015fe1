"""Opening a sum, for whoever may: recognise it, decrypt it, give exact integers. No states or messages
belong here.

What is refused before the secret key is touched raises; what only decryption can tell ends the session with
a refusal, because its one bit depends on the key: an opener that could be asked again would leak it bit by
bit.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from he.ckks.check import check_value
from he.ckks.ciphertexts import Sum, open_sum
from he.ckks.digits import gather
from he.ckks.messages import Opened, Settings
from he.ckks.residues import pack, unpack_below
from he.sealing import unseal
from protocols.errors import PolicyRefusal, ProtocolViolation, WireError
from protocols.kernel import client
from protocols.session import Session
from protocols.summation import centred

IntVector = NDArray[np.int64]


def check_sums(
    boxes: Mapping[int, bytes], keys: Mapping[int, bytes], session: Session, least: int
) -> NDArray[np.uint64]:
    """Return the sum of the check values in the clients' boxes, uint64 [checks].

    keys: what each client's box is sealed with. Raises PolicyRefusal for fewer than `least` clients,
    ProtocolViolation for a client that may not be there or a box that does not open.
    """
    if len(boxes) < least:
        raise PolicyRefusal(
            f"contributions: at least {least} are demanded before a sum is opened, {len(boxes)} came"
        )
    total = np.zeros(Settings.decode(session.parameters).ckks.checks, np.uint64)
    for index, box in boxes.items():
        name = str(client(index))
        if index not in keys:
            raise ProtocolViolation(f"{name} is in the sum but did not take part", "server")
        plain = unseal(keys[index], box, session.context, name)
        if len(plain) != total.nbytes:
            raise ProtocolViolation(f"expected a check value of {total.nbytes} bytes", name)
        total += np.frombuffer(plain, np.dtype("<u8"))
    return total


def open_checked(
    total: Sum, clients: int, expected: NDArray[np.uint64], check_key: bytes, secret: bytes, session: Session
) -> Opened:
    """Return the sum of exactly the ciphertexts that the expected check values came from, or a refusal."""
    parameters = Settings.decode(session.parameters).ckks
    try:
        coefficients = open_sum(total, parameters, clients, secret)
    except ProtocolViolation as error:
        return Opened(b"", str(error))
    if not np.array_equal(check_value(check_key, coefficients, parameters.checks), expected):
        return Opened(
            b"", "the check values do not match: this is not the sum of the named clients' ciphertexts"
        )
    modulus = int(session.modulus)
    values = gather(coefficients, parameters, modulus)
    if modulus:
        return Opened(pack_total(centred(values, modulus), session))
    if np.abs(values).max() > clients * session.bound:
        return Opened(b"", "the sum is out of the session's bounds: a client's input was")
    return Opened(pack_total(values, session))


def pack_total(values: IntVector, session: Session) -> bytes:
    """Return a total as words of the fewest bits that the session's sums need."""
    limit, bits = _range(session)
    return pack(values.view(np.uint64) + np.uint64(limit), bits)


def taken(opened: Opened, session: Session, party: str) -> IntVector:
    """Return an answer's total, int64 [dimension].

    Raises WireError naming the party for one of another length or out of range.
    """
    limit, bits = _range(session)
    try:
        words = unpack_below(opened.total, session.dimension, bits, 2 * limit + 1)
    except WireError as error:
        raise WireError(f"the total: {error}", party) from None
    return (words - np.uint64(limit)).view(np.int64)


def _range(session: Session) -> tuple[int, int]:
    """Return the largest absolute value of a coordinate of the total, and the bits of what is sent for it."""
    limit = session.modulus // 2 if session.modulus else session.sum_bound
    return limit, min(64, max(1, (2 * limit).bit_length()))
