"""SecureSum: what every secure sum promises, whatever the means (masks, Paillier, CKKS, in clear).

The promise: from the clients' integer vectors, exactly their sum over the survivors, in the group the session
declares. Survivors are the clients in the total: whose input counted, whether or not they stayed afterwards.
What does not belong here: drivers (`simulate`, `runtime`), floats (`quantise`), any particular protocol.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.audit_hooks import Hooks
from protocols.codec import BigInt, Record, decode_tagged, encode_tagged
from protocols.errors import Misuse, PolicyRefusal
from protocols.kernel import Finished, Left, Party, State, Step
from protocols.policy import Demands, Policy
from protocols.randomness import SecureRandom, require_system
from protocols.session import Session
from protocols.statement import Protection

NO_MODEL = bytes(32)
IntVector = NDArray[np.int64]


class Stage(NamedTuple):
    """One trip: the server asks, parties of `role` answer. `counts`: whoever answers this stage is a
    survivor.
    """

    name: str
    role: str = "client"
    counts: bool = False


@dataclass(frozen=True, eq=False)
class Total(Finished):
    """The server's (or another named party's) final state: the sum and who is in it.

    total: int64 [dimension]; over Z the exact sum, over Z_M representatives in [-M/2, M/2).
    survivors: indices of the clients in the total, ascending. blamed: parties that were seen to misbehave.
    """

    TAG: ClassVar[int | None] = 2

    total: NDArray[np.int64]
    survivors: tuple[int, ...]
    blamed: tuple[str, ...] = ()


class SecureSum(ABC):
    """A protocol, configured but without any party's state.

    A subclass gives `name`, `version`, `kinds` (its state classes) and the methods marked abstract; callers
    use `session`, `server`, `client` and `helper`, which check what every protocol must check, and then
    `State.receive` and `State.close`. A SecureSum is the last layer of a stack (`protocols.layers`).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    default_policy: Policy = Policy()

    # -- public facts --

    @abstractmethod
    def stages(self, session: Session) -> tuple[Stage, ...]:
        """The trips of this session, in order."""

    @abstractmethod
    def demands(self, session: Session) -> Demands:
        """What the session asks its clients to accept. Raises Misuse if the parameters do not decode."""

    @abstractmethod
    def protection(self, session: Session) -> Protection:
        """Who learns what, under which assumption, and what is not protected."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Clients that the configuration names to be given the sum too; each is on the roster of every session."""
        return ()

    @property
    def clients_learn_sum(self) -> bool:
        """True if a client sees the sum itself, before the server's layers decode it."""
        return bool(self.recipients)

    def helpers(self, session: Session) -> tuple[Party, ...]:
        """Parties besides server and clients (key holders, decryptors)."""
        return ()

    @abstractmethod
    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Record:
        """Choose the protocol's public parameters. Raises Misuse (CapacityError) if the demand cannot be
        met.
        """

    def check(self, session: Session) -> None:
        """Raises Misuse if the session is not one of this protocol, or its parameters do not fit its
        cohort.
        """
        if session.protocol != self.tag:
            raise Misuse(f"expected a session of {self.tag}, got one of {session.protocol}")
        if missing := [name for name in self.recipients if name not in session.roster]:
            raise Misuse(
                f"the configuration names {missing[0]!r} to be given the sum, and it is no client of this session"
            )

    @property
    def tag(self) -> str:
        return f"{self.name}/{self.version}"

    def session(
        self,
        roster: Sequence[str],
        dimension: int,
        bound: int,
        *,
        random: SecureRandom,
        modulus: int = 0,
        round: int = 1,
        model: bytes = NO_MODEL,
        simulated: bool = False,
        min_survivors: int = 1,
        memory: bytes | None = None,
    ) -> Session:
        """Make a new session (the server does). memory: what an earlier session of the server returned in
        `Step.memory`; a protocol whose set-up serves many sessions builds on it. Raises Misuse or CapacityError
        for an impossible one.
        """
        names = tuple(str(name) for name in roster)
        chosen = self.parameters(len(names), dimension, bound, modulus)
        session = Session(
            protocol=self.tag,
            parameters=chosen.encode(),
            roster=names,
            dimension=dimension,
            bound=bound,
            modulus=BigInt(modulus),
            round=round,
            model=model,
            nonce=random.bytes(16),
            simulated=simulated,
            min_survivors=min_survivors,
        )
        self.check(session)
        return session

    # -- parties --

    def server(self, session: Session, *, random: SecureRandom, memory: bytes | None = None) -> Step:
        """Start the server: its first state and the requests of the first stage."""
        self._admit(session, random)
        return self._server(session, random, memory)

    def client(
        self,
        session: Session,
        index: int,
        vector: NDArray[np.int64],
        *,
        random: SecureRandom,
        policy: Policy | None = None,
        update: bytes | None = None,
        memory: bytes | None = None,
    ) -> Step:
        """Start client `index` with its private input.

        vector: int64 [session.dimension], every coordinate in [-bound, bound] over Z, any int64 over Z_M.
        update: what names the update that this vector was made from (default: a digest of the vector), so
        that it leaves only once. memory: what an earlier session of this party returned in `Step.memory`. The
        first step sends nothing: clients answer requests. Raises Misuse for a bad vector, PolicyRefusal if
        the session falls short of `policy`.
        """
        self._admit(session, random)
        policy = policy or self.default_policy
        policy.check(self.demands(session))
        if not 0 <= index < session.clients:
            raise Misuse(f"expected a client index below {session.clients}, got {index}")
        vector = self.checked_input(session, vector)
        if update is None:
            update = hashlib.sha256(np.ascontiguousarray(vector).data).digest()
        return self._client(session, index, vector, random, policy, update, memory)

    def helper(
        self,
        session: Session,
        party: Party,
        *,
        random: SecureRandom,
        policy: Policy | None = None,
        memory: bytes | None = None,
    ) -> Step:
        """Start a helper (key holder, decryptor)."""
        self._admit(session, random)
        if party not in self.helpers(session):
            raise Misuse(
                f"{self.tag} has no {party}; its helpers are {[str(p) for p in self.helpers(session)]}"
            )
        return self._helper(session, party, random, policy or self.default_policy, memory)

    def _admit(self, session: Session, random: SecureRandom) -> None:
        if not session.simulated:
            require_system(random)
        self.check(session)

    @abstractmethod
    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step: ...

    @abstractmethod
    def _client(
        self,
        session: Session,
        index: int,
        vector: IntVector,
        random: SecureRandom,
        policy: Policy,
        update: bytes,
        memory: bytes | None,
    ) -> Step: ...

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        raise Misuse(f"{self.tag} has no helpers")

    @staticmethod
    def checked_input(session: Session, vector: NDArray[Any]) -> IntVector:
        """Return the vector as int64 after checking dtype, shape and range. Raises Misuse."""
        vector = np.asarray(vector)
        if vector.dtype.kind not in "iu" or vector.shape != (session.dimension,):
            raise Misuse(
                f"expected an integer vector of shape ({session.dimension},), "
                f"got {vector.dtype} of shape {vector.shape}"
            )
        if vector.dtype.kind == "u" and vector.size and int(vector.max()) > np.iinfo(np.int64).max:
            raise Misuse("expected coordinates that fit in int64")
        vector = vector.astype(np.int64, copy=False)
        if not session.modulus and vector.size:
            low, high = int(vector.min()), int(vector.max())
            if low < -session.bound or high > session.bound:
                raise PolicyRefusal(
                    f"expected coordinates in [-{session.bound}, {session.bound}], got [{low}, {high}]: "
                    "nothing saturates silently"
                )
        return vector

    # -- state is data --

    @property
    @abstractmethod
    def kinds(self) -> Mapping[int, type[State]]:
        """The protocol's state classes by TAG (1 and 2 are Left and Total)."""

    def encode_state(self, state: State) -> bytes:
        """Return the strict encoding of any role's state: secret, for its owner's store only."""
        return encode_tagged(state)

    @property
    def audit_hooks(self) -> Hooks:
        """What the protocol tells an audit about itself; override it to be checked more deeply."""
        return Hooks()

    def forgets(self, state: State) -> bool:
        """True if a finished state holds nothing worth keeping: its entry in the store is deleted."""
        return isinstance(state, Left)

    def decode_state(self, data: bytes) -> State:
        """Inverse of encode_state. Raises WireError."""
        return decode_tagged(data, {1: Left, 2: Total, **self.kinds})


def add_into(total: NDArray[np.uint64], vector: IntVector, modulus: int) -> None:
    """Add `vector` to `total` in place: modulo 2^64 over Z (modulus 0) and for powers of two, else modulo M
    <= 2^62.
    """
    if modulus & (modulus - 1) == 0:
        np.add(total, vector.view(np.uint64), out=total)
        return
    np.add(total, np.mod(vector, modulus).view(np.uint64), out=total)
    np.mod(total, np.uint64(modulus), out=total)


def centred(values: NDArray[np.uint64] | NDArray[np.int64], modulus: int) -> IntVector:
    """Return the representatives in [-M/2, M/2) of residues modulo M (2 <= M <= 2^64) as int64."""
    residues = np.asarray(values).astype(np.uint64, copy=False)
    if modulus == 1 << 64:
        return residues.view(np.int64)
    if modulus & (modulus - 1) == 0:
        shift = np.uint64(64 - (modulus.bit_length() - 1))
        return (residues << shift).view(np.int64) >> shift.astype(np.int64)
    reduced = residues % np.uint64(modulus)
    upper = reduced >= np.uint64((modulus + 1) // 2)
    return np.where(upper, reduced - np.uint64(modulus), reduced).view(np.int64)
