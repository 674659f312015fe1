"""X25519 key agreement and HKDF with context. What does not belong here: what the derived keys are used
for.

A raw Diffie-Hellman result is no key: `PairKeys.agree` binds it to a session context, to both
identities and to a purpose (Bonawitz et al., CCS 2017, section 4 asks for KA.agree to end in a hash; RFC
7748, section 6.1 for the all-zero check; RFC 5869 for HKDF).
"""

import functools

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.errors import ProtocolViolation, require
from protocols.randomness import SecureRandom

KEY_BYTES = 32
_DOMAIN = b"secagg key v1\0"
_HASH = SHA256()
_PRIME = (1 << 255) - 19
_ORDER_8 = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
_SMALL_ORDER = frozenset({0, 1, _PRIME - 1, *_ORDER_8})


def generate(random: SecureRandom) -> bytes:
    """Return a fresh X25519 private key (32 bytes)."""
    return random.bytes(KEY_BYTES)


def public_key(private: bytes) -> bytes:
    """Return the public key (32 bytes) of a private key of 32 bytes. Raises Misuse for another length."""
    return _load(private).public_key().public_bytes_raw()


def info(purpose: str, first: str, second: str) -> bytes:
    """Return the HKDF context of a pair: purpose and both identities, each with its length, identities in
    ascending order.

    Both ends compute the same bytes; no other pair, purpose or split of the names gives them.
    """
    low, high = (first, second) if first <= second else (second, first)  # UTF-8 keeps this order
    return _DOMAIN + sized(purpose) + sized(low) + sized(high)


@functools.lru_cache(maxsize=1 << 16)
def sized(text: str) -> bytes:
    """Return the length (4 bytes) and UTF-8 bytes of a text. Names recur in every key of a session, hence
    the cache.
    """
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


def derive(secret: bytes, session: bytes | None, context: bytes, length: int = KEY_BYTES) -> bytes:
    """Return `length` bytes of HKDF-SHA256 with `session` (32 bytes, or none) as salt and `context` as info."""
    return HKDF(algorithm=_HASH, length=length, salt=session, info=context).derive(secret)


class PairKeys:
    """One party's private key, ready to agree with many peers. It never prints its key."""

    def __init__(self, private: bytes, owner: str, session: bytes) -> None:
        require(len(session) == 32, "a session context of 32 bytes", len(session))
        self._key = _load(private)
        self._owner = owner
        self._session = session

    def __repr__(self) -> str:
        return f"PairKeys({self._owner!r})"

    def public(self) -> bytes:
        """Return the public key (32 bytes)."""
        return self._key.public_key().public_bytes_raw()

    def agree(self, peer: str, peer_public: bytes, purpose: str) -> bytes:
        """Return the key (32 bytes) shared with `peer` for `purpose`; both ends get the same one.

        Raises ProtocolViolation naming the peer for a public key of another length, one that leads to the
        all-zero result (a point of small order), or one's own name (a reflected key).
        """
        if peer == self._owner:
            raise ProtocolViolation("expected a peer's public key, got one under the own name", peer)
        return derive(exchange(self._key, peer_public, peer), self._session, info(purpose, self._owner, peer))


def exchange(private: X25519PrivateKey | bytes, public: bytes, peer: str) -> bytes:
    """Return the raw shared secret with a peer: only for `derive`. Raises ProtocolViolation naming the peer."""
    try:
        return (_load(private) if isinstance(private, bytes) else private).exchange(_public(public))
    except ValueError:
        raise ProtocolViolation(
            f"the public key of {peer} is not usable: expected 32 bytes and a result other than zero", peer
        ) from None


def usable(public: bytes) -> bool:
    """Whether a public key (32 bytes) can give a shared secret: it is no point of small order (RFC 7748, section 6.1).

    Known by its coordinate, which costs a hundredth of an agreement; `PairKeys.agree` finds the same by trying.
    """
    coordinate = int.from_bytes(public, "little") & ((1 << 255) - 1)
    return coordinate % _PRIME not in _SMALL_ORDER


@functools.lru_cache(maxsize=1 << 14)
def _public(key: bytes) -> X25519PublicKey:
    """A server meets the same public keys once per client that dropped out."""
    return X25519PublicKey.from_public_bytes(key)


def _load(private: bytes) -> X25519PrivateKey:
    require(len(private) == KEY_BYTES, f"a private key of {KEY_BYTES} bytes", len(private))
    return X25519PrivateKey.from_private_bytes(private)
