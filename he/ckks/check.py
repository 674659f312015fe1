"""The check value that lets an opener recognise a sum: a secret linear function of the coefficients. No
encryption belongs here.

Whoever opens (the key holder, or a client that shares the key) must not be an oracle: it opens the sum of
the ciphertexts that the clients made, and nothing else. The server could send one client's ciphertext, re-
randomise it, add one to a sum, shift or multiply it: ciphertexts are malleable. So every client computes,
over the coefficients x it encrypts (its random tags included),

    t = (r1 . x, r2 . x, ...) modulo 2^64

with vectors r of uniform 64-bit words that the server does not know, and sends t sealed to the opener. The
opener decrypts to X and compares r . X with the sum of the t. If a server ends up at X + d instead, d != 0
independent of r and |d| < 2^k, one word matches with probability 2^-(64-k) at most, since r . d is uniform on
the multiples of the power of two that divides d. `CKKSParameters.checks` words make that less than 2^-80.

The tags, 96 random bits in every client's coefficients, keep t unpredictable for a server that learnt r from
a client: to have any other X accepted it must guess the honest clients' tag sums.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32
_BLOCK = 1 << 16


def check_value(key: bytes, coefficients: NDArray[np.int64], rows: int) -> NDArray[np.uint64]:
    """Return t, uint64 [rows]. The words r are AES-256-CTR's stream under `key` (32 bytes, one session's)."""
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    words = coefficients.view(np.uint64)
    result = np.zeros(rows, np.uint64)
    zeros = bytes(8 * rows * _BLOCK)
    for at in range(0, len(words), _BLOCK):
        part = words[at : at + _BLOCK]
        r = np.frombuffer(stream.update(zeros[: 8 * rows * len(part)]), np.dtype("<u8")).reshape(
            rows, len(part)
        )
        result += (r * part).sum(axis=1, dtype=np.uint64)
    return result
