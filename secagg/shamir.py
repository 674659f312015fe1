"""Shamir secret sharing over GF(2^16): t shares give the secret, t - 1 say nothing. What does not belong here: who
holds what.

Shamir, CACM 1979. A secret of any bytes is cut into 16-bit symbols, each the constant term of its own polynomial; a
share has the secret's length (rounded up to even). Holders are points 1 to 65,535. Products with secrets are computed
without tables or branches on them (each is a sum of public multiples); tables serve public points only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.errors import Misuse, ProtocolViolation, require
from protocols.randomness import SecureRandom
from secagg import field16

MAX_POINT = 65_535
Symbols = npt.NDArray[np.uint16]


def share_bytes(length: int) -> int:
    """Return the length of a share of a secret of `length` bytes."""
    return length + length % 2


def split_array(
    secret: bytes, threshold: int, points: npt.NDArray[Any], random: SecureRandom
) -> npt.NDArray[np.uint8]:
    """Return one share per point, as rows (len(points), share_bytes(len(secret))) uint8; any `threshold` of them give
    the secret back.

    secret: any byte string. points: distinct, from 1 to 65,535, at least `threshold` >= 1 of them. Raises Misuse
    otherwise.
    """
    places = _points(points, 1)
    require(1 <= threshold <= len(places), f"a threshold from 1 to {len(places)}", threshold)
    width = share_bytes(len(secret))
    material = bytearray(secret.ljust(width, b"\0") + random.bytes(width * (threshold - 1)))
    polynomials = np.frombuffer(material, dtype="<u2").reshape(threshold, width // 2)
    try:
        shares = field16.evaluate(polynomials, places)
    finally:
        material[:] = bytes(len(material))
    return shares.astype("<u2", copy=False).view(np.uint8).reshape(len(places), width)


def combine(shares: Mapping[int, bytes], length: int) -> bytes:
    """Return the secret of `length` bytes from exactly as many shares, by point, as the threshold asks for.

    Wrong shares give a wrong secret: check the result against a commitment. Raises Misuse for points out of range or no
    share, ProtocolViolation for shares of another length or a padding that is not zero.
    """
    for share in shares.values():
        if len(share) != share_bytes(length):
            raise ProtocolViolation(f"expected a share of {share_bytes(length)} bytes, got {len(share)}")
    table = np.frombuffer(b"".join(shares.values()), np.uint8).reshape(1, len(shares), share_bytes(length))
    return combine_arrays(np.array([list(shares)]), table, length)[0]


def combine_arrays(points: npt.NDArray[Any], tables: npt.NDArray[np.uint8], length: int) -> list[bytes]:
    """Return many secrets of one length: the shares (s, t, share_bytes(length)) of each lie at its points (s, t).

    The Lagrange coefficients (at zero) are computed once for the same points. As `combine`.
    """
    if not points.size:
        raise Misuse("expected at least one share and one secret")
    if tables.shape != (*points.shape, share_bytes(length)):
        raise Misuse(f"expected shares of shape {(*points.shape, share_bytes(length))}, got {tables.shape}")
    sets, which = np.unique(_points(points, 2), axis=0, return_inverse=True)
    symbols = np.ascontiguousarray(tables).view("<u2").astype(np.uint16, copy=False)
    secrets = field16.weighted(field16.lagrange(sets)[which.reshape(-1)], symbols)
    return [_secret(row, length) for row in secrets]


def _points(points: npt.NDArray[Any], rank: int) -> npt.NDArray[np.uint16]:
    places = np.asarray(points)
    if places.ndim != rank or (places.size and not (places.min() >= 1 and places.max() <= MAX_POINT)):
        raise Misuse(f"expected points from 1 to {MAX_POINT}")
    ordered = np.sort(places)
    require(not (ordered[..., 1:] == ordered[..., :-1]).any(), "distinct points", "one twice")
    return places.astype(np.uint16)


def _secret(symbols: Symbols, length: int) -> bytes:
    data = symbols.astype("<u2", copy=False).tobytes()
    if any(data[length:]):
        raise ProtocolViolation("the shares do not belong together: the padding of the secret is not zero")
    return data[:length]
