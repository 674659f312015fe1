"""The cryptographic stream behind every mask: AES-128 in counter mode. What does not belong here: adding
it to vectors.

A seed enters at its full width: HMAC-SHA256 of the purpose under the seed gives the cipher's key and its
first counter block, so that two purposes of one seed are two independent streams (Bonawitz et al., CCS 2017,
section 3: PRG).
"""

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from protocols.errors import Misuse

SEED_BYTES = 32
_DOMAIN = b"secagg stream v1\0"
_BLOCK = 1 << 20


def keystream(seed: bytes, purpose: bytes) -> CipherContext:
    """Return a cipher context whose output on zero bytes is the stream of (`seed`, `purpose`).

    seed: 16 to 64 secret bytes. purpose: any bytes; different ones give independent streams. Raises Misuse
    for a short seed.
    """
    if not 16 <= len(seed) <= 64:
        raise Misuse(f"expected a seed of 16 to 64 bytes, got {len(seed)}")
    material = hmac.digest(seed, _DOMAIN + purpose, "sha256")
    return Cipher(algorithms.AES128(material[:16]), modes.CTR(material[16:])).encryptor()


def expand(seed: bytes, purpose: bytes, count: int) -> bytes:
    """Return the first `count` >= 0 bytes of the stream. Raises Misuse for a negative count."""
    if count < 0:
        raise Misuse(f"expected a count of at least 0, got {count}")
    stream = keystream(seed, purpose)
    pieces = [stream.update(bytes(min(_BLOCK, count - at))) for at in range(0, count, _BLOCK)]
    return b"".join(pieces)
