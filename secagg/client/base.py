"""What every client state shares: its session, its place, and how it takes and gives messages. No state lives here."""

import functools
from dataclasses import dataclass

from protocols.errors import refuse
from protocols.kernel import SERVER
from protocols.roles import Asked, naming
from protocols.session import Session
from secagg.messages import INPUT, SHARE, Indices, unpack_bits
from secagg.session_rules import Rules, rules_of


@dataclass(frozen=True, eq=False)
class ClientState(Asked):
    """session: as this client computed it. index: its place in the roster."""

    session: Session
    index: int

    @functools.cached_property
    def rules(self) -> Rules:
        return rules_of(self.session)

    @property
    def name(self) -> str:
        return self.session.roster[self.index]

    @property
    def boxes(self) -> str:
        """The stage at which shares are sealed."""
        return INPUT if self.rules.parameters.reuse else SHARE

    def view(self, what: str, bits: bytes, graph_seed: bytes) -> set[int]:
        """Return the clients that the server names as `what`, this one among them.

        Raises PeerError if it is not, or if they are too few for the session's rules.
        """
        with naming(str(SERVER)):
            named = unpack_bits(bits, self.session.clients)
        if self.index not in named:
            raise refuse(f"the {what} do not have this client, who answered")
        if reason := self.rules.shortfall(named, graph_seed):
            raise refuse(f"{what}: {reason}")
        return named


def expect_subset(name: str, some: Indices, of: Indices) -> None:
    """Raises ProtocolViolation unless every client in `some` is in `of`."""
    strangers = set(some.tolist()) - set(of.tolist())
    if strangers:
        raise refuse(f"{name}: expected clients this one knows of, got {sorted(strangers)[:5]} besides")


def expect_threshold(name: str, count: int, rules: Rules) -> None:
    """Raises ProtocolViolation if fewer than the threshold are left: the client's own secrets could not be
    opened safely.
    """
    if count < rules.threshold:
        raise refuse(f"{name}: expected at least {rules.threshold} neighbours, the server names {count}")
