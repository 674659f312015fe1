"""SecureSum: what every secure sum promises, whatever the means (masks, Paillier, CKKS, in clear).

The promise: from the clients' integer vectors, exactly their sum over the survivors, in the group the session
declares. Survivors are the clients in the total: whose input counted, whether or not they stayed afterwards.
What does not belong here: drivers (`simulate`, `runtime`), floats (`quantise`), any particular protocol, what
protocols of any result share (`protocol`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from protocols.codec import BigInt, Record, decode_tagged
from protocols.errors import Misuse, PolicyRefusal
from protocols.kernel import Finished, Left, State
from protocols.protocol import NO_MODEL, Protocol
from protocols.randomness import SecureRandom
from protocols.session import Session

IntVector = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Total(Finished):
    """The server's (or another named party's) final state: the sum and who is in it.

    total: int64 [dimension]; over Z the exact sum, over Z_M representatives in [-M/2, M/2).
    survivors: indices of the clients in the total, ascending. blamed: parties that were seen to misbehave, or
    two of whom one did ("client 3 or client 0 (why)").
    """

    TAG = 2

    total: NDArray[np.int64]
    survivors: tuple[int, ...]
    blamed: tuple[str, ...] = ()


class SecureSum(Protocol[IntVector]):
    """Base of protocols whose result is the exact sum of the clients' int64 vectors.

    Callers use `session`, `server`, `client` and `helper`. A SecureSum is the last layer of a stack
    (`protocols.layers`); `PlainSum`, `secagg.SecAggPlus`, `he.PaillierSum` and `he.CKKSSum` are exchanged for each
    other. A backend of your own adds `parameters` to what `Protocol` asks for, and passes
    `tests/contracts/secure_sum.py`.

        protocol = SecAggPlus()
        session = protocol.session(["a", "b", "c", "d"], dimension=1000, bound=2**15 - 1, random=SystemRandom())
        isinstance(protocol, SecureSum), protocol.protection(session).threat   # True, 'semi-malicious'
    """

    builds_on_earlier: bool = False
    """Whether a session can fail because of who left an earlier one, as with reused keys."""
    server_sees_vectors: ClassVar[bool] = False
    """True if the server reads every client's vector (PlainSum)."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Clients that the configuration names to be given the sum too; each is on the roster of every session."""
        return ()

    @property
    def clients_learn_sum(self) -> bool:
        """True if a client sees the sum itself, before the server's layers decode it."""
        return bool(self.recipients)

    @abstractmethod
    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Record:
        """Choose the protocol's public parameters. Raises Misuse (CapacityError) if the demand cannot be
        met.
        """

    def check(self, session: Session) -> None:
        """Raises Misuse as `Protocol.check` does, and for a session without a client that is to be given the sum."""
        super().check(session)
        if missing := [name for name in self.recipients if name not in session.roster]:
            raise Misuse(
                f"the configuration names {missing[0]!r} to be given the sum, and it is no client of this session"
            )

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
        """Make a new session (the server does).

        roster: the clients' distinct names, in the order of their indices. dimension: coordinates of every vector, >=
        1. bound: public bound on every |coordinate|. modulus: 0 (default) for a sum over Z, else M, 2 to 2^62 or a
        power of two up to 2^64: the sum is taken in Z_M. round: counts from 1. model: 32 bytes that name all that
        clients were shown. simulated: other randomness than the operating system's may be used (False).
        min_survivors: fewest clients in a total, 1 by default. memory: what an earlier session of the server returned
        in `Step.memory`; a protocol whose set-up serves many sessions builds on it. Raises Misuse or CapacityError
        for an impossible one.
        """
        names = tuple(str(name) for name in roster)
        session = Session(
            protocol=self.tag,
            parameters=self.parameters(len(names), dimension, bound, modulus).encode(),
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
        return self.completed(session, memory)

    def over_network(self) -> Self:
        """Return the sum to play over a network, where every trip costs seconds: one with fewer trips where the user
        left that choice open, else this one.
        """
        return self

    def withstands(self, clients: int) -> int:
        """Return how many of `clients` may work with the server by this sum's own plan; 0 where it plans none.

        A layer that adds noise in shares does not count the shares of so many. Raises Misuse for a cohort that the
        protocol cannot serve.
        """
        return 0

    def completed(self, session: Session, memory: bytes | None) -> Session:
        """Return a new session with what it takes from this party's keys and memory; nothing by default."""
        return session

    # -- inputs and states --

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

    def supply(self, session: Session, state: State, vector: IntVector, update: bytes | None = None) -> State:
        """Return a client's state with the vector that it was started without. Raises as `client` does."""
        held = getattr(state, "vector", None)
        if not self.takes_input_late or held is None or held.size:
            raise Misuse(f"{type(state).__name__} does not wait for a vector")
        checked, name = self._named_input(session, vector, update)
        return cast(State, replace(cast(Any, state), vector=checked, update=name))  # such a state has both

    def _not_yet(self) -> IntVector:
        return np.empty(0, np.int64) if self.takes_input_late else super()._not_yet()

    @staticmethod
    def input_bytes(vector: IntVector) -> memoryview:
        return np.ascontiguousarray(vector).data

    def decode_state(self, data: bytes) -> State:
        """Inverse of encode_state. Raises WireError."""
        known: dict[int, type[State]] = {1: Left, 2: Total, **self.kinds}
        return decode_tagged(data, known)


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


def representatives(vector: IntVector, modulus: int) -> IntVector:
    """Return the representatives in [-M/2, M/2) of any int64 modulo M; the vector itself over Z (modulus 0)."""
    if not modulus:
        return vector
    return centred(vector if modulus & (modulus - 1) == 0 else np.mod(vector, modulus), modulus)
