"""Which node is which party: the roster's names bound to nodes by the keys with which the SuperLink authenticates them.

What belongs here: names, roles, node ids and these keys. What does not: messages, anything of flwr. A node that is not
on the roster never takes part. Without a roster (a simulation, or a federation that trusts its SuperLink about who is
who) a node's name is its id; in a Federation it is what the node says.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl.credentials import expect_none, private_folder
from protocols.errors import Misuse
from protocols.identity import Roster
from protocols.kernel import Party
from protocols.store import write_atomic


@dataclass(frozen=True)
class Directory:
    """Names <-> nodes. clients: name -> node id of those that are connected. helpers: role -> (name, node
    id), in order.

    keys: name -> the key that its answers must be signed with (empty without a roster). unknown: nodes that
    take no part. claimed: a name that several nodes say -> these nodes, none of which takes part.
    """

    clients: dict[str, int]
    helpers: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    unknown: tuple[int, ...] = ()
    claimed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def name_of(self, node_id: int) -> str | None:
        """Return the name of a client's node, or None if it takes no part."""
        return next((name for name, node in self.clients.items() if node == node_id), None)

    def find(self, party: Party, roster: tuple[str, ...]) -> tuple[str, int] | None:
        """Return name and node id of a party of a session with this roster, or None if it is not connected."""
        place = party[1]
        if party.role == "client":
            name = roster[place]
            return (name, self.clients[name]) if name in self.clients else None
        known = self.helpers.get(party.role, [])
        return known[place] if place < len(known) and known[place][1] else None


def from_roster(roster: Roster, keys: Mapping[int, bytes]) -> Directory:
    """Bind a verified roster to connected nodes by their authenticated keys. keys: node id -> public key (PEM)."""
    by_transport = {name: node for node, pem in keys.items() if (name := _transport(pem))}
    bound = {m.name: by_transport[m.transport] for m in roster.members if m.transport in by_transport}
    clients = {m.name: bound[m.name] for m in roster.with_role("client") if m.name in bound}
    helpers: dict[str, list[tuple[str, int]]] = {}
    for role in ("key-holder", "decryptor"):
        helpers[role] = [(m.name, bound.get(m.name, 0)) for m in roster.with_role(role)]
    unknown = tuple(node for node in keys if node not in set(bound.values()))
    return Directory(clients, helpers, {m.name: m.key for m in roster.members}, unknown)


def without_roster(node_ids: Iterable[int], helpers: Iterable[Party]) -> Directory:
    """Name nodes by their ids; the first ones, in ascending order, become the helpers and never train.

    Raises Misuse if nobody is left to train.
    """
    ordered = sorted(node_ids)
    found: dict[str, list[tuple[str, int]]] = {}
    for party in helpers:
        if len(ordered) < 2:
            raise Misuse(f"expected a node for {party} and nodes that train")
        node = ordered.pop(0)
        found.setdefault(party.role, []).append((f"node-{node}", node))
    return Directory({f"node-{node}": node for node in ordered}, found)


def from_names(named: Mapping[int, str], clients: Iterable[str], helpers: Iterable[Party]) -> Directory:
    """Place nodes by the names they said; nodes that are no client become the helpers, in ascending order of names.

    Nobody can tell which of several nodes a name is that all of them say: none of them is placed.
    """
    wanted, claims = set(clients), dict[str, list[int]]()
    for node, name in named.items():
        claims.setdefault(name, []).append(node)
    single = {name: nodes[0] for name, nodes in claims.items() if len(nodes) == 1}
    spare = sorted((name, node) for name, node in single.items() if name not in wanted)
    found: dict[str, list[tuple[str, int]]] = {}
    for party in helpers:
        found.setdefault(party.role, []).append(spare.pop(0) if spare else (str(party), 0))
    placed = {name: node for name, node in single.items() if name in wanted}
    claimed = {name: tuple(sorted(nodes)) for name, nodes in claims.items() if len(nodes) > 1}
    return Directory(placed, found, claimed=claimed)


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
