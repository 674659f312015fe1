"""The public keys that a client advertises, as one fixed-width string. What does not belong here: private keys.

Layout: key for sealing (32), key for masks (32); a signing key (32) in the semi-malicious model; where the graph is
fixed by commit and reveal, a commitment (32); in certified sessions the identity's signature of all before it (64):
there the roster's keys sign.
"""

from collections.abc import Container
from typing import NamedTuple

from protocols.errors import ProtocolViolation, refuse
from protocols.identity import verify
from protocols.kernel import client
from protocols.key_agreement import public_key, usable
from protocols.session import Session
from secagg.commitments import CERTIFY, certified_bytes
from secagg.messages import SIGNATURE_BYTES, Indices, listed
from secagg.session_rules import Rules


class Advertised(NamedTuple):
    """The parts; those that the session does not use are empty."""

    seal_key: bytes
    mask_key: bytes
    sign_key: bytes
    commitment: bytes
    certificate: bytes


def parse(rules: Rules, keys: bytes, party: str) -> Advertised:
    """Return the parts of an advertisement. Raises ProtocolViolation naming `party` for another length."""
    if len(keys) != rules.advertisement_bytes:
        raise ProtocolViolation(f"expected keys of {rules.advertisement_bytes} bytes, got {len(keys)}", party)
    at = 64 + 32 * rules.keyed
    signed = len(keys) - SIGNATURE_BYTES * rules.certified
    return Advertised(keys[:32], keys[32:64], keys[64:at], keys[at:signed], keys[signed:])


def signing_key(rules: Rules, index: int, keys: bytes) -> bytes:
    """The Ed25519 key by which a client signs: the roster's, or the one in its advertisement."""
    return rules.identity(index) if rules.certified else parse(rules, keys, str(client(index))).sign_key


def certified(rules: Rules, context: bytes, index: int, keys: bytes, party: str) -> Advertised:
    """Return the parts of an advertisement. Raises PeerError naming `party` for another length, or if its identity
    (from the signed roster) did not sign these keys for this session.
    """
    parts = parse(rules, keys, party)
    if rules.certified:
        signed = certified_bytes(context, index, keys[:-SIGNATURE_BYTES])
        verify(rules.identity(index), CERTIFY, signed, parts.certificate, party)
    return parts


def admit(
    rules: Rules, context: bytes, index: int, keys: bytes, others: Container[bytes], party: str
) -> Advertised:
    """Return an advertisement's parts, at the server. Raises PeerError naming `party` for what no client would take:
    keys that are not certified, of small order, or advertised before (`others`).
    """
    parts = certified(rules, context, index, keys, party)
    if not (usable(parts.seal_key) and usable(parts.mask_key)) or parts.seal_key == parts.mask_key:
        raise ProtocolViolation("advertised a public key that nobody can share a secret with", party)
    if parts.seal_key in others or parts.mask_key in others:
        raise ProtocolViolation("advertised a public key that another client advertised", party)
    return parts


def certified_keys(
    rules: Rules, session: Session, index: int, clients: Indices, blobs: bytes, private: tuple[bytes, ...]
) -> dict[int, Advertised]:
    """Return the keys that a client was given, by client, certified where the session asks for that.

    Raises PeerError naming who is not certified, and the server if a key is used twice or is the client's own
    (`private`).
    """
    each = listed(clients, blobs).items()
    given = {j: certified(rules, session.context, j, keys, str(client(j))) for j, keys in each}
    used = [key for k in given.values() for key in (k.seal_key, k.mask_key)]
    used += map(public_key, private)
    if index in given or len(set(used)) != len(used):
        raise refuse("two parties were given one public key: somebody's keys were swapped or reflected")
    return given
