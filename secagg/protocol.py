"""SecAgg and SecAggPlus: what a user names. What does not belong here: states (`client`, `server`), the
search for parameters.

`SecAgg` is the protocol of Bonawitz et al. (CCS 2017) on the complete graph, `SecAggPlus` that of Bell et al.
(CCS 2020) on a random regular graph whose degree and threshold follow from the drop-outs and corrupt clients
to be tolerated.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from protocols.audit_hooks import Hooks
from protocols.codec import tags
from protocols.errors import Misuse, PolicyRefusal
from protocols.kernel import State, Step
from protocols.policy import Demands
from protocols.protocol import ClientStart, Stage
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, SecureSum
from secagg import client as client_states
from secagg import server as server_states
from secagg.credentials import Credentials
from secagg.mask_parameters import LEAST_CLIENTS, MALICIOUS, SEMI_MALICIOUS, MaskParameters
from secagg.memory import build_on
from secagg.messages import ADVERTISE, CONFIRM, INPUT, REVEAL, SHARE, STAGES
from secagg.parameter_choice import Wishes, choose, counted_on, demand, insist, reusing
from secagg.parameters import Cohort
from secagg.protection import protection
from secagg.session_rules import rules_of


class _MaskedSum(SecureSum):
    """What both protocols share. `_complete`: every two clients are neighbours."""

    _complete = False
    takes_input_late = True
    version = 3

    def __init__(
        self,
        dropout: float = 0.2,
        collusion: float | None = None,
        threat: str | None = None,
        neighbours: int | None = None,
        threshold: int | None = None,
        security: float = 40.0,
        correctness: float = 20.0,
        credentials: Credentials | None = None,
        beacon: bytes = b"",
        setup: str | None = None,
        renew: int = 100,
    ) -> None:
        if collusion is None:
            collusion = 0.1 if threshold is None else 0.0
        threat = SEMI_MALICIOUS if threat is None else threat
        known = (dropout, collusion, threat, security, correctness)
        demand = Cohort(LEAST_CLIENTS, *known, reuse=setup == "reuse", complete=self._complete)
        self.wishes = Wishes(demand, neighbours, threshold, beacon)
        if threat == MALICIOUS and credentials is None:
            raise Misuse(
                "threat 'malicious' needs Credentials: a roster signed by someone other than the server"
            )
        if setup not in (None, "fresh", "reuse") or renew < 1:
            raise Misuse(f"expected setup 'fresh' or 'reuse' and renew >= 1, got {setup!r}, {renew}")
        self.credentials = credentials
        self.reuse = self.builds_on_earlier = setup == "reuse"
        self.renew = renew
        self._open, self._sparing = setup is None, False

    def over_network(self) -> Self:
        """Return the protocol to play over a network, where every trip costs seconds. Where the user gave no `setup`,
        it reuses keys in every session in which that promises no less (`parameter_choice.reusing`): a round is then
        two or three trips and not five.

        In the malicious model it is this one: reused keys need a beacon there, and the user says which kind of keys.
        """
        if not self._open or self.wishes.demand.threat == MALICIOUS:
            return self
        other = copy.copy(self)
        other._sparing = other.builds_on_earlier = True
        return other

    def _asked(self, clients: int, least: int) -> tuple[Wishes, int]:
        """Return what a session of so many clients asks for, and how many of them are in every total, where a layer
        counts on `least`. Every party finds the same.
        """
        return reusing(self.wishes, clients, least) if self._sparing else (self.wishes, least)

    # -- public facts -------------------------------------------------------------------------------------------------

    def stages(self, session: Session) -> tuple[Stage, ...]:
        rules = rules_of(session)
        p = rules.parameters
        taken = {REVEAL: p.committed, SHARE: not p.reuse, ADVERTISE: not p.epoch, CONFIRM: rules.agrees}
        names = [name for name in STAGES if taken.get(name, True)]
        return tuple(Stage(name, counts=name == INPUT, needed=rules.needed(name)) for name in names)

    def demands(self, session: Session) -> Demands:
        rules = rules_of(session)
        return Demands(
            cohort=session.clients,
            survivors=rules.survivors,
            ring_bits=rules.ring.bits,
            threat=rules.parameters.threat,
            threshold=rules.threshold,
            degree=rules.degree,
            signed_roster=rules.certified,
            simulated=session.simulated,
            quorum=rules.parameters.quorum if rules.agrees else None,
            voters=rules.parameters.committee or None,
        )

    def protection(self, session: Session) -> Protection:
        return protection(rules_of(session), self.wishes)

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> MaskParameters:
        return choose(self.wishes, clients)

    def withstands(self, clients: int) -> int:
        return choose(self.wishes, clients).corrupt

    def check(self, session: Session) -> None:
        super().check(session)
        rules_of(session)

    def completed(self, session: Session, memory: bytes | None) -> Session:
        """Return the session with what comes from this party: in the malicious model the signed roster's keys of its
        clients, with reused keys the set-up that it builds on.
        """
        wishes, least = self._asked(session.clients, counted := session.min_survivors)
        chosen = (
            choose(wishes, session.clients) if self._sparing else MaskParameters.decode(session.parameters)
        )
        session = replace(session, parameters=chosen.encode(), min_survivors=least)
        counted_on(wishes, rules_of(session), counted)
        if self.credentials is not None:
            chosen = replace(chosen, identities=self.credentials.keys_of(session.roster))
            session = replace(session, parameters=chosen.encode())
            self.credentials.check(session)
        setup = build_on(session, memory, self.renew) if chosen.reuse else None
        if setup is None:
            return session
        return replace(session, parameters=replace(chosen, epoch=setup.epoch, begun=setup.round).encode())

    @property
    def keeps(self) -> str:
        """The name that memories are filed under. Set-ups of reused keys have one of their own, apart from the counts
        of sessions with fresh keys.
        """
        return f"{self.tag}, one set-up for many rounds" if self.builds_on_earlier else self.tag

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(*client_states.STATES, *server_states.STATES)

    @property
    def audit_hooks(self) -> Hooks:
        from secagg.audit_hooks import hooks

        return hooks(self.wishes, *(() if self._complete else (self._sparse, self._drawn)))

    def _sparse(self, clients: int) -> "_MaskedSum":
        """A sparse graph already among few clients, with reused keys one of them corrupt: for audits."""
        numbers = (3, 1.5 / clients) if self.reuse else (2, 0.0)
        return self._for(clients, neighbours=6, threshold=numbers[0], collusion=numbers[1])

    def _drawn(self, clients: int) -> "_MaskedSum":
        """A sparse graph of its own plan, behind a beacon: for audits."""
        return self._for(clients, threat=MALICIOUS, beacon=b"public randomness")

    def _for(self, clients: int, **wishes: Any) -> "_MaskedSum":
        """The same protocol for clients "0", "1", ..., with other wishes, and simulated credentials if it needs any."""
        kept = ("dropout", "collusion", "threat", "security", "correctness")
        known = {name: getattr(self.wishes.demand, name) for name in kept}
        known |= {"setup": "reuse" if self.reuse else "fresh", **wishes}
        if known["threat"] == MALICIOUS:
            known["credentials"] = Credentials.simulated(range(clients))
        if known["threat"] == MALICIOUS and self.reuse:
            known["beacon"] = b"public randomness"
        return type(self)(**known)

    # -- parties ------------------------------------------------------------------------------------------------------

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        self._authenticate(session)
        return server_states.start(session, memory)

    def _client(self, start: ClientStart[IntVector]) -> Step:
        session = start.session
        wishes, least = self._asked(session.clients, session.min_survivors)
        insist(wishes, session.clients, rules_of(session).parameters)
        offered = session.min_survivors
        demand("min_survivors", offered >= least, f"{least} in every total", offered)
        credentials = self._authenticate(session)
        identity = credentials.identity(session.roster[start.index]) if credentials else None
        return client_states.join(start, identity)

    def _authenticate(self, session: Session) -> Credentials | None:
        """Return the credentials a malicious-model session was checked against. Raises PolicyRefusal if it
        fails, or there are none.
        """
        if not rules_of(session).certified:
            return None
        if self.credentials is None:
            raise PolicyRefusal("signed_roster: no credentials to check the session's identities with")
        self.credentials.check(session)
        return self.credentials


class SecAggPlus(_MaskedSum):
    """Masked sums on a random regular graph: each client shares masks with few others (Bell et al., CCS 2020).
    Degree and threshold are planned from what is to be withstood.

    What is withstood:

    - dropout: share of the clients that may leave in a round, in [0, 1) (default: 0.2).
    - collusion: share of the clients that may work with the server, in [0, 1) (default: None, 0.1, or what a given
      threshold withstands).
    - threat: what the server may do: "semi-honest", "semi-malicious" or "malicious" (default: None,
      semi-malicious).
    - security: bits, in (0, 1000]: secrecy fails with probability 2^-security at most (default: 40).
    - correctness: bits, in (0, 1000]: a round within `dropout` fails with probability 2^-correctness at most
      (default: 20).

    The graph:

    - neighbours: of each client, >= 2 (default: None, planned).
    - threshold: shares that open a secret, >= 2 (default: None, planned).
    - beacon: public random bytes made after the roster was signed, for a sparse graph in the malicious model
      (default: b"", clients commit and reveal).

    Keys:

    - credentials: a `secagg.Credentials`, needed by "malicious" (default: None).
    - setup: "fresh" keys in every session, or "reuse" of one set-up's keys (default: None, fresh, but reused over
      slow networks where that promises no less).
    - renew: rounds that one set-up serves, >= 1 (default: 100).

    Raises Misuse for a value out of range, for "malicious" without credentials, and, when a session is made, for a
    cohort that no plan serves, such as two clients.

        outcome = simulate(SecAggPlus(dropout=0.3), {"a": [1, 2], "b": [3, 4], "c": [5, 6], "d": [7, 8]})
        outcome.total   # array([16, 20])
    """

    name = "secagg+"


class SecAgg(_MaskedSum):
    """Masked sums on the complete graph: each client shares masks with all others (Bonawitz et al., CCS 2017).

    What is withstood:

    - dropout: share of the clients that may leave in a round, in [0, 1) (default: 0.2).
    - collusion: share of the clients that may work with the server, in [0, 1) (default: None, 0.1, or what a given
      threshold withstands).
    - threat: what the server may do: "semi-honest", "semi-malicious" or "malicious" (default: None,
      semi-malicious).
    - security: bits, in (0, 1000]: secrecy fails with probability 2^-security at most (default: 40).
    - correctness: bits, in (0, 1000]: a round within `dropout` fails with probability 2^-correctness at most
      (default: 20).

    The graph:

    - neighbours: refused; all clients are neighbours (default: None).
    - threshold: shares that open a secret, >= 2 (default: None, planned).
    - beacon: public random bytes made after the roster was signed, for a sparse graph in the malicious model
      (default: b"", clients commit and reveal).

    Keys:

    - credentials: a `secagg.Credentials`, needed by "malicious" (default: None).
    - setup: "fresh" keys in every session, or "reuse" of one set-up's keys (default: None, fresh, but reused over
      slow networks where that promises no less).
    - renew: rounds that one set-up serves, >= 1 (default: 100).

    Raises Misuse for a value out of range, for "malicious" without credentials, and, when a session is made, for a
    cohort that no plan serves, such as two clients.

        outcome = simulate(SecAgg(dropout=0.3), {"a": [1, 2], "b": [3, 4], "c": [5, 6], "d": [7, 8]})
        outcome.total   # array([16, 20])
    """

    name = "secagg"
    _complete = True
