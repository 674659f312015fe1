"""What a malicious-model session needs from outside: a signed roster, the authority's key, one's own identity.

What does not belong here: session keys. Clients pin the authority; the server's copy serves to name cheats early.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protocols.errors import Misuse, PeerError, PolicyRefusal
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.session import Session
from secagg.session_rules import rules_of


@dataclass(frozen=True)
class Credentials:
    """What a party of the malicious model needs from outside: who takes part, and its own signing key.

    - roster: a `SignedRoster`, signed by someone other than the aggregator.
    - authority: the pinned Ed25519 public key (32 bytes) that must have signed the roster.
    - identities: the signing keys that this process plays, by name: a deployed client has its own alone, a server
      none (default: none).
    - least_serial: rosters with a lower serial are refused (default: 1).

    Nothing is checked here: the methods raise PeerError or PolicyRefusal for a roster that is not to be trusted,
    when a session uses it.

        credentials = Credentials.simulated(["a", "b", "c", "d"])   # a deployment loads them: `secagg keys`
        malicious = SecAgg(threat="malicious", credentials=credentials)
        simulate(malicious, {"a": [1], "b": [2], "c": [3], "d": [4]}).total   # array([10])
    """

    roster: SignedRoster
    authority: bytes
    identities: Mapping[str, Identity] = field(default_factory=dict, repr=False)
    least_serial: int = 1

    @classmethod
    def simulated(cls, names: Iterable[object]) -> "Credentials":
        """Return credentials of throwaway identities, all of them in this process: for simulations."""
        identities = {str(name): Identity.generate(str(name)) for name in names}
        authority = Identity.generate("authority")
        members = [Member(name, "client", one.public) for name, one in identities.items()]
        signed = SignedRoster.sign(Roster.of("simulated", 1, members), authority)
        return cls(signed, authority.public, identities)

    def keys_of(self, names: Iterable[str]) -> bytes:
        """Return the roster's keys of these clients, 32 bytes each. Raises PeerError if the roster is not
        to be trusted.
        """
        known, wanted = self._members(), list(names)
        strangers = [name for name in wanted if name not in known]
        if strangers:
            raise PeerError(f"{strangers[0]!r} is no client on the signed roster", strangers[0])
        return b"".join(known[name] for name in wanted)

    def _members(self) -> dict[str, bytes]:
        """Every client's key by its name, once the roster is verified."""
        roster = self.roster.verified(self.authority, self.least_serial)
        return {m.name: m.key for m in roster.with_role("client")}

    def check(self, session: Session) -> None:
        """Refuse a session whose identities are not the signed roster's. Raises PolicyRefusal.

        Behind a beacon the session must name all clients of the roster. The server knows the beacon before it makes a
        session, and could else choose among the graphs of all subsets; a client that is not there counts as dropped.
        """
        p = rules_of(session).parameters
        try:
            expected, known = self.keys_of(session.roster), set(self._members())
        except PeerError as error:
            raise PolicyRefusal(f"signed_roster: {error}") from None
        if p.identities != expected:
            raise PolicyRefusal("signed_roster: the session's identities are not those of the signed roster")
        if p.beacon and set(session.roster) != known:
            raise PolicyRefusal(
                f"beacon: the graph is drawn over the whole signed roster of {len(known)} clients, the session has "
                f"{len(session.roster)}: name them all, who is not there counts as dropped"
            )

    def identity(self, name: str) -> Identity:
        """Return the identity that this process plays under `name`. Raises Misuse if it has none."""
        if name not in self.identities:
            raise Misuse(f"no identity of {name!r} here: give it in Credentials(identities=...)")
        return self.identities[name]
