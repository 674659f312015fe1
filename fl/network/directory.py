"""Which node is which party: names and roles of a roster, bound to what a framework calls its nodes.

What belongs here: names, roles, nodes. What does not: how a framework authenticates them (`fl.flower.nodes`), messages.
A node that is not on the roster never takes part. Without a roster a node is called what it says, or what the framework
calls it.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protocols.errors import Misuse
from protocols.identity import Roster
from protocols.kernel import Party

Node = int | str
"""What a framework calls a node: a number in Flower, a name in NVFlare."""


@dataclass(frozen=True)
class Directory:
    """Names <-> nodes. clients: name -> node of those that are connected. helpers: role -> (name, node), in
    order; node None: not connected.

    keys: name -> the key that its answers must be signed with (empty without a roster). left_out: a sentence about each
    node that is connected and takes no part.
    """

    clients: dict[str, Node]
    helpers: dict[str, list[tuple[str, Node | None]]] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def name_of(self, node: Node) -> str | None:
        """Return the name of a client's node, or None if it takes no part."""
        return next((name for name, found in self.clients.items() if found == node), None)

    def find(self, party: Party, roster: tuple[str, ...]) -> tuple[str, Node] | None:
        """Return name and node of a party of a session with this roster, or None if it is not connected."""
        place = party[1]
        if party.role == "client":
            name = roster[place]
            return (name, self.clients[name]) if name in self.clients else None
        name, node = dict(enumerate(self.helpers.get(party.role, []))).get(place, ("", None))
        return None if node is None else (name, node)


def from_roster(roster: Roster, bound: Mapping[str, Node], connected: Iterable[Node]) -> Directory:
    """Place the members of a verified roster. bound: member -> node, of those that are connected and authenticated."""
    clients = {m.name: bound[m.name] for m in roster.with_role("client") if m.name in bound}
    helpers: dict[str, list[tuple[str, Node | None]]] = {}
    for role in ("key-holder", "decryptor"):
        helpers[role] = [(m.name, bound.get(m.name)) for m in roster.with_role(role)]
    strangers = [node for node in connected if node not in set(bound.values())]
    left_out = tuple(f"node {node!r} is not on the roster and takes no part" for node in strangers)
    return Directory(clients, helpers, {m.name: m.key for m in roster.members}, left_out)


def without_roster(node_ids: Iterable[int], helpers: Iterable[Party]) -> Directory:
    """Name nodes by their ids; the first ones, in ascending order, become the helpers and never train.

    Raises Misuse if nobody is left to train.
    """
    ordered = sorted(node_ids)
    found: dict[str, list[tuple[str, Node | None]]] = {}
    for party in helpers:
        if len(ordered) < 2:
            raise Misuse(f"expected a node for {party} and nodes that train")
        node = ordered.pop(0)
        found.setdefault(party.role, []).append((f"node-{node}", node))
    return Directory({f"node-{node}": node for node in ordered}, found)


def from_names(named: Mapping[Node, str], clients: Iterable[str], helpers: Iterable[Party]) -> Directory:
    """Place nodes by the names they said; nodes that are no client become the helpers, in ascending order of names.

    Where several nodes say one name, nobody can tell whose it is: none of them is placed.
    """
    wanted, claims = set(clients), dict[str, list[Node]]()
    for node, name in named.items():
        claims.setdefault(name, []).append(node)
    single = {name: nodes[0] for name, nodes in claims.items() if len(nodes) == 1}
    spare = sorted((name, node) for name, node in single.items() if name not in wanted)
    found: dict[str, list[tuple[str, Node | None]]] = {}
    for party in helpers:
        found.setdefault(party.role, []).append(spare.pop(0) if spare else (str(party), None))
    placed = {name: node for name, node in single.items() if name in wanted}
    left_out = [
        f"{name[:200]!r} takes no part: nodes {', '.join(sorted(map(repr, nodes)))} claim that name, give each one "
        "its own"
        for name, nodes in claims.items()
        if len(nodes) > 1
    ]
    known = reprlib.repr(sorted(wanted))
    left_out += [
        f"node {node!r} takes no part: it calls itself {name[:200]!r}, the clients are {known}"
        for name, node in spare
    ]
    return Directory(placed, found, left_out=tuple(left_out))
