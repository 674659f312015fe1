"""Seeds of masks, derived from what parties hold. What does not belong here: expanding them (`masks`).

Each seed (32 bytes) is for one session, one pair or one client, one purpose; the session's context is HKDF's salt.
"""

from protocols.key_agreement import PairKeys, derive, info


def self_mask_seed(seed: bytes, context: bytes, owner: str) -> bytes:
    """Return the mask seed of a client's own mask, from the secret that it shared."""
    return derive(seed, context, info("self mask", owner, owner))


def pair_seed(own: PairKeys, peer: str, peer_key: bytes) -> bytes:
    """Return the mask seed that two clients share. Raises ProtocolViolation for an unusable key."""
    return own.agree(peer, peer_key, "pair mask")


def edge_mask_seed(edge: bytes, context: bytes, one: str, other: str) -> bytes:
    """Return the mask seed of an edge in a round that builds on a set-up, from the 16 secret bytes that
    both ends derive.
    """
    return derive(edge, context, info("edge mask", one, other))
