"""Digests and signatures that pin a client to what it deposits. What does not belong here: when they are
checked.
"""

import hashlib

from secagg.reuse.messages import Deposit

DEPOSIT = "secagg deposit"


def edge_kind(peer: int) -> bytes:
    """Return the kind under which the share of an edge's seed is digested (`commitments.share_digest`)."""
    return b"edge" + peer.to_bytes(4, "big")


def edge_digest(context: bytes, owner: int, peer: int, seed: bytes) -> bytes:
    """Return 32 bytes that bind a client to an edge's seed (16 uniform bytes)."""
    head = b"secagg edge v1\0" + context + owner.to_bytes(4, "big") + peer.to_bytes(4, "big")
    return hashlib.sha256(head + seed).digest()


def deposit_bytes(context: bytes, index: int, body: Deposit) -> bytes:
    """What a client signs: everything in its deposit."""
    parts = (body.vector, body.boxes, body.digests, body.pledges, body.input)
    held = b"".join(hashlib.sha256(part).digest() for part in parts)
    return context + index.to_bytes(4, "big") + held
