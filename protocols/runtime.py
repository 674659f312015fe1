"""A party between messages: load, step, save, then send. What does not belong here: transport, deadlines,
cryptography.

The order is what keeps promises across crashes: state, marks and memory are synced to the party's own store
before an answer leaves, and a mark that is set already refuses the step. So a party that is killed,
restarted, run twice or fed the same message again never answers twice.

Rounds follow one another: when a session begins, what unfinished sessions of earlier rounds left (keys, chains, inputs)
is erased, and `abandon` erases one whose time is over. When an input leaves, or a memory moves on, what waits in other
sessions to send that input too, or with what the memory has left behind, is erased with it. Results stay.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

from protocols.errors import Misuse, PolicyRefusal, SpentUpdate, WireError
from protocols.kernel import Finished, Message, State, Step
from protocols.protocol import Input, Protocol
from protocols.randomness import SecureRandom, SystemRandom
from protocols.session import Session
from protocols.store import Store, Transaction
from protocols.summation import Total

Start = Callable[[bytes | None], Step]
"""Makes a party's first step of a session from what it keeps of earlier ones."""


def recall(store: Store, protocol: Protocol[Input], series: str = "") -> bytes | None:
    """Return what the party keeps beyond a session of a series, to be handed to `Protocol.client(memory=...)`."""
    with store.transaction() as transaction:
        return _kept(transaction, protocol, _hashed(protocol, series))


def forget(store: Store, protocol: Protocol[Input], series: str = "") -> None:
    """Erase what the party keeps beyond a session of a series: set-ups of reused keys, counts of sessions.

    A session that waits to send its input under such keys is refused from then on, and erased when a later one begins.
    One whose input left before still answers what its total needs.
    """
    with store.transaction() as transaction:
        for name in (f"memory/{_hashed(protocol, series)}", _of_all(protocol)):
            transaction.delete(name)


def _hashed(protocol: Protocol[Input], series: str) -> str:
    return hashlib.sha256(f"{protocol.keeps}/{series}".encode()).hexdigest()


def _of_all(protocol: Protocol[Input]) -> str:
    """Where earlier versions kept one memory for all series: the first series that needs one takes it over."""
    return f"memory/{protocol.tag}"


def _kept(transaction: Transaction, protocol: Protocol[Input], hashed: str) -> bytes | None:
    own = transaction.get(f"memory/{hashed}")
    return transaction.get(_of_all(protocol)) if own is None else own


def remember(
    transaction: Transaction,
    protocol: Protocol[Input],
    step: Step,
    hashed: str | None = None,
    *,
    series: str = "",
    allow_resend: bool = False,
) -> None:
    """Set a step's marks and keep its memory. Raises SpentUpdate if a mark is set already.

    series: which the memory is of; hashed: its name in the store, where that is known.
    """
    for mark in step.marks:
        if transaction.marked(mark):
            if allow_resend and mark.startswith("spent/"):
                continue
            raise SpentUpdate(
                f"{mark.partition('/')[0]}: this party answered with it once; it is not sent a second time"
            )
        transaction.mark_once(mark)
    if step.memory is not None:
        transaction.put(f"memory/{hashed or _hashed(protocol, series)}", step.memory)
        transaction.delete(_of_all(protocol))


@dataclass(eq=False)
class Runtime(Generic[Input]):
    """One party's side of one session, on top of its store. Any number of processes may hold one: the
    store's lock serialises.

    protocol, session: what is played. store: the party's own, where state, marks and memory are synced before an answer
    is returned. allow_resend: whether an update that left once may leave again (False). random: the source of its
    secrets (the operating system's).

        party = Runtime(protocol, session, FileStore("site.state", "site-1"))
        party.begin(lambda memory: protocol.client(session, index, vector, random=SystemRandom(), memory=memory))
        answers = party.handle(request)          # send them; a second `handle(request)` is refused

    The server's side is begun with `protocol.server(...)`, takes answers by `handle`, goes on by `close` and ends in
    `total`.
    """

    protocol: Protocol[Input]
    session: Session
    store: Store
    allow_resend: bool = field(default=False, kw_only=True)
    random: SecureRandom = field(default_factory=SystemRandom, kw_only=True)

    @property
    def _key(self) -> str:
        return f"session/{self.session.context.hex()}"

    def begin(self, first: Step | Start, series: str = "") -> tuple[Message, ...]:
        """Save the first step (of `Protocol.client`, `.server` or `.helper`) and return what to send. Unfinished
        sessions of this protocol, series and store with an earlier round are over, and erased.

        first: the step, or a function that makes it from the memory of earlier sessions (`recall`). A party that keeps
        a memory gives a function: it is called while the store is held, so that two sessions that begin at the same
        moment do not start from the same memory; a step that would replace a memory is refused (Misuse). series: names
        the rounds that follow one another, where a store serves several federations, each with a memory of its own:
        the party's name for them, not one that a server may invent, for counts begin anew in each. Raises SpentUpdate
        if this session was begun here before: a session is not begun twice.
        """
        with self.store.transaction() as transaction:
            if transaction.marked(f"begun/{self._key}"):
                raise SpentUpdate(
                    "begun: this party took part in this session before; a retry is a new session"
                )
            transaction.mark_once(f"begun/{self._key}")
            self._supersede(transaction, hashed := _hashed(self.protocol, series))
            kept = _kept(transaction, self.protocol, hashed)
            if not callable(first) and first.memory is not None and kept is not None:
                raise Misuse(
                    "begin: this party keeps a memory between sessions, and this step may not have been made from it: "
                    "give `begin` a function of its memory that returns the step"
                )
            step = first(kept) if callable(first) else first
            return self._save(transaction, step, hashed)

    def handle(self, message: Message) -> tuple[Message, ...]:
        """Take one message in a session that has begun; return the answers, to be sent as they are.

        Raises PolicyRefusal if there is no such session here, SpentUpdate, PeerError, Aborted; then nothing
        was saved.
        """
        return self._advance(lambda state: state.receive(message, self.random))

    def close(self) -> tuple[Message, ...]:
        """Nobody else will answer this stage: return the server's next requests. Raises as `handle` does."""
        return self._advance(lambda state: state.close(self.random))

    def abandon(self) -> None:
        """Erase what this session left in the store, unless it has ended: its time is over, it cannot go on."""
        with self.store.transaction() as transaction:
            for mine in self._mine(transaction):
                mine.erase(transaction)

    def _supersede(self, transaction: Transaction, series: str) -> None:
        """Erase the open sessions of earlier rounds, and note this one as open."""
        for one in _noted(transaction, series):
            if one.round < self.session.round:
                one.erase(transaction)
        transaction.put(f"open/{series}/{self.session.round}/{self._key}", b"")

    def _mine(self, transaction: Transaction) -> list["_Noted"]:
        """How this session is noted as open, if it is."""
        return [one for one in _noted(transaction) if one.key == self._key]

    def _advance(self, take: Callable[[State], Step]) -> tuple[Message, ...]:
        with self.store.transaction() as transaction:
            saved = transaction.get(self._key)
            if saved is None:
                raise PolicyRefusal("no such session was begun here, or it is over")
            state, mine = self.protocol.decode_state(saved), self._mine(transaction)
            series = mine[0].series if mine else _hashed(self.protocol, "")
            if state.over(_kept(transaction, self.protocol, series)):
                raise PolicyRefusal(
                    "this session is over: its party moved on in another one, and has no keys for it"
                )
            return self._save(transaction, take(state), series)

    def _close_others(self, transaction: Transaction) -> None:
        """Erase the open sessions that the last step ended: by what left, or by what its series keeps now."""
        for other in _noted(transaction):
            if other.key != self._key and (
                self._has_left(transaction, other) or self._left_behind(transaction, other)
            ):
                other.erase(transaction)

    def _has_left(self, transaction: Transaction, other: "_Noted") -> bool:
        """Whether the update that a session waits to send has left: noted beside it, for sessions of any protocol."""
        mark = (transaction.get(other.name) or b"").decode()
        return bool(mark) and not self.allow_resend and transaction.marked(mark)

    def _left_behind(self, transaction: Transaction, other: "_Noted") -> bool:
        saved, kept = transaction.get(other.key), _kept(transaction, self.protocol, other.series)
        with suppress(WireError):  # of another protocol, which keeps a memory of its own
            return saved is not None and self.protocol.decode_state(saved).over(kept)
        return False

    def result(self) -> Finished | None:
        """Return the final state that holds this party's result, None before that and for whoever has none."""
        saved = self.store.get(self._key)
        return None if saved is None else self.protocol.result(self.protocol.decode_state(saved))

    def total(self) -> Total | None:
        """Return the total that this party ended with: the server, or a client that is given it."""
        ended = self.result()
        return ended if isinstance(ended, Total) else None

    def _save(self, transaction: Transaction, step: Step, series: str) -> tuple[Message, ...]:
        remember(transaction, self.protocol, step, series, allow_resend=self.allow_resend)
        if self.protocol.forgets(step.state):
            transaction.delete(self._key)
        else:
            transaction.put(self._key, self.protocol.encode_state(step.state))
        if step.marks or step.memory is not None:
            self._close_others(transaction)
        for mine in self._mine(transaction):
            if step.state.finished:
                transaction.delete(mine.name)
            else:
                transaction.put(mine.name, step.state.ends_with.encode())
        return step.send


class _Noted(NamedTuple):
    """A session that is noted as open, under a name of the store. key: where its state is."""

    name: str
    series: str
    round: int
    key: str

    def erase(self, transaction: Transaction) -> None:
        transaction.delete(self.key)
        transaction.delete(self.name)


def _noted(transaction: Transaction, series: str = "") -> list[_Noted]:
    """The open sessions of a series, or of all."""
    found = [name.split("/", 3) for name in transaction.names(f"open/{series}")]
    return [_Noted("/".join(parts), parts[1], int(parts[2]), parts[3]) for parts in found]
