"""HomomorphicSum: what PaillierSum and CKKSSum share: arrangement, signing keys, stages, parameters, the least sum.

What does not belong here: states, a scheme's keys and numbers.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping

from he.arrangements import Arrangement, KeyHolder, SharedByClients, Threshold, check_recipients
from he.roles.messages import AGREE, HOLDER, INPUT, KEY_HOLDER, OPEN
from he.roles.parties import HasCiphertexts, HoldsKey, MayOpen, MayVote
from he.roles.recipients import DELIVER, AwaitsTotal, Delivering
from he.roles.scheme import Accumulator, Parameters, least_survivors
from he.roles.server import AddsCiphertexts, AwaitsClients, AwaitsHolder, GathersClientVotes
from protocols.agreement import quorum
from protocols.codec import Record, tags
from protocols.errors import Misuse, WireError
from protocols.identity import Identity, Roster
from protocols.kernel import Party, State, Step, client
from protocols.policy import Demands
from protocols.protocol import Stage
from protocols.roles import Ask, requests
from protocols.session import Session
from protocols.summation import SecureSum


class HomomorphicSum(SecureSum):
    """An exact sum of encrypted vectors under one arrangement of keys. A subclass gives the scheme."""

    version = 3

    def __init__(
        self,
        arrangement: Arrangement,
        min_survivors: int | None,
        identity: Identity | None,
        roster: Roster | None,
    ) -> None:
        if min_survivors is not None and (type(min_survivors) is not int or min_survivors < 2):
            raise Misuse(f"expected min_survivors to be a whole number >= 2, or None, got {min_survivors!r}")
        if identity is not None and roster is None:
            raise Misuse("an identity signs for those who know its key: give the verified roster too")
        check_recipients(arrangement, roster)
        self.arrangement, self.min_survivors = arrangement, min_survivors
        self._identity, self._roster = identity, roster

    @property
    def shared(self) -> bool:
        return isinstance(self.arrangement, SharedByClients)

    # -- public facts --

    @abstractmethod
    def scheme_parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Record:
        """Choose the scheme's numbers. Raises CapacityError where none carry the sum."""

    def least_sum(self, clients: int) -> int:
        """Return the fewest contributions of a cohort that are ever opened: more than half of it unless chosen.

        With one fewer clients on its side the server reads another's update: it lists theirs and that one's. Raises
        Misuse for a cohort that is smaller.
        """
        least = clients // 2 + 1 if self.min_survivors is None else self.min_survivors
        if least > clients:
            raise Misuse(
                f"min_survivors={least}, but the session has {clients} clients: no total could be opened"
            )
        return least

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Parameters:
        return Parameters(
            arrangement=str(self.arrangement),
            holder=self.arrangement.name if isinstance(self.arrangement, KeyHolder) else "",
            recipients=self.recipients,
            roster=hashlib.sha256(self._roster.encode()).digest() if self._roster else b"",
            least=self.least_sum(clients),
            scheme=self.scheme_parameters(clients, dimension, bound, modulus).encode(),
        )

    def check(self, session: Session) -> None:
        super().check(session)
        mine = self.parameters(session.clients, session.dimension, session.bound, int(session.modulus))
        if session.parameters != mine.encode():
            raise Misuse(
                "the session's parameters are not those that follow from this party's key, arrangement and options "
                f"({mine.arrangement}): give every party the same ones"
            )

    @property
    def recipients(self) -> tuple[str, ...]:
        return self.arrangement.clients if isinstance(self.arrangement, KeyHolder) else ()

    @property
    def clients_learn_sum(self) -> bool:
        return self.shared or bool(self.recipients)

    def helpers(self, session: Session) -> tuple[Party, ...]:
        return () if self.shared else (KEY_HOLDER,)

    def stages(self, session: Session) -> tuple[Stage, ...]:
        asked = Stage(INPUT, counts=True)
        if self.shared:
            return (asked, Stage(AGREE, needed=quorum(session.clients, 0)), Stage(OPEN))
        opened = Stage(OPEN, HOLDER)
        return (asked, opened, DELIVER) if self.recipients else (asked, opened)

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(
            HasCiphertexts, MayVote, MayOpen, AwaitsTotal, HoldsKey,
            AddsCiphertexts, GathersClientVotes, AwaitsHolder, AwaitsClients, Delivering,
        )  # fmt: skip

    def demands(self, session: Session) -> Demands:
        self.check(session)
        threshold = self.arrangement if isinstance(self.arrangement, Threshold) else None
        signed = self._roster is not None
        return Demands(
            cohort=session.clients,
            survivors=least_survivors(session),
            ring_bits=(int(session.modulus) - 1).bit_length() if session.modulus else session.ring_bits(),
            threat="malicious" if signed and not self.shared else "semi-honest",
            threshold=threshold.t if threshold else None,
            degree=threshold.n if threshold else None,
            signed_roster=signed,
            simulated=session.simulated,
        )

    def decode_state(self, data: bytes) -> State:
        try:
            state = super().decode_state(data)
            played: Session | None = getattr(state, "session", None)  # a Total has none
            if played is not None and played.protocol != self.tag:
                raise WireError(f"it is of a session of {played.protocol}")
            return state
        except WireError as error:
            raise WireError(
                f"no state of {self.tag}: {error}; another version's sessions are not continued"
            ) from None

    # -- parties --

    def asks_for_input(self, session: Session, accumulator: Accumulator) -> Step:
        """Start the server where nothing comes before the clients' ciphertexts."""
        everyone = tuple(range(session.clients))
        state = AddsCiphertexts(session, everyone, "client" if self.shared else HOLDER, accumulator)
        return Step(state, requests(session, INPUT, dict.fromkeys(map(client, everyone), Ask())))

    # -- signing keys --

    def _key_of(self, name: str, role: str) -> bytes:
        """Return a party's signing key (32 bytes) by the roster, empty without one. Raises Misuse for a stranger."""
        if self._roster is None:
            return b""
        keys = {member.name: member.key for member in self._roster.with_role(role)}
        if name not in keys:
            raise Misuse(f"the roster of {self._roster.federation!r} has no {role} {name!r}")
        return keys[name]

    def _signers(self, session: Session) -> bytes:
        """Return the clients' signing keys in roster order, 32 bytes each; empty if nobody signs."""
        return b"".join(self._key_of(name, "client") for name in session.roster)

    def _signer(self, name: str, role: str) -> Identity | None:
        """Return the identity that signs for `name`, None if nobody signs. Raises Misuse if it is not here."""
        if self._roster is None:
            return None
        if self._identity is None or self._identity.public != self._key_of(name, role):
            raise Misuse(
                f"expected the identity of {name!r} as the roster has it: "
                f"{type(self).__name__}(identity=..., roster=...)"
            )
        return self._identity
