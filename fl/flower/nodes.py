"""The roster's names bound to nodes by the keys with which the SuperLink authenticates them.

What belongs here: these keys. What does not: who plays what (`fl.network.directory`), messages, anything of flwr.
Without a roster (a simulation, or a federation that trusts its SuperLink about who is who) a node's name is its id; in
a Federation it is what the node says.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl.credentials import expect_none, private_folder
from fl.network.directory import Node
from protocols.errors import Misuse
from protocols.identity import Roster
from protocols.store import write_atomic


def bound_to(roster: Roster, keys: Mapping[int, bytes]) -> dict[str, Node]:
    """Return member -> node id of those that are connected, by their authenticated keys. keys: node id -> public key
    (PEM).
    """
    by_transport: dict[str, Node] = {name: node for node, pem in keys.items() if (name := _transport(pem))}
    return {m.name: by_transport[m.transport] for m in roster.members if m.transport in by_transport}


def _transport(pem: bytes) -> str | None:
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        return None
    return transport_name(key) if isinstance(key, ec.EllipticCurvePublicKey) else None


def make_node_key(name: str, folder: Path) -> tuple[Path, Path, str]:
    """Make a SuperNode's connection key (P-384): private and public OpenSSH files, and its transport name.

    Raises Misuse rather than replace a key: a registered SuperNode would be locked out.
    """
    auth, auth_public = folder / f"{name}.auth", folder / f"{name}.auth.pub"
    expect_none(auth, auth_public)
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_atomic(auth, private, 0o600)
    write_atomic(auth_public, public + b"\n", 0o644)
    return auth, auth_public, transport_name(key.public_key())


def transport_name(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name under which a roster binds a connection key: "ec-" and the SHA-256 of its DER form."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "ec-" + hashlib.sha256(der).hexdigest()


def read_node_key(path: Path) -> str:
    """Return the transport name of a public connection key in OpenSSH or PEM form. Raises Misuse for another file."""
    try:
        data = path.read_bytes()
        load = (
            serialization.load_pem_public_key
            if data.startswith(b"-----")
            else serialization.load_ssh_public_key
        )
        key = load(data)
    except (OSError, ValueError) as error:
        raise Misuse(f"{path} is not a public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Misuse(f"{path}: a SuperNode authenticates by an elliptic-curve key, this is another kind")
    return transport_name(key)
