"""The interface of a party's store, its transaction, and the kind that lives in memory.

What does not belong here: files, locks between processes, encryption (`file`, `sealed`, `files`).
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import final

from protocols.errors import Misuse, StoreError

MAX_NAME = 400
_VALUE, _MARK, _COUNTER = "value/", "mark/", "counter/"


class AlreadyDone(StoreError):
    """Something that may happen once was asked for again (a spent update, an answered stage, an old
    number).
    """


@final
class Transaction:
    """The entries of a store while it is held: changes are seen here at once and by others at the end, all or
    none.
    """

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        self._entries = dict(entries)
        self.changed = False

    def __repr__(self) -> str:
        return f"Transaction({len(self._entries)} entries)"

    def get(self, name: str) -> bytes | None:
        """Return the bytes stored under `name`, or None."""
        return self._entries.get(_VALUE + _checked(name))

    def put(self, name: str, value: bytes) -> None:
        """Store `value` under `name`. Raises Misuse unless it is bytes."""
        if not isinstance(value, bytes):
            raise Misuse(f"a store keeps bytes; {name!r} is {type(value).__name__}: encode it first")
        self._set(_VALUE + _checked(name), value)

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""
        if self._entries.pop(_VALUE + _checked(name), None) is not None:
            self.changed = True

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of the stored byte strings that start with `prefix`, sorted."""
        found = (k.removeprefix(_VALUE) for k in self._entries if k.startswith(_VALUE + prefix))
        return tuple(sorted(found))

    def mark_once(self, name: str) -> None:
        """Remember for ever that `name` happened. Raises AlreadyDone the second time; marks cannot be
        removed.
        """
        if self.marked(name):
            raise AlreadyDone(f"{name!r} was done before, and is done once only")
        self._set(_MARK + name, b"")

    def marked(self, name: str) -> bool:
        """Return whether `mark_once(name)` was committed (or made in this transaction)."""
        return _MARK + _checked(name) in self._entries

    def counter(self, name: str) -> int:
        """Return the counter's value; 0 before the first `advance`."""
        return int.from_bytes(self._entries.get(_COUNTER + _checked(name), b""), "big")

    def advance(self, name: str, to: int) -> None:
        """Set the counter to `to` (1 to 2^63 - 1). Raises AlreadyDone unless that is above its present
        value.
        """
        if not 1 <= to < 1 << 63:
            raise Misuse(f"counter {name!r}: expected 1 to 2^63 - 1, got {to}")
        if to <= (now := self.counter(name)):
            raise AlreadyDone(f"counter {name!r} only grows: it is {now}, {to} was asked for")
        self._set(_COUNTER + name, to.to_bytes(8, "big"))

    def entries(self) -> dict[str, bytes]:
        """Return a copy of all entries as they are to be saved (for the store itself)."""
        return dict(self._entries)

    def _set(self, key: str, value: bytes) -> None:
        self._entries[key] = value
        self.changed = True


class Store(ABC):
    """A party's own state: named byte strings, marks and counters, changed in atomic transactions.

    `with store.transaction() as t:` holds the store exclusively; what was changed is durable when the block
    has been left normally, and undone when it is left by an exception. Whoever answers a message leaves the
    block first.
    """

    def __init__(self) -> None:
        self._holder: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the store. Raises StoreError if it cannot be read or saved, Misuse when nested in one
        thread.
        """
        if self._holder == threading.get_ident():
            raise Misuse("a transaction is open in this thread already: use it, or leave it first")
        with self._exclusive():
            self._holder = threading.get_ident()
            try:
                version, entries = self._load()
                transaction = Transaction(entries)
                yield transaction
                if transaction.changed:
                    self._save(version + 1, transaction.entries())
            finally:
                self._holder = None

    @property
    def version(self) -> int:
        """How many transactions have changed the store; it only grows."""
        with self._exclusive():
            return self._load()[0]

    def get(self, name: str) -> bytes | None:
        """Return the bytes stored under `name`, or None."""
        with self.transaction() as t:
            return t.get(name)

    def put(self, name: str, value: bytes) -> None:
        """Store `value` under `name`, durably."""
        with self.transaction() as t:
            t.put(name, value)

    def delete(self, name: str) -> None:
        """Remove `name`, durably; nothing happens if it is not there."""
        with self.transaction() as t:
            t.delete(name)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of the stored byte strings that start with `prefix`, sorted."""
        with self.transaction() as t:
            return t.names(prefix)

    def mark_once(self, name: str) -> None:
        """Remember for ever that `name` happened. Raises AlreadyDone the second time."""
        with self.transaction() as t:
            t.mark_once(name)

    def marked(self, name: str) -> bool:
        """Return whether `name` was marked."""
        with self.transaction() as t:
            return t.marked(name)

    def advance(self, name: str, to: int) -> None:
        """Set a strictly increasing counter. Raises AlreadyDone unless `to` is above its present value."""
        with self.transaction() as t:
            t.advance(name, to)

    @abstractmethod
    def _exclusive(self) -> AbstractContextManager[None]:
        """Hold the store against every other thread and process."""

    @abstractmethod
    def _load(self) -> tuple[int, dict[str, bytes]]:
        """Return version and entries as last saved."""

    @abstractmethod
    def _save(self, version: int, entries: dict[str, bytes]) -> None:
        """Replace all entries, or raise StoreError and leave the previous ones whole."""


@final
class MemoryStore(Store):
    """A store that ends with its process: for simulations, and for parties that never restart."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._state: tuple[int, dict[str, bytes]] = (0, {})

    def __repr__(self) -> str:
        return f"MemoryStore(version={self._state[0]})"

    def copy(self) -> "MemoryStore":
        """Return a store with the same entries and marks, which goes its own way from here."""
        twin = MemoryStore()
        twin.replace_entries(self.entries())
        return twin

    def entries(self) -> dict[str, bytes]:
        """Return a copy of everything in the store."""
        with self._exclusive():
            return dict(self._state[1])

    def replace_entries(self, entries: Mapping[str, bytes]) -> None:
        """Put in place what `entries` returned: the store was with its party in another process."""
        with self._exclusive():
            self._state = (self._state[0] + 1, dict(entries))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            yield

    def _load(self) -> tuple[int, dict[str, bytes]]:
        return self._state

    def _save(self, version: int, entries: dict[str, bytes]) -> None:
        self._state = (version, entries)


def _checked(name: str) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        raise Misuse(f"an entry's name is a string of 1 to {MAX_NAME} characters")
    return name
