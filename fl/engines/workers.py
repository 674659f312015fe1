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
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols import errors
from protocols.codec import Record
from protocols.errors import ClientFailed, Misuse, SecAggError
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
    cause: str = ""


class Workers:
    """`count` processes that train `names`, in order. Use it as a context: leaving it ends them.

    train: from a client's name to its vector (int64). stores: the clients' stores, which are brought up to date as
    vectors are taken. timeout: seconds that one client may take, from when its process's last one was seen to be done;
    None for any. A process that dies or takes longer is replaced for the clients after the one that it trained.
    """

    def __init__(
        self,
        count: int,
        names: Sequence[str],
        train: Callable[[str], Vector],
        stores: Callable[[str], MemoryStore],
        timeout: float | None = None,
    ) -> None:
        self.train, self.stores, self.timeout = train, stores, timeout
        self.shares = [list(names[k::count]) for k in range(min(count, len(names)))]
        self.place = {name: k for k, share in enumerate(self.shares) for name in share}
        self.pipes: list[Connection] = []
        self.children: list[multiprocessing.process.BaseProcess] = []
        self.since: list[float] = []
        self.early: dict[str, _Trained] = {}

    def __enter__(self) -> Self:
        sys.stdout.flush()
        for share in self.shares:
            pipe, child = self._start(share)
            self.pipes.append(pipe)
            self.children.append(child)
            self.since.append(time.monotonic())
        return self

    def _start(self, share: Sequence[str]) -> tuple[Connection, multiprocessing.process.BaseProcess]:
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe(duplex=False)
        child = fork.Process(target=self._work, args=(share, there), daemon=True)
        child.start()
        there.close()
        return here, child

    def __exit__(self, *error: object) -> None:
        for pipe, child in zip(self.pipes, self.children, strict=True):
            pipe.close()
            child.kill()
            child.join()

    def take(self, name: str) -> Vector:
        """Return a client's vector once it is trained. Raises the project's error that its training raised, Misuse for
        any other, ClientFailed for a client whose process died or took too long.
        """
        while name not in self.early:
            self._receive(self.place[name])
        trained = self.early.pop(name)
        if trained.kind:
            kind = getattr(errors, trained.kind, None)
            if not (isinstance(kind, type) and issubclass(kind, SecAggError)):
                raise Misuse(
                    f"client {name!r} failed in its worker process: {trained.kind}: {trained.reason}"
                )
            told = kind(trained.reason)
            raise told from Misuse(trained.cause) if trained.cause else None
        self.stores(name).replace_entries(trained.entries)
        return trained.vector

    def _receive(self, at: int) -> None:
        """Take what a process says of the client that it trains, the first of its share that is left."""
        share, pipe, child = self.shares[at], self.pipes[at], self.children[at]
        left = None if self.timeout is None else max(0.0, self.since[at] + self.timeout - time.monotonic())
        try:
            if not pipe.poll(left):
                raise TimeoutError
            trained = _Trained.decode(pipe.recv_bytes())
        except (EOFError, OSError) as error:  # a TimeoutError is one
            late = isinstance(error, TimeoutError)
            trained = self._lost(share[0], child, f"took longer than {self.timeout:g} s" if late else "")
            pipe.close()
            if share[1:]:
                self.pipes[at], self.children[at] = self._start(share[1:])
        share.remove(trained.name)
        self.early[trained.name], self.since[at] = trained, time.monotonic()

    @staticmethod
    def _lost(name: str, child: multiprocessing.process.BaseProcess, late: str) -> _Trained:
        """End a process that died or takes too long, and return what is said of its client."""
        if late:
            child.kill()
        child.join(10)
        why = late or f"died (exit code {child.exitcode})"
        reason = f"the worker process that trained {name!r} {why}"
        return _Trained(name, np.zeros(0, np.int64), {}, ClientFailed.__name__, reason)

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
            cause = error.__cause__ if isinstance(error, ClientFailed) else None
            told = "" if cause is None else _worded(name, cause)
            return _Trained(name, np.zeros(0, np.int64), {}, type(error).__name__, str(error), told)


def _worded(name: str, cause: BaseException) -> str:
    """What ended a client's loop, for the error of a run in which no client's loop works."""
    if isinstance(cause, SecAggError):
        return str(cause)
    return f"client {name!r} failed in its worker process: {type(cause).__name__}: {cause}"
