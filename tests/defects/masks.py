"""Broken masks: how they are made, from what, and how often."""

import hashlib
import itertools
from typing import Any

import numpy as np

from protocols.key_agreement import PairKeys
from secagg import SecAgg, masks
from secagg.packing import pack
from tests.defects.pieces import no_session
from tests.defects.planting import Defect, put, together

ORIGINAL = masks.apply_masks


def APPLY(words: Any, seed: bytes, sign: int) -> None:  # the good generator, for one seed
    ORIGINAL(words, (seed,) if sign == 1 else (), (seed,) if sign == -1 else ())


def masked_by(one: Any) -> Any:
    """The mask generator replaced by one(words, seed, sign), wherever masks are applied."""

    def apply_masks(words: Any, added: Any, taken: Any) -> None:
        for seed in added:
            one(words, seed, 1)
        for seed in taken:
            one(words, seed, -1)

    places = ("secagg.masks", "secagg.client.masking", "secagg.server.unmasking", "secagg.audit_view")
    return together(*(put(f"{place}.apply_masks", apply_masks) for place in places))


def seeded(change: Any) -> Any:
    """The mask generator with another way to use its seed."""

    def apply(words: Any, seed: bytes, sign: int) -> None:
        APPLY(words, change(seed), sign)

    return masked_by(apply)


def short_seed(seed: bytes) -> bytes:
    return hashlib.sha256(seed[:4]).digest()


def folded_seed(seed: bytes) -> bytes:
    words = np.frombuffer(seed, np.uint32)
    return hashlib.sha256(np.bitwise_xor.reduce(words).tobytes()).digest()


def numpy_stream(words: Any, seed: bytes, sign: int) -> None:
    mask = np.random.default_rng(np.frombuffer(seed, np.uint32)).integers(0, 1 << 32, len(words), np.uint64)
    np.add(words, (sign * mask.astype(np.int64)).astype(words.dtype), out=words)


def one_short(words: Any, ring: Any) -> bytes:
    return pack((words % np.array(ring.modulus - 1, words.dtype)).astype(words.dtype), ring)


def one_for_all(words: Any, seed: bytes, sign: int) -> None:
    single = np.zeros(1, words.dtype)
    APPLY(single, seed, sign)
    np.add(words, single[0], out=words)


def restarts_at_the_middle(words: Any, seed: bytes, sign: int) -> None:
    """Two vectors of one round under one mask: the second half again uses the first's."""
    half = len(words) // 2
    APPLY(words[:half], seed, sign)
    APPLY(words[half:], seed, sign)


def skewed_stream(words: Any, seed: bytes, sign: int) -> None:
    mask = np.zeros_like(words)
    APPLY(mask, seed, 1)
    np.add(words, mask & (mask >> 1) if sign == 1 else -(mask & (mask >> 1)), out=words)


CALLS = itertools.count()


def fixed_keys(random: Any) -> bytes:
    """Keys that every session of three clients uses again: two for each, in the order they are asked for."""
    return hashlib.sha256(b"the same in every round %d" % (next(CALLS) % 6)).digest()


def no_self_mask(seed: bytes, context: bytes, owner: str) -> bytes:
    return b""


def apply_unless_empty(words: Any, seed: bytes, sign: int) -> None:
    if seed:
        APPLY(words, seed, sign)


def without_edge(own: PairKeys, peer: str, peer_key: bytes) -> bytes:
    """The edge between clients 0 and 1 has no mask."""
    if {own._owner, peer} == {"0", "1"}:
        return b""
    return own.agree(peer, peer_key, "pair mask")


def raw_exchange(self: PairKeys, peer: str, peer_public: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))


DEFECTS = (
    Defect("32-bit seeds", "seeds-carry-full-entropy", seeded(short_seed), SecAgg),
    Defect("seeds folded to 32 bits", "seeds-carry-full-entropy", seeded(folded_seed), SecAgg),
    Defect(
        "masks from a statistical generator",
        "no-statistical-generators",
        masked_by(numpy_stream),
        SecAgg,
    ),
    Defect(
        "range one short of the modulus",
        "uniform-over-the-ring",
        put("secagg.client.masking.pack", one_short),
        SecAgg,
    ),
    Defect("a skewed stream", "stream-is-uniform", masked_by(skewed_stream), SecAgg),
    Defect("one mask for all coordinates", "fresh-masks", masked_by(one_for_all), SecAgg),
    Defect(
        "one mask for two vectors of a round",
        "fresh-masks",
        masked_by(restarts_at_the_middle),
        SecAgg,
    ),
    Defect(
        "mask reused between rounds",
        "fresh-masks",
        together(
            put("secagg.client.keys.generate", fixed_keys),
            put("protocols.key_agreement.derive", no_session),
            put("secagg.seeds.derive", no_session),
        ),
        SecAgg,
    ),
    Defect(
        "missing self mask",
        "masked-after-unmasking",
        together(
            put("secagg.client.masking.self_mask_seed", no_self_mask),
            put("secagg.server.unmasking.self_mask_seed", no_self_mask),
            put("secagg.audit_view.self_mask_seed", no_self_mask),
            masked_by(apply_unless_empty),
        ),
        SecAgg,
    ),
    Defect(
        "missing pairwise mask for one edge",
        "hidden-from-insiders",
        together(
            put("secagg.client.masking.pair_seed", without_edge),
            put("secagg.server.unmasking.pair_seed", without_edge),
            put("secagg.audit_view.pair_seed", without_edge),
            masked_by(apply_unless_empty),
        ),
        SecAgg,
    ),
    Defect(
        "raw Diffie-Hellman as key",
        "context-enters-masks",
        together(
            put("protocols.key_agreement.PairKeys.agree", raw_exchange),
            put("secagg.seeds.derive", no_session),
        ),
        SecAgg,
    ),
    Defect(
        "no session in the key derivation",
        "context-enters-masks",
        together(put("protocols.key_agreement.derive", no_session), put("secagg.seeds.derive", no_session)),
        SecAgg,
    ),
)
