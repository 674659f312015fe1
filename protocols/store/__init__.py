"""A party's own state: what it must remember between two messages, and must never do twice.

What belongs here: the `Store` interface, its two kinds (`MemoryStore`, `FileStore`) and the file primitives
under them. What does not: what the entries mean (a protocol's state, a ledger, a mark), which their owners
define.
"""

from protocols.store.base import AlreadyDone, MemoryStore, Store, Transaction
from protocols.store.file import FileStore
from protocols.store.files import StoreBusy, write_atomic

__all__ = ["AlreadyDone", "FileStore", "MemoryStore", "Store", "StoreBusy", "Transaction", "write_atomic"]
