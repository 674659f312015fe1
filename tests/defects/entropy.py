"""Broken masked sums whose masks are there, but not everywhere, not fresh, or made of too little."""

import hashlib
from typing import Any

import numpy as np

from protocols.kernel import Message, Step
from protocols.key_agreement import PairKeys
from secagg import SecAgg, SecAggPlus, session_rules
from secagg.client import joining, sharing
from secagg.seeds import self_mask_seed
from tests.defects.masks import APPLY, apply_unless_empty, masked_by, seeded
from tests.defects.pieces import no_session
from tests.defects.planting import Defect, put, together

SEED = session_rules._seed
PLACES = ("secagg.client.masking", "secagg.server.unmasking", "secagg.audit_view")


def everywhere(name: str, new: Any) -> Any:
    """Seeds made by `new`, at the clients, the server and the witness; an empty seed is no mask."""
    return together(*(put(f"{place}.{name}", new) for place in PLACES), masked_by(apply_unless_empty))


def without_edge_2_3(own: PairKeys, peer: str, peer_key: bytes) -> bytes:
    return b"" if {own._owner, peer} == {"2", "3"} else own.agree(peer, peer_key, "pair mask")


def without_late_edges(own: PairKeys, peer: str, peer_key: bytes) -> bytes:
    """Clients from the seventh on do not mask with each other."""
    late = min(int(own._owner), int(peer)) >= 6
    return b"" if late else own.agree(peer, peer_key, "pair mask")


def not_for_client_3(seed: bytes, context: bytes, owner: str) -> bytes:
    return b"" if owner == "3" else self_mask_seed(seed, context, owner)


def reusing() -> SecAggPlus:
    return SecAggPlus(setup="reuse")


def of_the_roster_alone(parameters: Any, context: bytes, round: int) -> bytes:
    """Where keys are reused, the graph is that of the clients: of whoever was there in an earlier set-up."""
    return SEED(parameters, bytes(32) if parameters.reuse else context, round)


def low_half(words: Any, seed: bytes, sign: int) -> None:
    mask = np.zeros_like(words)
    APPLY(mask, seed, 1)
    mask &= np.array(0xFFFFFFFF, words.dtype)
    np.add(words, mask if sign == 1 else -mask, out=words)


def one_bit_of_a_word(words: Any, seed: bytes, sign: int) -> None:
    """Every other value is never a mask: the lowest bit of an input shows."""
    mask = np.zeros_like(words)
    APPLY(mask, seed, 1)
    mask &= np.array(~np.uint64(1)).astype(words.dtype)
    np.add(words, mask if sign == 1 else -mask, out=words)


class OfTheRound:
    """Randomness that follows from a number and a client alone."""

    def __init__(self, *of: int) -> None:
        self.of, self.count = of, 0

    def bytes(self, count: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(repr((self.of, self.count)).encode()).digest(count)


MAKE_KEYS, SHARING_RECEIVE = joining.make_keys, sharing.Sharing.receive


def again_after(rounds: int) -> Any:
    """All secrets of a session follow from its round modulo `rounds`, and no session enters a key."""

    def make_keys(session: Any, index: int, identity: Any, random: Any) -> Any:
        return MAKE_KEYS(session, index, identity, OfTheRound(session.round % rounds, index))

    def receive(self: Any, request: Message, random: Any) -> Step:
        return SHARING_RECEIVE(self, request, OfTheRound(self.session.round % rounds, self.index))

    return together(
        put("secagg.client.joining.make_keys", make_keys),
        put("secagg.client.sharing.Sharing.receive", receive),
        put("protocols.key_agreement.derive", no_session),
        put("secagg.seeds.derive", no_session),
    )


def key_of_16_bits(random: Any) -> bytes:
    return hashlib.sha256(random.bytes(2)).digest()


def key_of_two_bytes_of_its_draw(random: Any) -> bytes:
    return hashlib.sha256(random.bytes(32)[:2]).digest()


class Stingy:
    """A source that makes 32 bytes of two."""

    def __init__(self, random: Any) -> None:
        self.random = random

    def bytes(self, count: int) -> bytes:
        if count != 32:
            return self.random.bytes(count)
        return hashlib.sha256(self.random.bytes(2)).digest()


def stingy_seed(self: Any, request: Message, random: Any) -> Step:
    return SHARING_RECEIVE(self, request, Stingy(random))


def seed_of_16_bits(seed: bytes) -> bytes:
    """Every bit of the seed matters, and two bytes are left of them all."""
    return hashlib.sha256(hashlib.sha256(seed).digest()[:2]).digest()


DEFECTS = (
    Defect(
        "missing pairwise mask for a late edge",
        "hidden-from-insiders",
        everywhere("pair_seed", without_edge_2_3),
        SecAgg,
    ),
    Defect(
        "missing self mask of one client",
        "masked-after-unmasking",
        everywhere("self_mask_seed", not_for_client_3),
        SecAgg,
    ),
    Defect(
        "masks of 32 bits in a wider ring",
        "uniform-over-the-ring",
        masked_by(low_half),
        SecAgg,
    ),
    Defect(
        "masks that leave the lowest bit open",
        "views-indistinguishable",
        masked_by(one_bit_of_a_word),
        SecAgg,
    ),
    Defect(
        "missing pairwise masks in a larger cohort",
        "hidden-in-its-component",
        everywhere("pair_seed", without_late_edges),
        SecAggPlus,
    ),
    Defect(
        "one graph in every session",
        "hidden-in-its-component",
        put("secagg.session_rules._seed", lambda *_: bytes(32)),
        SecAggPlus,
    ),
    Defect(
        "one graph in every set-up",
        "hidden-in-its-component",
        put("secagg.session_rules._seed", of_the_roster_alone),
        reusing,
    ),
    Defect("mask reused after three rounds", "fresh-masks", again_after(3), SecAgg),
    Defect("mask reused on a retry", "fresh-masks", again_after(1000), SecAgg),
    Defect(
        "keys made of 16 bits",
        "secrets-are-drawn-in-full",
        put("secagg.client.keys.generate", key_of_16_bits),
        SecAgg,
    ),
    Defect(
        "keys made of two bytes of their draw",
        "secrets-are-drawn-in-full",
        put("secagg.client.keys.generate", key_of_two_bytes_of_its_draw),
        SecAgg,
    ),
    Defect(
        "self-mask seeds made of 16 bits",
        "secrets-are-drawn-in-full",
        put("secagg.client.sharing.Sharing.receive", stingy_seed),
        SecAgg,
    ),
    Defect("seeds hashed to 16 bits", "streams-do-not-collide", seeded(seed_of_16_bits), SecAgg),
)
