"""Boxes between two parties, or within a group that shares a key, that the server which relays them cannot
open.

What does not belong here: what is inside. X25519, HKDF-SHA256 over both public keys and the session,
AES-256-GCM with random nonces; the session and the sender are associated data, so that a box is good for
one place only.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.errors import ProtocolViolation
from protocols.randomness import SecureRandom

KEY_BYTES, NONCE_BYTES = 32, 12
OVERHEAD = NONCE_BYTES + 16


def public_key(private: bytes) -> bytes:
    """Return the X25519 public key (32 bytes) of 32 uniform private bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def derive(secret: bytes, context: bytes, purpose: str, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a uniform or Diffie-Hellman secret, separated by session context and
    purpose.
    """
    info = b"secagg he v1\0" + len(context).to_bytes(4, "big") + context + purpose.encode()
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def agree(private: bytes, peer: bytes, context: bytes, purpose: str, peer_name: str) -> bytes:
    """Return the 32-byte key that both sides of an X25519 exchange derive for one session and purpose.

    Raises ProtocolViolation naming the peer for a public key that is none, or one of low order.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(peer)
        )
    except ValueError:
        raise ProtocolViolation(
            f"expected an X25519 public key of full order from {peer_name}", peer_name
        ) from None
    ends = b"".join(sorted((public_key(private), peer)))
    return derive(shared, context + ends, purpose)


def seal(key: bytes, plain: bytes, context: bytes, sender: str, random: SecureRandom) -> bytes:
    """Return nonce and ciphertext, `OVERHEAD` bytes longer than `plain`, bound to the session and the
    sender's name.
    """
    nonce = random.bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context + sender.encode())


def unseal(key: bytes, box: bytes, context: bytes, sender: str) -> bytes:
    """Return what `seal` was given. Raises ProtocolViolation naming the sender for any other box."""
    if len(box) < OVERHEAD:
        raise ProtocolViolation(f"expected a sealed box of at least {OVERHEAD} bytes, got {len(box)}", sender)
    try:
        return AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], context + sender.encode())
    except InvalidTag:
        raise ProtocolViolation(
            f"the box of {sender} does not open: changed, or of another key or session", sender
        ) from None
