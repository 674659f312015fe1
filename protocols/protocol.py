"""Protocol: what every multi-party protocol of this package is, whatever its result.

A protocol has a server, clients on a roster and perhaps helpers (key holders, decryptors); each client brings one
private input; the server (and whoever else the configuration names) ends in a state that holds the result.
What does not belong here: what the result is. A sum is `protocols.summation.SecureSum`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from protocols.audit_hooks import Hooks
from protocols.codec import decode_tagged, encode_tagged
from protocols.errors import Misuse, require
from protocols.kernel import Finished, Left, Party, State, Step
from protocols.policy import Demands, Policy
from protocols.randomness import SecureRandom, require_system
from protocols.session import Session
from protocols.statement import Protection

NO_MODEL = bytes(32)
Input = TypeVar("Input")


class Stage(NamedTuple):
    """One trip: the server asks, and parties of `role` answer. counts: a client that answers this stage has
    contributed (in a sum: it is a survivor). needed: the fewest answers, of those who are asked, with which the
    session can still end with a result (0: as many as `Demands.survivors`). While fewer have come, waiting is worth
    while.
    """

    name: str
    role: str = "client"
    counts: bool = False
    needed: int = 0


@dataclass(frozen=True, eq=False)
class ClientStart(Generic[Input]):
    """What a client starts a session with, once all that every protocol checks is checked.

    vector: its input. update: names what the input was made from. policy: what the client insists on; `demands` has
    met it. memory: what it keeps of earlier sessions (None: nothing).
    """

    session: Session
    index: int
    vector: Input = field(repr=False)
    update: bytes
    random: SecureRandom
    policy: Policy
    memory: bytes | None = field(default=None, repr=False)


class Protocol(ABC, Generic[Input]):
    """A protocol, configured but without any party's state.

    A subclass gives `name`, `version`, `kinds` (its state classes, the final one included) and the methods marked
    abstract; `tests/toys/coin.py` is a whole one in a page. Callers use `server`, `client` and `helper`, which check
    what every protocol must check, and then `State.receive` and `State.close`; `protocols.simulate` and
    `protocols.runtime.Runtime` drive any of them.

        first = protocol.server(session, random=SystemRandom())
        mine = protocol.client(session, 0, vector, random=SystemRandom())
        step = mine.state.receive(first.send[0], SystemRandom())     # the next state, what to send, what to mark

    Raises Misuse for a session of another protocol or parameters that do not fit, and for a random source that is not
    the operating system's outside a simulated session; PolicyRefusal where a session falls short of a party's policy.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    default_policy: Policy = Policy()
    takes_input_late: ClassVar[bool] = False
    """True if a client may start without its input (None) and be given it before it is asked (`supply`)."""

    # -- public facts --

    @abstractmethod
    def stages(self, session: Session) -> tuple[Stage, ...]:
        """The trips of this session, in order."""

    @abstractmethod
    def demands(self, session: Session) -> Demands:
        """What the session asks its clients to accept. Raises Misuse if the parameters do not decode."""

    def opens_with(self, session: Session) -> int:
        """Return how many clients must contribute, so that the session can end with a result."""
        counting = next(stage for stage in self.stages(session) if stage.counts)
        demands = self.demands(session)
        return max(counting.needed, demands.survivors, demands.threshold or 0)

    @abstractmethod
    def protection(self, session: Session) -> Protection:
        """Who learns what, under which assumption, and what is not protected."""

    def helpers(self, session: Session) -> tuple[Party, ...]:
        """Parties besides server and clients (key holders, decryptors)."""
        return ()

    def check(self, session: Session) -> None:
        """Raises Misuse if the session is not one of this protocol, or its parameters do not fit its cohort."""
        require(session.protocol == self.tag, f"a session of {self.tag}", f"one of {session.protocol}")

    @property
    def tag(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def keeps(self) -> str:
        """What its parties' memories are filed under: memories of one kind are found by this name, and no others."""
        return self.tag

    # -- parties --

    def server(self, session: Session, *, random: SecureRandom, memory: bytes | None = None) -> Step:
        """Start the server: its first state and the requests of the first stage.

        random: the source of its secrets. memory: what its last session returned in `Step.memory` (None: nothing).
        Raises Misuse if the session is not one of this protocol.
        """
        self._admit(session, random)
        return self._server(session, random, memory)

    def client(
        self,
        session: Session,
        index: int,
        vector: Input | None,
        *,
        random: SecureRandom,
        policy: Policy | None = None,
        update: bytes | None = None,
        memory: bytes | None = None,
    ) -> Step:
        """Start client `index` with its private input (None: it comes by `supply`).

        vector: the input; in a sum int64 [session.dimension], every coordinate in [-bound, bound] over Z, any int64
        over Z_M. update: what names the update that the input was made from (default: a digest of the input), so
        that it leaves only once. memory: what an earlier session of this party returned in `Step.memory`. The
        first step sends nothing: clients answer requests. Raises Misuse for a bad input, PolicyRefusal if
        the session falls short of `policy`.
        """
        policy = self._insists(session, random, policy)
        require(0 <= index < session.clients, f"a client index below {session.clients}", index)
        late = vector is None
        named = (self._not_yet(), update or b"") if late else self._named_input(session, vector, update)
        return self._client(ClientStart(session, index, *named, random, policy, memory))

    def supply(self, session: Session, state: State, vector: Input, update: bytes | None = None) -> State:
        """Return a client's state with the input that it was started without. Raises as `client` does."""
        raise Misuse(f"{self.tag} takes a client's input when the client starts")

    def _not_yet(self) -> Input:
        raise Misuse(f"{self.tag} takes a client's input when the client starts, got None")

    def _named_input(self, session: Session, vector: Any, update: bytes | None) -> tuple[Input, bytes]:
        checked = self.checked_input(session, vector)
        return checked, hashlib.sha256(self.input_bytes(checked)).digest() if update is None else update

    def helper(
        self,
        session: Session,
        party: Party,
        *,
        random: SecureRandom,
        policy: Policy | None = None,
        memory: bytes | None = None,
    ) -> Step:
        """Start a helper (key holder, decryptor), which waits for the server's requests.

        party: one of `helpers(session)`. policy: what it insists on, as for a client (default: `default_policy`).
        memory: as for a client. Raises Misuse for another party, or keys that this process does not hold, PolicyRefusal
        if the session falls short of `policy`.
        """
        policy = self._insists(session, random, policy)
        if party not in self.helpers(session):
            raise Misuse(
                f"{self.tag} has no {party}; its helpers are {[str(p) for p in self.helpers(session)]}"
            )
        return self._helper(session, party, random, policy, memory)

    def _insists(self, session: Session, random: SecureRandom, policy: Policy | None) -> Policy:
        """Return what a party that takes part insists on. Raises PolicyRefusal unless the session meets it."""
        self._admit(session, random)
        policy = policy or self.default_policy
        policy.check(self.demands(session))
        return policy

    def _admit(self, session: Session, random: SecureRandom) -> None:
        if not session.simulated:
            require_system(random)
        self.check(session)

    @abstractmethod
    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step: ...

    @abstractmethod
    def _client(self, start: ClientStart[Input]) -> Step: ...

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        raise Misuse(f"{self.tag} has no helpers")

    @staticmethod
    @abstractmethod
    def checked_input(session: Session, vector: Any) -> Any:
        """Return a client's input as the protocol takes it. Raises Misuse for anything else."""

    @staticmethod
    @abstractmethod
    def input_bytes(vector: Any) -> bytes | memoryview:
        """Return the bytes of a checked input. Their SHA-256 names the input where the caller gives it no name."""

    # -- state is data --

    @property
    @abstractmethod
    def kinds(self) -> Mapping[int, type[State]]:
        """The protocol's state classes by TAG (1 is Left)."""

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
        known: dict[int, type[State]] = {1: Left, **self.kinds}
        return decode_tagged(data, known)

    def result(self, state: State) -> Finished | None:
        """Return the final state if it holds a result, None for `Left` and for whatever has not ended."""
        return state if isinstance(state, Finished) and not isinstance(state, Left) else None
