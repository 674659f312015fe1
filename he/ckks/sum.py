"""CKKSSum: exact sums of integer vectors under SEAL's CKKS, opened by a key holder or by clients that share
a key.

What does not belong here: the parties' states (client, holder, server), parameters, ciphertexts.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from he.ckks.client import Joining, Own, Ready
from he.ckks.holder import ME, Holding, Secrets, Waiting
from he.ckks.keys import SharedKey
from he.ckks.messages import AGREE, HOLDER, INPUT, JOIN, KEY, OPEN, Ask, Settings
from he.ckks.parameters import choose
from he.ckks.protection import protection
from he.ckks.server import Agreements, Inputs, Joins, Keys, Opening, ask, settings
from he.ckks.shared import Member, Shared, SharedOpening, SharedReady, SharedSent
from he.delivery import DELIVER, Delivering, Receiving
from he.keys import Arrangement, KeyHolder, SharedByClients, check_recipients
from he.keys import arrangement as named
from protocols.audit_hooks import Hooks
from protocols.codec import tags
from protocols.errors import Misuse, WireError
from protocols.identity import Identity, Roster
from protocols.kernel import Party, State, Step, client
from protocols.policy import Demands, Policy
from protocols.protocol import Stage
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, SecureSum, centred


class CKKSSum(SecureSum):
    """A secure sum by CKKS with coefficient packing.

    arrangement: `KeyHolder()` (default), `SharedByClients()`, or their names "keyholder" and "shared".
    Threshold CKKS is not offered: docs/ckks.md says why. min_survivors: fewest contributions that are ever
    opened. key: the clients' shared key for `SharedByClients`, or the path of its file; the server's
    instance has none. Without one, an instance makes its own for the simulated parties of one process;
    parties that were set up apart then open nothing. identity, roster: this party's signing key, and the
    verified roster of all clients and of the key holder, by the name that the arrangement gives it; then
    every key that the server relays is signed. Raises Misuse for options that do not fit.
    """

    name = "ckks"

    def __init__(
        self,
        arrangement: Arrangement | str | None = None,
        min_survivors: int = 2,
        key: SharedKey | str | Path | None = None,
        identity: Identity | None = None,
        roster: Roster | None = None,
    ) -> None:
        if arrangement is None:
            arrangement = KeyHolder()
        self.arrangement = named(arrangement) if isinstance(arrangement, str) else arrangement
        if not isinstance(self.arrangement, KeyHolder | SharedByClients):
            raise Misuse(
                "CKKS has no threshold arrangement here (docs/ckks.md says why): "
                "choose KeyHolder or SharedByClients, or PaillierSum for a threshold key"
            )
        if min_survivors < 1:
            raise Misuse(f"expected min_survivors >= 1, got {min_survivors}")
        if key is not None and not self.shared:
            raise Misuse(
                "a shared key goes with SharedByClients only; a key holder makes its own for every session"
            )
        if roster is not None and self.shared:
            raise Misuse("a roster goes with a key holder; clients that share a key know each other by it")
        if identity is not None and roster is None:
            raise Misuse("an identity signs for those who know its key: give the verified roster too")
        check_recipients(self.arrangement, roster)
        self.min_survivors = min_survivors
        if isinstance(key, str | Path):
            key = SharedKey.load(key)
        if key is not None and not isinstance(key, SharedKey):
            raise Misuse(f"expected a SharedKey or the path of its file, got {type(key).__name__}")
        self._key = key or SharedKey.generate(simulated=True)
        self._identity, self._roster = identity, roster

    @property
    def shared(self) -> bool:
        return isinstance(self.arrangement, SharedByClients)

    # -- public facts -------------------------------------------------------------------------------------------------

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(
            Ready, Joining, Receiving, SharedReady, SharedSent, SharedOpening, Waiting, Holding,
            Joins, Keys, Inputs, Agreements, Opening, Delivering,
        )  # fmt: skip

    @property
    def audit_hooks(self) -> Hooks:
        from he.ckks.audit_hooks import make

        return make(self)

    def stages(self, session: Session) -> tuple[Stage, ...]:
        if self.shared:
            return (Stage(INPUT, counts=True), Stage(AGREE), Stage(OPEN))
        trips = (Stage(JOIN), Stage(KEY, HOLDER), Stage(INPUT, counts=True), Stage(OPEN, HOLDER))
        return (*trips, DELIVER) if self.recipients else trips

    @property
    def recipients(self) -> tuple[str, ...]:
        return self.arrangement.clients if isinstance(self.arrangement, KeyHolder) else ()

    @property
    def clients_learn_sum(self) -> bool:
        return self.shared or bool(self.recipients)

    def helpers(self, session: Session) -> tuple[Party, ...]:
        return () if self.shared else (ME,)

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Settings:
        """Choose the ring. Raises CapacityError if no parameters of 128 bits carry the sum."""
        holder = self.arrangement.name if isinstance(self.arrangement, KeyHolder) else ""
        chosen = choose(clients, dimension, modulus // 2 if modulus else bound, self.shared)
        roster = hashlib.sha256(self._roster.encode()).digest() if self._roster else b""
        return Settings(str(self.arrangement), holder, roster, self.min_survivors, chosen, self.recipients)

    def check(self, session: Session) -> None:
        super().check(session)
        expected = self.parameters(session.clients, session.dimension, session.bound, int(session.modulus))
        if session.parameters != expected.encode():
            raise Misuse(
                "the session's parameters are not what this sum derives from its cohort, bound and arrangement: "
                f"expected {expected}"
            )

    def demands(self, session: Session) -> Demands:
        chosen = self._settings(session)
        bits = chosen.ckks.modulus.bit_length()
        signed = bool(chosen.roster)
        threat = "malicious" if signed else "semi-honest"
        return Demands(
            session.clients,
            max(chosen.least, session.min_survivors),
            bits,
            threat,
            signed_roster=signed,
            simulated=session.simulated,
        )

    @staticmethod
    def _settings(session: Session) -> Settings:
        try:
            return settings(session)
        except WireError as error:
            raise Misuse(f"the session's parameters do not decode: {error}") from None

    def protection(self, session: Session) -> Protection:
        return protection(self._settings(session), self.demands(session).survivors)

    # -- parties ------------------------------------------------------------------------------------------------------

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        everyone = {client(i): Ask() for i in range(session.clients)}
        if self.shared:
            return Step(Inputs.empty(session, tuple(range(session.clients))), ask(session, INPUT, everyone))
        return Step(Joins(session, {}), ask(session, JOIN, everyone))

    def _client(
        self,
        session: Session,
        index: int,
        vector: IntVector,
        random: SecureRandom,
        policy: Policy,
        update: bytes,
        memory: bytes | None,
    ) -> Step:
        own = Own(session, index, _representatives(vector, int(session.modulus)), update)
        if isinstance(self.arrangement, KeyHolder):
            identity = self._signer(session.roster[index], "client")
            signer = self._key_of(self.arrangement.name, HOLDER)
            return Step(Ready.of(own, identity, signer, policy.min_survivors, random))
        least = max(self.min_survivors, policy.min_survivors, session.min_survivors)
        return Step(SharedReady(own, Member(session, index, Shared.of(self._key.secret, session), least)))

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        assert isinstance(self.arrangement, KeyHolder)
        secrets = Secrets.make(session, random)
        published = secrets.published(session, self._signer(self.arrangement.name, HOLDER))
        signers = b"".join(self._key_of(name, "client") for name in session.roster)
        return Step(
            Waiting(
                session,
                max(self.min_survivors, policy.min_survivors, session.min_survivors),
                signers,
                secrets,
                published,
            )
        )

    def _key_of(self, name: str, role: str) -> bytes:
        """Return a party's signing key by the roster; empty without one. Raises Misuse if it is not on it."""
        if self._roster is None:
            return b""
        for member in self._roster.with_role(role):
            if member.name == name:
                return member.key
        raise Misuse(f"the roster of {self._roster.federation!r} has no {role} {name!r}")

    def _signer(self, name: str, role: str) -> Identity | None:
        """Return the identity that signs for `name`. Raises Misuse if this process has another, or none."""
        if self._roster is None:
            return None
        if self._identity is None or self._identity.public != self._key_of(name, role):
            raise Misuse(
                f"expected the identity of {name!r} as the roster has it: CKKSSum(identity=..., roster=...)"
            )
        return self._identity


def _representatives(vector: IntVector, modulus: int) -> IntVector:
    """Return what is encrypted: the vector over Z, representatives in [-M/2, M/2) over Z_M."""
    if not modulus:
        return vector
    return centred(vector if modulus & (modulus - 1) == 0 else np.mod(vector, modulus), modulus)
