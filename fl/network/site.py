"""A node's own files: who it is, what it insists on, where its state lies. Read from the node, never from a message.

What belongs here: `site.toml` and what it names. What does not: sessions, and anything that a server sent.

    name = "site-1"              # on the roster; needed if there is one
    roster = "roster.json"       # paths are relative to this file
    authority = "64 hex digits"  # the pinned key that signs rosters
    identity = "site-1.key"
    state = "state"              # the sealed store; `anchor = "..."` puts its anchor elsewhere
    dataset = "ward-7"           # names the data: federations over the same data share one account ...
    ledgers = "/srv/ledgers"     # ... in this folder (default: this one)
    delta = 1e-5                 # at which that account is priced
    federations = ["ward.app:federation"]  # on NVFlare: the ones that a job may name here
    [policy]                     # fields of protocols.Policy
    min_cohort = 3

Nobody but its owner may write the file.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fl.account import DEFAULT_DELTA
from fl.arguments import checked
from fl.credentials import read_public
from fl.round import Origin
from fl.round.party_ledger import PartyLedger
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, StoreError
from protocols.identity import Identity, Roster, SignedRoster
from protocols.policy import Policy
from protocols.store import AlreadyDone, FileStore, Store
from protocols.summation import SecureSum
from secagg import Credentials

CONFIG_KEY = "secagg-site"
DATASET_KEY, LEDGERS_KEY = "secagg-dataset", "secagg-ledgers"
FILE = "site.toml"
_TEXTS = ("name", "roster", "authority", "identity", "state", "anchor", "dataset", "ledgers")
_KEYS = {*_TEXTS, "policy", "delta", "federations"}
_NODE_KEYS = {"dataset": DATASET_KEY, "ledgers": LEDGERS_KEY}


@dataclass(frozen=True)
class Site:
    """One node. demands: the policy's fields that its own file sets. roster: verified under the pinned authority, or
    None: names are then the framework's. federations: that a job may name here.
    """

    name: str
    store: Store
    demands: dict[str, Any]
    roster: Roster | None = None
    identity: Identity | None = None
    folder: Path | None = None
    signed: SignedRoster | None = None
    ledger: PartyLedger = field(default_factory=lambda: PartyLedger(Path()))
    federations: tuple[str, ...] = ()

    def policy(self, protocol: SecureSum, base: Policy | None = None) -> Policy:
        """Return what this node insists on: its own words where it has any, else `base` (the app's), else the
        protocol's defaults. What lets more happen than usual (`allow_...`) is for the node alone to say.
        """
        usual = replace(base or protocol.default_policy, allow_resend=False, allow_simulated=False)
        return replace(usual, **self.demands)

    def credentials(self) -> Credentials:
        """Return what a session in the malicious model needs. Raises Misuse if this node has no roster."""
        if self.signed is None or self.identity is None:
            raise Misuse("the malicious model needs `roster`, `authority` and `identity` in site.toml")
        return Credentials(self.signed, self.signed.authority, {self.name: self.identity})

    @property
    def server_key(self) -> bytes | None:
        """The key that the server of the roster signs its requests with."""
        return None if self.roster is None else self.roster.with_role("server")[0].key

    def require_role(self, role: str) -> None:
        """Raises PolicyRefusal unless the roster gives this node that role."""
        if self.roster is not None and (own := self.roster.member(self.name).role) != role:
            raise PolicyRefusal(f"role: the roster names {self.name!r} as {own}, it was asked to be {role}")

    def require_roster(self, federation: str, serial: int, clients: tuple[str, ...]) -> None:
        """Raises PolicyRefusal unless the session is of this roster and all its clients are on it."""
        if self.roster is None:
            return
        if (federation, serial) != (self.roster.federation, self.roster.serial):
            raise PolicyRefusal(
                f"roster: this node holds {self.roster.federation!r}, serial {self.roster.serial}, "
                f"the session is of {federation!r}, serial {serial}"
            )
        known = {m.name for m in self.roster.with_role("client")}
        if strangers := [name for name in clients if name not in known]:
            raise PolicyRefusal(f"roster: {strangers[0]!r} is in the session and not on the roster")

    def enter_round(self, origin: Origin, number: int, context: bytes, session: bytes) -> None:
        """Take part in session `number` of a run at most once, durably, and keep its public facts.

        Whatever is left of the federation's session before is of no use any more and goes; sessions of other
        federations stay. Raises ProtocolViolation for an old number.
        """
        current = f"flower/current/{hashlib.sha256(origin.federation.encode()).hexdigest()}"
        try:
            with self.store.transaction() as t:
                t.advance(f"flower/round/{origin.scope}", number)
                if (left := t.get(current)) is not None:
                    t.delete(session_key(left))
                    t.delete(f"session/{left.hex()}")  # where `protocols.runtime` keeps this party's state
                t.put(current, context)
                t.put(session_key(context), session)
        except AlreadyDone:
            raise ProtocolViolation(
                f"session {number} of this run is not after the last one that this node took part in. If the server's "
                "state was put back from a copy, or the run is played twice, begin a new run in another folder; if two "
                "nodes share this one's folder, give each its own",
                "server",
            ) from None


def session_key(context: bytes) -> str:
    """Return where a session's public facts are kept."""
    return f"flower/session/{context.hex()}"


def is_on_roster(folder: Path) -> bool:
    """Return whether a node's own files name a roster, without its store: a store is begun under the node's name, and
    where there is no roster a Federation may say that name later. Raises as `load_site` for its site.toml.
    """
    return "roster" in _read(folder / FILE)


def load_site(
    folder: Path,
    node_id: int,
    default_name: str | None = None,
    *,
    sync: bool = True,
    node_config: Mapping[str, Any] | None = None,
) -> Site:
    """Read a node's files. Without a site.toml: no roster, the default policy, state in `folder`/state.

    sync: as in `FileStore`. node_config: the SuperNode's; its `secagg-dataset` and `secagg-ledgers` stand in place of
    `dataset` and `ledgers`, and a `secagg-site` in it is an absolute path. default_name: what a Federation calls the
    node where its own files say nothing; without one, and without a roster, it is called by its node id.

    Raises Misuse for an unknown key, one of another type or range, or a file that does not fit, PeerError for a roster
    that does not verify or is older than one accepted before, StoreError for files that cannot be read or are open to
    others.
    """
    table = _read(folder / FILE) | _said_by_node(node_config or {})
    demands = _demands(table.get("policy", {}), folder / FILE)
    name = table.get("name", default_name or "")
    called = name or f"node-{node_id}"
    identity = Identity.load(folder / table["identity"], called) if "identity" in table else None
    signed = _roster(folder, table) if "roster" in table else None
    roster = None if signed is None else signed.roster
    ledgers = folder / table.get("ledgers", "")
    if ledgers.exists() and not ledgers.is_dir():
        raise Misuse(f"{folder / FILE}: expected ledgers to be a folder, {ledgers} is none")
    if roster is None and default_name is None:
        called = f"node-{node_id}"  # nobody vouches for another one, and the server knows none
    if roster is not None:
        member = roster.member(called)
        if identity is None or identity.public != member.key:
            raise Misuse(f"{folder / FILE}: the identity is not the key that the roster binds to {called!r}")
        if len(roster.with_role("server")) != 1:
            raise Misuse("expected one server on the roster")
    # last: a file that was refused may be mended to another name, and a store keeps its first one
    anchor = folder / table["anchor"] if "anchor" in table else None
    store = _store(folder / table.get("state", "state"), name, node_id, anchor=anchor, sync=sync)
    if signed is not None:
        _accept(signed, store)
    ledger = PartyLedger(ledgers, table.get("dataset", ""), table.get("delta", DEFAULT_DELTA), store)
    federations = tuple(table.get("federations", ()))
    return Site(called, store, demands, roster, identity, folder, signed, ledger, federations)


def _store(path: Path, name: str, node_id: int, **named: Any) -> FileStore:
    """Return the site's store, under the name that it was first used by: without a key of its own a SuperNode has
    another id after every start, and it is the same site. Raises Misuse for a store of another name's.
    """
    store = FileStore(path, name or f"node-{node_id}", **named)
    first = store.first_name()
    if name not in ("", first):
        raise Misuse(
            f"{path} was first used by {first!r}, and is called {name!r} now: another site needs a folder of its "
            f"own; the same site under another name sets `state` to another file in {FILE}, so that its ledger stays "
            "with it"
        )
    return FileStore(path, first, **named)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        if (mode := path.stat().st_mode) & 0o022:
            raise StoreError(f"{path} is writable by others (mode {mode & 0o777:o}): chmod go-w {path.name}")
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: {error}") from None
    if unknown := sorted(table.keys() - _KEYS):
        raise Misuse(f"{path}: unknown key {unknown[0]!r}; known are {sorted(_KEYS)}")
    for key in _TEXTS:
        if key in table and not _is_text(table[key]):
            raise Misuse(f"{path}: expected {key} to be printable text, not empty, got {table[key]!r}")
    named = table.get("federations", [])
    if not isinstance(named, list) or not all(_is_text(place) for place in named):
        raise Misuse(f'{path}: expected federations to be a list of "package.module:name", got {named!r}')
    if not isinstance(table.get("policy", {}), dict):
        raise Misuse(f"{path}: expected policy to be a table, [policy], got {table['policy']!r}")
    try:
        return {**table, "delta": checked("delta", table["delta"])} if "delta" in table else table
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def _said_by_node(node_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the SuperNode's own configuration says in place of site.toml. Raises Misuse naming the key."""
    for key in (CONFIG_KEY, *_NODE_KEYS.values()):
        if key in node_config and not _is_text(node_config[key]):
            raise Misuse(
                f"--node-config: expected {key} to be printable text in quotes, not empty, got {node_config[key]!r}"
            )
    if CONFIG_KEY in node_config and not Path(node_config[CONFIG_KEY]).is_absolute():
        raise Misuse(
            f"--node-config: expected {CONFIG_KEY} to be an absolute path, got {node_config[CONFIG_KEY]!r}: a node's "
            "state must not depend on where its process was started"
        )
    return {key: node_config[own] for key, own in _NODE_KEYS.items() if own in node_config}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _roster(folder: Path, table: dict[str, Any]) -> SignedRoster:
    if "authority" not in table or "name" not in table:
        raise Misuse(f"{folder / FILE}: a roster needs `name` and the pinned `authority`")
    signed = SignedRoster.load(folder / table["roster"])
    signed.verified(read_public(table["authority"]))
    return signed


def _accept(signed: SignedRoster, store: Store) -> None:
    """Keep the serial of a verified roster. Raises PeerError for one older than a roster accepted before."""
    counter = "flower/roster"
    with store.transaction() as t:
        accepted = t.counter(counter)
        if signed.verified(signed.authority, max(accepted, 1)).serial > accepted:
            t.advance(counter, signed.roster.serial)


def _demands(table: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {f.name for f in fields(Policy)}
    if unknown := sorted(table.keys() - known):
        raise Misuse(f"{path}: the policy has no {unknown[0]!r}; known are {sorted(known)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    try:
        Policy(**values)
    except Misuse as error:
        raise Misuse(f"{path}: [policy]: {error}") from None
    return values
