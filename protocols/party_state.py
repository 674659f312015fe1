"""What a client keeps from round to round for a layer or a strategy, in its own store: pending until its round closed.

A client learns with a later broadcast which round was the last that closed with its input in the total. What it kept
in that round is settled then; what it kept in a round that was abandoned, or that closed without it, is rolled back.
What does not belong here: who decides that a round closed (`fl.round`), stores.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse, refuse
from protocols.layers import RoundFacts
from protocols.store import Store, Transaction

KEPT = "kept/"
"""The names of these entries of a store begin with this."""
LASTING = "/lasting"
"""Entries whose names end with this outlive their run: they say what their party must never do again in it."""
UNTIL = "/until"
"""An entry whose name ends with this says when the entries beside it expire, in seconds since 1970."""
SCHEMA = "/schema"
"""An entry whose name ends with this holds the digest of the schema of the model that arrays were kept beside."""
CLOSED = "closed"
"""Under this name the server broadcasts, for each client asked, the last round that closed with its input (0: none)."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class HeldArray(Record):
    """One array, bit for bit. dtype: NumPy's, in little-endian order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self:
        ordered = np.asarray(array, array.dtype.newbyteorder("<"))
        return cls(ordered.dtype.str, ordered.shape, ordered.tobytes())

    def array(self) -> NDArray[Any]:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Held(Record):
    """Arrays of one round. round: its number. values: by name."""

    round: int
    values: dict[str, HeldArray] = field(repr=False)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: held.array() for name, held in self.values.items()}


def erase(store: Store, scope: str, owners: Collection[str] = ("",)) -> None:
    """Erase all that the run `scope` (`RoundFacts.scope`) keeps in a store, but for `LASTING` entries: it is over, and
    cannot go on. owners: of these layers and strategies alone (default: of all).
    """
    with store.transaction() as t:
        for owner in owners:
            _erase(t, f"{KEPT}{scope}/{owner}/" if owner else f"{KEPT}{scope}/")


def expire(store: Store, now: float) -> None:
    """Erase what was kept for a time that is over (`PartyState.keep`). now: seconds since 1970."""
    with store.transaction() as t:
        for name in t.names(KEPT):
            if name.endswith(UNTIL) and float((t.get(name) or b"0").decode()) < now:
                _erase(t, name.removesuffix(UNTIL[1:]))


def _erase(t: Transaction, begins: str) -> None:
    for name in t.names(begins):
        if not name.endswith(LASTING):
            t.delete(name)


@dataclass(frozen=True)
class PartyState:
    """One owner's arrays at one client, in one run. Whoever uses it calls `keep` in every round that it takes part in.
    A run reads nothing that another one kept here.

    It is bound to the names, shapes and dtypes of the model that it was kept beside (`RoundFacts.schema`).

    state = PartyState.of(facts, "scaffold")
    control = state.arrays().get("control", zeros)
    state.keep({"control": control + change})
    """

    store: Store
    scope: str
    owner: str
    round: int
    closed: int
    schema: bytes = b""
    settled: Held | None = field(default=None, repr=False)

    @classmethod
    def of(cls, facts: RoundFacts, owner: str) -> Self:
        """Return the state of `owner` (a layer's or strategy's name) at the client `facts.client`.

        Raises Misuse where the client has no store or the server does not say which rounds closed (an owner sets
        `keeps_state` for that), ProtocolViolation where the server and this client do not agree on the last round.
        """
        if facts.store is None or CLOSED not in facts.public:
            raise Misuse(
                f"{owner}: expected a store of the client's own and a broadcast that says which rounds closed; "
                "set keeps_state on the layer or strategy, and play the rounds with a Federation"
            )
        closed = int(facts.number_for(CLOSED, facts.client, 0))
        state = cls(facts.store, facts.scope, owner, facts.number, closed, facts.schema)
        return replace(state, settled=state._settle())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was kept in the last round that closed with this client, empty before the first.

        Raises ProtocolViolation for what was kept beside a model of other arrays.
        """
        found = {} if self.settled is None else self.settled.arrays()
        if (made := found.pop(SCHEMA, None)) is not None and made.tobytes() != self.schema:
            raise refuse(
                f"{self.owner}: this client's state was kept beside a model of other names, shapes or dtypes: go on "
                "with that model, or begin a new run"
            )
        return found

    def keep(
        self, arrays: Arrays, still: Collection[str] | None = None, seconds: float | None = None
    ) -> None:
        """Keep arrays of this round, durably, until a later broadcast settles them or they are rolled back.

        arrays: numbers of any dtype and shape, by name. still: what was kept in closed rounds under other names is
        erased, for no later round needs it (None: nothing is). seconds: after which all that the owner keeps in this
        run dies if no round comes (`expire`; None: never).
        """
        beside = {SCHEMA: np.frombuffer(self.schema, np.uint8)} if self.schema else {}
        values = {name: HeldArray.of(np.asarray(array)) for name, array in {**arrays, **beside}.items()}
        with self.store.transaction() as t:
            t.put(self._key("pending"), Held(self.round, values).encode())
            if seconds is not None:
                t.put(self._key(UNTIL[1:]), f"{time.time() + seconds:.0f}".encode())
            if still is not None and self.settled is not None:
                left = {n: held for n, held in self.settled.values.items() if n in (*still, SCHEMA)}
                t.put(self._key("settled"), Held(self.settled.round, left).encode())

    def _settle(self) -> Held | None:
        """Return what was kept in the last round that closed. Nothing changes where the server is wrong about it."""
        with self.store.transaction() as t:
            data = t.get(self._key("pending"))
            pending = None if data is None else Held.decode(data)
            if data is not None and pending is not None and pending.round == self.closed:
                t.put(self._key("settled"), data)
                settled: Held | None = pending
            else:
                data = t.get(self._key("settled"))
                settled = None if data is None else Held.decode(data)
            if (known := 0 if settled is None else settled.round) != self.closed:
                raise refuse(
                    f"{self.owner}: the server says that round {self.closed} was the last that closed with this "
                    f"client; its own state of this run is of round {known}: {self._blame(known, t)}"
                )
            if pending is not None and pending.round < self.round:
                t.delete(self._key("pending"))
        return settled

    def _blame(self, known: int, held: Transaction) -> str:
        others = set(held.names(KEPT)) - set(held.names(f"{KEPT}{self.scope}/"))
        if not known and any(f"/{self.owner}/" in name for name in others):
            return "what it holds is of another run: put this run's state back, or begin a new run"
        return "the state or the server's run was lost, erased when the run ended, or put back"

    def _key(self, kind: str) -> str:
        return f"{KEPT}{self.scope}/{self.owner}/{kind}"
