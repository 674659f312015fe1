"""Digests and signatures that pin a party to what it said. What does not belong here: when they are checked.

Every digest and every signed byte string starts with what it is for and with the session's context.
"""

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols.identity import Identity
from secagg.messages import DIGEST_BYTES, Commitments, Dealing

SEED, KEY = b"seed", b"key"
CERTIFY, DEAL, MASK = "secagg keys", "secagg dealing", "secagg masked input"


def share_digest(context: bytes, dealer: int, holder: int, kind: bytes, share: bytes) -> bytes:
    """Return 16 bytes that bind a dealer to one share (16 or 32 uniform bytes, so that the digest hides it).

    Sixteen suffice: finding another share for a digest takes 2^128 work, and a dealer that makes two shares
    of one digest blames itself, for its secret then fails its own commitment.
    """
    head = b"secagg share v1\0" + context + dealer.to_bytes(4, "big") + holder.to_bytes(4, "big")
    return hashlib.sha256(head + kind + b"\0" + share).digest()[:DIGEST_BYTES]


def seed_digest(context: bytes, dealer: int, seed: bytes) -> bytes:
    """Return 32 bytes that bind a dealer to its self-mask seed (32 uniform bytes)."""
    return hashlib.sha256(b"secagg seed v1\0" + context + dealer.to_bytes(4, "big") + seed).digest()


def edge_kind(peer: int) -> bytes:
    """Return the kind under which the share of an edge's seed is digested."""
    return b"edge" + peer.to_bytes(4, "big")


def edge_digest(context: bytes, owner: int, peer: int, seed: bytes) -> bytes:
    """Return 32 bytes that bind a client to an edge's seed (16 uniform bytes)."""
    head = b"secagg edge v1\0" + context + owner.to_bytes(4, "big") + peer.to_bytes(4, "big")
    return hashlib.sha256(head + seed).digest()


def part_commitment(context: bytes, index: int, part: bytes) -> bytes:
    """Return the commitment (32 bytes) of a client to its part (32 uniform bytes) of the graph's randomness."""
    return hashlib.sha256(b"secagg part v1\0" + context + index.to_bytes(4, "big") + part).digest()


def joint_seed(context: bytes, committed: Commitments, parts: bytes) -> bytes:
    """Return the graph's seed (32 bytes) from everybody's commitments and parts."""
    listed = committed.clients.astype(">u4").tobytes() + committed.commitments
    return hashlib.sha256(b"secagg joint v1\0" + context + hashlib.sha256(listed).digest() + parts).digest()


def certified_bytes(context: bytes, index: int, keys: bytes) -> bytes:
    """What an identity signs to certify a client's session keys."""
    return context + index.to_bytes(4, "big") + keys


def dealt_bytes(context: bytes, dealer: int, dealing: Dealing, vector: bytes | memoryview = b"") -> bytes:
    """What a dealer signs: its holders, boxes and digests, and the masked vector that they come with."""
    held = hashlib.sha256(dealing.holders.astype(">u4").tobytes() + dealing.boxes + dealing.digests).digest()
    head = context + dealer.to_bytes(4, "big") + held + dealing.pledges
    return head + hashlib.sha256(vector).digest() if vector else head


def masked_bytes(context: bytes, graph_seed: bytes, dealers: bytes, index: int) -> bytes:
    """What a client signs with its masked vector: the graph and the dealers that its masks rest on."""
    held = hashlib.sha256(graph_seed).digest() + hashlib.sha256(dealers).digest()
    return context + held + index.to_bytes(4, "big")


def view_facts(graph_seed: bytes, dealers: bytes, survivors: bytes) -> dict[str, bytes]:
    """What is agreed on before anything is opened (`protocols.agreement`): dealers and survivors as bits."""
    return {"graph": graph_seed, "dealers": dealers, "survivors": survivors}


def signer(private: bytes) -> Identity:
    """Return a client's signing key (32 secret bytes) as something that signs."""
    return Identity("session", Ed25519PrivateKey.from_private_bytes(private))
