"""Boxes between two parties, or within a group that shares a key, that the server which relays them cannot
open.

What does not belong here: what is inside. X25519, HKDF-SHA256 over both public keys and the session,
AES-256-GCM with random nonces; the session and the sender are associated data, so that a box is good for
one place only.
"""

from protocols import sealing
from protocols.errors import require
from protocols.key_agreement import KEY_BYTES, exchange, public_key
from protocols.key_agreement import derive as hkdf
from protocols.randomness import SecureRandom


def expect_key(key: bytes) -> None:
    """Raises Misuse for what has not the length of an X25519 key."""
    require(len(key) == KEY_BYTES, f"an X25519 key of {KEY_BYTES} bytes", len(key))


def derive(secret: bytes, context: bytes, purpose: str, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a uniform or Diffie-Hellman secret, separated by session context and
    purpose.
    """
    info = b"secagg he v1\0" + len(context).to_bytes(4, "big") + context + purpose.encode()
    return hkdf(secret, None, info, length)


def agree(private: bytes, peer: bytes, context: bytes, purpose: str, peer_name: str) -> bytes:
    """Return the 32-byte key that both sides of an X25519 exchange derive for one session and purpose.

    Raises ProtocolViolation naming the peer for a public key that is none, or one of low order.
    """
    ends = b"".join(sorted((public_key(private), peer)))
    return derive(exchange(private, peer, peer_name), context + ends, purpose)


def seal(key: bytes, plain: bytes, context: bytes, sender: str, random: SecureRandom) -> bytes:
    """Return nonce and ciphertext, `OVERHEAD` bytes longer than `plain`, bound to the session and the
    sender's name.
    """
    return sealing.seal(key, plain, context + sender.encode(), random)


def unseal(key: bytes, box: bytes, context: bytes, sender: str) -> bytes:
    """Return what `seal` was given. Raises ProtocolViolation naming the sender for any other box."""
    return sealing.unseal(key, box, context + sender.encode(), sender)
