"""Tags: why a key holder is no decryption oracle. What does not belong here: keys, states.

A client adds to every plaintext a tag of its own: a residue modulo n, uniform over its whole range,
expanded from a seed that only it and whoever opens the sum know. The low 64 bits of a plaintext are
reserved for nothing else. The opener decrypts, takes away the sum of the tags of exactly the clients named
in the request, and demands that the reserved bits are zero and the rest lies within its slots. Of any other
ciphertext, such as one client's, the same re-randomised, or the sum with one left out or doubled, what is
left is uniform modulo n: it fails but with probability 2^-64, and even then shows nothing.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from he import sealing
from he.paillier.cipher import centre
from he.roles.recipients import PURPOSE

RESERVED_BITS = 64
SEED_BYTES = 32
_EXTRA_BYTES = 16  # 128 bits more than n make a residue statistically uniform


def seed_for_holder(private: bytes, holder: bytes, context: bytes, index: int) -> bytes:
    """Return client `index`'s seed: what both ends of an X25519 exchange derive from its fresh key and the
    holder's.

    The client calls it with its own private key and the holder's public one, the holder with its private
    key and the client's public one. Raises ProtocolViolation naming the client for a public key of low
    order.
    """
    return sealing.agree(private, holder, context, f"tag {index}", f"client {index}")


class Tagging(NamedTuple):
    """What a client's tags come from. public: its fresh key, which goes with its ticket (empty: none). seed: of the
    tags (empty: none). box_key: for what the key holder seals to it (empty: nothing).
    """

    public: bytes
    seed: bytes
    box_key: bytes


def tag_for_holder(private: bytes, holder: bytes, context: bytes, index: int) -> Tagging:
    """Return client `index`'s tagging from its fresh private key and the holder's public one, 32 bytes each."""
    box_key = sealing.agree(private, holder, context, PURPOSE, "key-holder")
    return Tagging(sealing.public_key(private), seed_for_holder(private, holder, context, index), box_key)


def seed_in_group(secret: bytes, context: bytes, index: int) -> bytes:
    """Return client `index`'s seed where all clients share a secret that the server does not have."""
    return sealing.derive(secret, context, f"tag {index}")


def expand(seed: bytes, count: int, n: int) -> list[int]:
    """Return `count` residues modulo n: the AES-256-CTR key stream of a seed that is used once."""
    size = (n.bit_length() + 7) // 8 + _EXTRA_BYTES
    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(count * size))
    return [int.from_bytes(stream[i : i + size], "big") % n for i in range(0, len(stream), size)]


def add_tags(plaintexts: Sequence[int], seed: bytes, n: int) -> list[int]:
    """Return the plaintexts with the tags of `seed`, modulo n."""
    return [(m + tag) % n for m, tag in zip(plaintexts, expand(seed, len(plaintexts), n), strict=True)]


def remove_tags(opened: Sequence[int], seeds: Iterable[bytes], n: int) -> list[int]:
    """Return what is left, in (-n/2, n/2), when the tags of all `seeds` are taken away. Nothing is checked
    yet.
    """
    left = list(opened)
    for seed in seeds:
        left = [value - tag for value, tag in zip(left, expand(seed, len(left), n), strict=True)]
    return [centre(value % n, n) for value in left]
