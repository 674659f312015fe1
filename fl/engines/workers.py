"""Clients that train in processes of their own, so that a simulation uses several cores.

Each round forks afresh: a child has the round, the user's loop and the data without a copy, trains every `count`-th
client in the order of the roster, and sends back each client's integer vector and store. What does not belong here:
sums, messages, what a client computes.

A child's changes to anything but its clients' stores end with it: a loop that counts in a closure, or a layer that
keeps accounts in this process, does not see them.
"""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols import errors
from protocols.codec import Record
from protocols.errors import Misuse, SecAggError
from protocols.store import MemoryStore

Vector = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Trained(Record):
    """What a child says of one client: its vector and its store; or the error that its training ended in."""

    name: str
    vector: NDArray[np.int64] = field(repr=False)
    entries: dict[str, bytes] = field(repr=False)
    kind: str = ""
    reason: str = ""


class Workers:
    """`count` processes that train `names`, in order. Use it as a context: leaving it ends them.

    train: from a client's name to its vector (int64). stores: the clients' stores, which are brought up to date as
    vectors are taken.
    """

    def __init__(
        self,
        count: int,
        names: Sequence[str],
        train: Callable[[str], Vector],
        stores: Callable[[str], MemoryStore],
    ) -> None:
        self.train, self.stores = train, stores
        self.shares = [names[k::count] for k in range(min(count, len(names)))]
        self.place = {name: k for k, share in enumerate(self.shares) for name in share}
        self.pipes: list[Connection] = []
        self.children: list[multiprocessing.process.BaseProcess] = []
        self.early: dict[str, _Trained] = {}

    def __enter__(self) -> Self:
        fork = multiprocessing.get_context("fork")
        sys.stdout.flush()
        for share in self.shares:
            here, there = fork.Pipe(duplex=False)
            child = fork.Process(target=self._work, args=(share, there), daemon=True)
            child.start()
            there.close()
            self.pipes.append(here)
            self.children.append(child)
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, child in zip(self.pipes, self.children, strict=True):
            pipe.close()
            child.terminate()
            child.join()

    def take(self, name: str) -> Vector:
        """Return a client's vector once it is trained. Raises the project's error that its training raised, Misuse for
        any other (the child printed where it was raised) and for a child that died.
        """
        while name not in self.early:
            self._receive(name)
        trained = self.early.pop(name)
        if trained.kind:
            kind = getattr(errors, trained.kind, None)
            if isinstance(kind, type) and issubclass(kind, SecAggError):
                raise kind(trained.reason)
            raise Misuse(f"client {name!r} failed in its worker process: {trained.kind}: {trained.reason}")
        self.stores(name).replace_entries(trained.entries)
        return trained.vector

    def _receive(self, name: str) -> None:
        at = self.place[name]
        try:
            trained = _Trained.decode(self.pipes[at].recv_bytes())
        except (EOFError, OSError):
            self.children[at].join(1)
            code = self.children[at].exitcode
            raise Misuse(f"the worker process that trained {name!r} died (exit code {code})") from None
        self.early[trained.name] = trained

    def _work(self, names: Sequence[str], pipe: Connection) -> None:
        """In a child: train, send, end without this process's clean-up."""
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)  # the parent's threads do not exist here
        for name in names:
            pipe.send_bytes(self._trained(name).encode())
        pipe.close()
        os._exit(0)

    def _trained(self, name: str) -> _Trained:
        try:
            return _Trained(name, self.train(name), self.stores(name).entries())
        except Exception as error:  # whatever the user's loop raised: it is told in the parent
            if not isinstance(error, SecAggError):
                traceback.print_exc()
            return _Trained(name, np.zeros(0, np.int64), {}, type(error).__name__, str(error))
