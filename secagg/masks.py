"""Masks: a seed's keystream, expanded block by block and added to (or taken from) a vector in place.

A mask is the keystream of AES-128 in counter mode (NIST SP 800-38A, 6.5), read as little-endian words, one per
coordinate and as wide as the ring's words. It is uniform over the word and so over the ring, for every number of bits:
reading exactly b bits per coordinate would save keystream, but cutting them apart costs more than making whole words.
What does not belong here: where seeds come from (`key_agreement`, `shamir`) and who adds what (`client`, `server`).

For other purposes (`expand`) HMAC-SHA256 of the purpose under a seed gives the cipher's key and its first counter
block, so that two purposes of one seed are two independent streams (Bonawitz et al., CCS 2017, section 3: PRG).

A mask's seed is 32 bytes: the key and the first counter block. It must be fresh for every (session, pair, stream),
since one seed gives one keystream. The derived counter block makes tables computed in advance for one fixed block
useless.
"""

import hmac
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from protocols.errors import Misuse
from secagg.ring import Words

SEED_BYTES = 32
"""Length of a mask seed: 16 bytes of AES key, then 16 bytes of first counter block."""

BLOCK_BYTES = 1 << 17
"""Keystream made at a time: stays in the second-level cache, and hides the cost of a call."""

TOGETHER = 16
"""Masks that are applied to one block of the vector before the next block."""

_DOMAIN = b"secagg stream v1\0"
_ZEROS = memoryview(bytes(BLOCK_BYTES))
_ROOM = 15
"""What `update_into` asks for beyond the length of its input."""


def add_mask(words: Words, seed: bytes) -> None:
    """Add the mask of `seed` to `words` (uint32 or uint64, any length) in place, modulo the word.

    Raises Misuse for a wrong seed length or array.
    """
    apply_masks(words, (seed,), ())


def apply_masks(words: Words, added: Sequence[bytes], taken: Sequence[bytes]) -> None:
    """Add the masks of the seeds `added` to `words` and take those of `taken` off, in place.

    A part of the vector meets many masks while it is in the cache. Needs memory for one block and `TOGETHER` ciphers,
    whatever the length and the number of seeds. Raises as `add_mask`, before anything is changed.
    """
    _check(words, (*added, *taken))
    if not len(words):
        return
    block = np.empty(min(BLOCK_BYTES, words.nbytes) + _ROOM, np.uint8)
    stream = block[:-_ROOM].view(words.dtype.newbyteorder("<"))
    for seeds, combine in ((added, np.add), (taken, np.subtract)):
        for start in range(0, len(seeds), TOGETHER):
            some = seeds[start : start + TOGETHER]
            ciphers = [Cipher(algorithms.AES(s[:16]), modes.CTR(s[16:])).encryptor() for s in some]
            _pass(words, ciphers, combine, block.data, stream)
    block.fill(0)  # keystream is as secret as its seed


def _pass(
    words: Words, ciphers: list[CipherContext], combine: np.ufunc, block: memoryview, stream: Words
) -> None:
    """Combine the words with the next bytes of each cipher, block by block."""
    for start in range(0, len(words), len(stream)):
        part = words[start : start + len(stream)]
        zeros, fresh = _ZEROS[: part.nbytes], stream[: len(part)]
        for cipher in ciphers:
            cipher.update_into(zeros, block)
            combine(part, fresh, out=part)


def _check(words: Words, seeds: Sequence[bytes]) -> None:
    for seed in seeds:
        if len(seed) != SEED_BYTES:
            raise Misuse(f"a mask seed has {SEED_BYTES} bytes, got {len(seed)}")
    if words.ndim != 1 or words.dtype not in (np.uint32, np.uint64):
        raise Misuse(f"masks apply to uint32 or uint64 vectors, got {words.dtype} of {words.ndim} dimensions")


def expand(seed: bytes, purpose: bytes, count: int) -> bytes:
    """Return the first `count` >= 0 bytes of the stream of (`seed`, `purpose`).

    seed: 16 to 64 secret bytes. purpose: any bytes; different ones give independent streams. Raises Misuse for another
    length, or a negative count.
    """
    if not 16 <= len(seed) <= 64 or count < 0:
        raise Misuse(
            f"expected a seed of 16 to 64 bytes and a count of at least 0, got {len(seed)} and {count}"
        )
    material = hmac.digest(seed, _DOMAIN + purpose, "sha256")
    return Cipher(algorithms.AES128(material[:16]), modes.CTR(material[16:])).encryptor().update(bytes(count))
