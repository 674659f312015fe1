"""A node's own files: who it is, what it insists on, where its state lies. Read from the node, never from a
message.

What belongs here: `site.toml` and what it names. What does not: sessions, and anything that a server sent.

name = "site-1"                # on the roster; needed if there is one roster = "roster.json"         #
paths are relative to this file authority = "64 hex digits"    # the pinned key that signs rosters identity
= "site-1.key" state = "state"                # the sealed store; `anchor = "..."` puts its anchor elsewhere
[policy]                       # fields of protocols.Policy min_cohort = 3
"""

import math
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fl.account import DEFAULT_DELTA
from fl.flower.credentials import read_public
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation
from protocols.identity import Identity, Roster, SignedRoster
from protocols.policy import Policy
from protocols.stack import RoundPlan
from protocols.store import AlreadyDone, FileStore, Store
from protocols.summation import SecureSum
from secagg import Credentials

CONFIG_KEY = "secagg-site"
FILE = "site.toml"
LEDGER = "own.ledger"
_KEYS = {"name", "roster", "authority", "identity", "state", "anchor", "policy", "delta"}


@dataclass(frozen=True)
class Site:
    """One node.

    demands: the policy's fields that its own file sets. roster: verified
    under the pinned authority, or None: names are then Flower's node ids."""

    name: str
    store: Store
    demands: dict[str, Any]
    roster: Roster | None = None
    identity: Identity | None = None
    folder: Path | None = None
    signed: SignedRoster | None = None
    delta: float = DEFAULT_DELTA

    def policy(self, protocol: SecureSum) -> Policy:
        """Return what this node insists on: its own words where it has any, else the protocol's defaults."""
        return replace(protocol.default_policy, **self.demands)

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

    def charge(self, policy: Policy, plan: RoundPlan, federation: str) -> None:
        """Charge this node's own ledger for the round, synced, before anything leaves. Nothing happens
        without a demand.

        Raises PolicyRefusal if the policy names a largest epsilon and the layers give none, or more than
        that.
        """
        if policy.max_epsilon is None:
            return
        events = [e for e in plan.events(plan.facts.clients) if e.party in ("", self.name)]
        if not events:
            raise PolicyRefusal(
                f"max_epsilon: this node accepts at most {policy.max_epsilon:g}, and no layer of this run bounds "
                "what it loses"
            )
        from dp import Ledger  # an app without DP layers never loads it
        from dp.event_json import from_fact

        ledger = Ledger(
            (self.folder or Path()) / LEDGER, epsilon=math.inf, delta=self.delta, accountant="rdp"
        )
        with self.store.transaction():  # nobody else of this node charges meanwhile
            for event in events:
                priced = from_fact(event)
                if (price := ledger.price_with(priced)) > policy.max_epsilon:
                    raise PolicyRefusal(
                        f"max_epsilon: this round would bring this node to {price:.3g}, "
                        f"it accepts {policy.max_epsilon:g}"
                    )
                ledger.charge(priced, run=federation, round=plan.facts.number)

    def enter_round(self, federation: str, number: int, key: str, session: bytes) -> None:
        """Take part in round `number` at most once, durably, and keep its session under `key`.

        Raises ProtocolViolation for an old number.
        """
        try:
            with self.store.transaction() as t:
                t.advance(f"flower/round/{federation}", number)
                for old in t.names(key.rpartition("/")[0]):
                    t.delete(old)  # a round that this node left half-way; its state is of no use any more
                for old in t.names("session/"):
                    t.delete(old)
                t.put(key, session)
        except AlreadyDone:
            raise ProtocolViolation(
                f"round {number} is not after the last one that this node took part in", "server"
            ) from None


def load_site(folder: Path, node_id: int, default_name: str | None = None, *, sync: bool = True) -> Site:
    """Read a node's files. Without a site.toml: no roster, the default policy, state in `folder`/state.

    sync: as in `FileStore`. Raises Misuse for an unknown key or a file that does not fit, PeerError for a
    roster that does not verify or is older than one accepted before, StoreError for files that cannot be
    read or are open to others.
    """
    table = _read(folder / FILE)
    name = str(table.get("name", default_name or f"node-{node_id}"))
    anchor = folder / table["anchor"] if "anchor" in table else None
    store = FileStore(folder / table.get("state", "state"), name, anchor=anchor, sync=sync)
    identity = Identity.load(folder / table["identity"], name) if "identity" in table else None
    signed = _roster(folder, table, store) if "roster" in table else None
    roster = None if signed is None else signed.roster
    delta = float(table.get("delta", DEFAULT_DELTA))
    if roster is not None:
        member = roster.member(name)
        if identity is None or identity.public != member.key:
            raise Misuse(f"{folder / FILE}: the identity is not the key that the roster binds to {name!r}")
        if len(roster.with_role("server")) != 1:
            raise Misuse("expected one server on the roster")
    return Site(
        name, store, _demands(table.get("policy", {}), folder), roster, identity, folder, signed, delta
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Misuse(f"{path}: {error}") from None
    if unknown := sorted(table.keys() - _KEYS):
        raise Misuse(f"{path}: unknown key {unknown[0]!r}; known are {sorted(_KEYS)}")
    return table


def _roster(folder: Path, table: dict[str, Any], store: Store) -> SignedRoster:
    if "authority" not in table or "name" not in table:
        raise Misuse(f"{folder / FILE}: a roster needs `name` and the pinned `authority`")
    counter = "flower/roster"
    with store.transaction() as t:
        accepted = t.counter(counter)
        signed = SignedRoster.load(folder / table["roster"])
        roster = signed.verified(read_public(str(table["authority"])), max(accepted, 1))
        if roster.serial > accepted:
            t.advance(counter, roster.serial)
    return signed


def _demands(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    known = {f.name for f in fields(Policy)}
    if unknown := sorted(table.keys() - known):
        raise Misuse(f"{folder / FILE}: the policy has no {unknown[0]!r}; known are {sorted(known)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    try:
        Policy(**values)
    except TypeError as error:
        raise Misuse(f"{folder / FILE}: {error}") from None
    return values
