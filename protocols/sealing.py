"""Sealed bytes between two parties that a relay cannot read, change or move elsewhere.

What does not belong here: where the key comes from (`key_agreement`), what is inside. AES-256-GCM under a key
of one pair and one session; sender, receiver, session and stage are associated data, so a box is good for one
place only. Nonces are random: a party that was restored from an old state must not repeat a counter.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.errors import ProtocolViolation, require
from protocols.key_agreement import sized
from protocols.randomness import SecureRandom

NONCE_BYTES, TAG_BYTES = 12, 16
OVERHEAD = NONCE_BYTES + TAG_BYTES
_DOMAIN = b"secagg seal v1\0"


def binding(session: bytes, stage: str, sender: str, receiver: str) -> bytes:
    """Return the associated data of a box: session context, stage, sender, receiver, each with its length."""
    head = _DOMAIN + len(session).to_bytes(4, "big") + session
    return head + sized(stage) + sized(sender) + sized(receiver)


def seal(key: bytes, plain: bytes, bound: bytes, random: SecureRandom) -> bytes:
    """Return nonce + ciphertext + tag, `OVERHEAD` bytes longer than `plain`; `key` has 32 bytes, `bound`
    is `binding(...)`.
    """
    nonce = random.bytes(NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, plain, bound)


def unseal(key: bytes, box: bytes, bound: bytes, sender: str) -> bytes:
    """Return what `seal` was given. Raises ProtocolViolation naming `sender` if the box is not from it,
    for here and now.
    """
    if len(box) < OVERHEAD:
        raise ProtocolViolation(f"expected a sealed box of at least {OVERHEAD} bytes, got {len(box)}", sender)
    try:
        return _cipher(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], bound)
    except InvalidTag:
        raise ProtocolViolation(
            f"a sealed box from {sender} does not open: it was changed, or is from another pair, session or stage",
            sender,
        ) from None


def _cipher(key: bytes) -> AESGCM:
    require(len(key) == 32, "a key of 32 bytes", len(key))
    return AESGCM(key)
