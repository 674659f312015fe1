"""Integer vectors as polynomials' coefficients: limbs, scale, and back; pads; and the check value that lets an opener
recognise a sum. No encryption belongs here.

Coefficients in use are the first limb of every value, then the second; zeros fill the last polynomial.

Whoever opens (the key holder, or a client that shares the key) must not be an oracle: it opens the sum of the
ciphertexts that the clients made, and nothing else. Ciphertexts are malleable, and a server may change any one of
a vector's by itself: replace it by a guess, send it twice, multiply it. So every client adds a *pad* to the first half
of its ciphertexts: a residue modulo q per coefficient, uniform, from a seed that it shares with the opener alone. The
opener takes away the pads of exactly the named clients. To the server c + pad is uniform, whatever was encrypted; of
any words F that it sends to be opened, F - sum(pad) = (F - sum(c + pad)) + sum(c) is the honest sum's first half,
shifted by what the server knows. So what is decrypted, and whether it passes any check, tells the honest sum at most.

Every client computes, over the coefficients x it encrypts,

    t = (r1 . x, r2 . x, ...) modulo 2^64

with vectors r of uniform 64-bit words that the server does not know, and sends t with a pad of its own, uniform modulo
2^64. The server adds these, too; so the opener, who knows r, sees no single client's t. It takes away the pads,
decrypts to X and compares r . X with the sum of the t. If a server ends up at X + d instead, d != 0 independent of r
and |d| < 2^k, one word matches with probability 2^-(64-k) at most, whatever the server adds to the sum of the t, since
r . d is uniform on the multiples of the power of two that divides d. `CKKSParameters.checks` words make that less than
2^-80.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from he.ckks.parameters import CKKSParameters
from he.residues import Words

IntVector = NDArray[np.int64]


def spread(vector: IntVector, parameters: CKKSParameters) -> IntVector:
    """Return the coefficients in use, int64 [parameters.coefficients], each in [-digit_bound, digit_bound]."""
    return np.concatenate(limbs_of(vector, parameters))


def limbs_of(vector: IntVector, parameters: CKKSParameters) -> list[IntVector]:
    """Return the balanced digits of every value, lowest first. No step overflows, at either end of int64."""
    width, rest, result = np.int64(parameters.limb_bits), vector, []
    for _ in range(parameters.limbs - 1):
        upper = (rest >> width) + ((rest >> (width - 1)) & 1)
        result.append(rest - (upper << width))
        rest = upper
    return [*result, rest]


def gather(sums: IntVector, parameters: CKKSParameters, modulus: int) -> IntVector:
    """Return the values of summed coefficients: exact modulo 2^64 where `modulus` is 0 or a
    power of two.

    Else residues in [0, modulus). Over Z the sum fits in int64, so modulo 2^64 is exact.
    """
    limbs = sums.reshape(parameters.limbs, parameters.dimension)
    if modulus & (modulus - 1) == 0:
        words = np.zeros(parameters.dimension, np.uint64)
        for i, limb in enumerate(limbs):
            words += limb.view(np.uint64) << np.uint64(i * parameters.limb_bits)
        return words.view(np.int64)
    total: IntVector = np.mod(limbs[-1], modulus)
    for limb in limbs[-2::-1]:
        for _ in range(parameters.limb_bits):  # total < modulus <= 2^62, so doubling fits
            total = np.mod(total << 1, modulus)
        total = np.mod(total + np.mod(limb, modulus), modulus)
    return total


def scaled(coefficients: IntVector, parameters: CKKSParameters) -> Words:
    """Return coefficients x scale as residues modulo q."""
    words = coefficients * np.int64(parameters.scale)  # |digit| x scale < q / 2 < 2^59
    words += (words >> np.int64(63)) & np.int64(parameters.modulus)
    return words.view(np.uint64)


KEY_BYTES = 32
_BLOCK = 1 << 16


def _stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()


def pad_of(seed: bytes, count: int, modulus: int) -> Words:
    """Return `count` residues, uniform modulo q: AES-256-CTR's stream under `seed` (32 bytes, used once), in words of
    q's bits; those that are not below q are passed over.
    """
    stream, mask = _stream(seed), np.uint64((1 << modulus.bit_length()) - 1)
    found: Words = np.empty(0, np.uint64)
    while (missing := count - len(found)) > 0:
        words = np.frombuffer(stream.update(bytes(8 * missing)), np.dtype("<u8")) & mask
        found = np.concatenate([found, words[words < np.uint64(modulus)]])
    return found


def check_value(key: bytes, coefficients: NDArray[np.int64], rows: int) -> NDArray[np.uint64]:
    """Return t, uint64 [rows]. The words r are AES-256-CTR's stream under `key` (32 bytes, one session's)."""
    stream, words = _stream(key), coefficients.view(np.uint64)
    result = np.zeros(rows, np.uint64)
    zeros = bytes(8 * rows * _BLOCK)
    for at in range(0, len(words), _BLOCK):
        part = words[at : at + _BLOCK]
        r = np.frombuffer(stream.update(zeros[: 8 * rows * len(part)]), np.dtype("<u8"))
        result += (r.reshape(rows, len(part)) * part).sum(axis=1, dtype=np.uint64)
    return result
