"""Rounds without waiting: clients work on the model that was the newest when they began, and whoever is done goes into
a sum with others (Nguyen et al., AISTATS 2022, Algorithm 1).

What belongs here: who works on which version, who is done, when enough are for a sum in which nobody stands alone with
its version. What does not: how long work takes and who carries it (`Arrivals`), the sum, what a server makes of it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl.round.chain import Chain
from fl.round.manifest import LEAST_ALIKE, Manifest, Version
from fl.round.reference import Reference, with_values
from fl.round.run_files import Json
from protocols.errors import Misuse, refuse
from protocols.identity import Identity
from protocols.updates import Flat, Schema


class Arrivals(Protocol):
    """Carries models to clients, and says who is done. goes_on: work that was begun goes on in another process."""

    goes_on: bool

    def start(self, client: str, version: int) -> None:
        """Have a client begin with a version, and drop what it did before."""

    def wait(self) -> str | None:
        """Return the next client that is done, None if nobody is in time."""

    def state(self) -> Json:
        """Return what `restore` takes, as JSON."""

    def restore(self, state: Json) -> None:
        """Go on as `state` returned it."""


class Buffers:
    """The server's queue of one run.

    size: clients of a sum. alike: the fewest clients of each version in any total, >= 1. leaving: clients of a sum
    that may leave; the sum begins with so many more of each version. oldest: a client whose model is more versions old
    begins anew. at_once: clients that hold a model at a time, in turn (0: everybody). Each client is in one sum at a
    time, with what it made of the model that it was given last. Raises Misuse for numbers with which no sum could
    begin.
    """

    def __init__(
        self, size: int, alike: int = LEAST_ALIKE, leaving: int = 1, oldest: int = 20, at_once: int = 0
    ) -> None:
        if alike < 1 or leaving < 0 or oldest < 1:
            raise Misuse(f"expected alike, oldest >= 1 and leaving >= 0, got {alike}, {oldest} and {leaving}")
        if size < alike + leaving:
            raise Misuse(
                f"size: expected at least {alike + leaving}, for alike={alike} clients of one version and "
                f"leaving={leaving}, got {size}"
            )
        if at_once and at_once < size:
            raise Misuse(f"at_once: expected 0, or at least {size}, the clients of a buffer, got {at_once}")
        self.size, self.alike, self.leaving, self.oldest = size, alike, leaving, oldest
        self.at_once, self._turn, self.over = at_once, 0, 0
        self.arrivals: Arrivals | None = None
        self.signer: Identity | None = None
        self.chain = Chain()
        self.models: dict[int, Flat] = {}
        self.working: dict[str, int] = {}
        self.ready: dict[str, int] = {}

    @property
    def together(self) -> int:
        """The fewest clients of one version in a sum."""
        return self.alike + self.leaving

    def grow(self, reference: Reference) -> None:
        """Add the newest model to the chain, unless it is as it was."""
        if self.chain.digests[-1:] == (reference.digest,):
            return
        self.chain = Chain((*self.chain.digests, reference.digest))
        self.models[self.chain.newest] = reference.flat
        needed = {self.chain.newest, *self.working.values(), *self.ready.values()}
        self.models = {number: flat for number, flat in self.models.items() if number in needed}

    def require_model(self, schema: Schema) -> None:
        """Raises Misuse for a model whose running statistics would be summed: those of several versions have no common
        mean.
        """
        if schema.statistics:
            raise Misuse(
                f"{schema.statistics[0]}: running statistics from several models have no mean that is one: say "
                'buffers="local", or replace BatchNorm by GroupNorm (dp.sample.repaired)'
            )

    def due(self, names: Sequence[str]) -> tuple[str, ...]:
        """Wait until enough clients are done, and return those of the next sum, in the order of `names`; none if nobody
        is done in time.
        """
        assert self.arrivals is not None
        while True:
            self._hand_out(names, self.arrivals)
            if chosen := self._chosen():
                return tuple(name for name in names if name in chosen)
            if self.working:
                if (client := self.arrivals.wait()) is None:  # whoever still works begins anew
                    self.working = {}
                    return ()
                if client in self.working:  # else it was let go meanwhile
                    self.ready[client] = self.working.pop(client)
            else:  # all are done, and no sum can be made of them: the oldest begin anew
                self._release(min(self.ready.values()))

    def closed(self, asked: Sequence[str], reference: Reference | None) -> None:
        """Note that a sum is over, with or without a total: nobody sends again what was made for it. reference: the
        model that it moved to, None if it moved none.
        """
        self.over += 1
        for name in asked:
            self.ready.pop(name, None)
        if reference is not None:
            self.grow(reference)

    def started(
        self, clients: Sequence[str], own: Reference, run: str = ""
    ) -> tuple[Manifest, dict[str, Reference]]:
        """Return the manifest of who started from which model, and the model that each client was given. A client that
        works on nothing starts from the newest. own: the server's model, with which a run begins its chain. run: names
        the run.
        """
        if not self.chain.digests:
            self.grow(own)
        newest = self.chain.newest
        started = {name: self.ready.get(name, newest) for name in clients}
        used = sorted(set(started.values()))
        versions = {str(n): Version(self.chain.digests[n], newest - n) for n in used}
        models = {n: with_values(replace(self.models[n], kept=own.flat.kept), own) for n in used}
        chain = self.chain.signed(run, self.signer)
        manifest = Manifest(versions, {name: str(n) for name, n in started.items()}, self.alike, chain)
        return manifest, {name: models[n] for name, n in started.items()}

    def _hand_out(self, names: Sequence[str], arrivals: Arrivals) -> None:
        """Give the newest version to everybody who works on none, or on one that is too old or too rare for a sum."""
        held = {**self.working, **self.ready}
        shared = Counter(held.values())
        for name, version in held.items():
            rare = shared[version] < self.together and version < self.chain.newest
            if rare or version < self.chain.newest - self.oldest:
                self.ready.pop(name, None)
                self.working.pop(name, None)
        held = {**self.working, **self.ready}
        room = (self.at_once or len(names)) - len(held)
        turned = [names[(self._turn + place) % len(names)] for place in range(len(names))]
        for name in [name for name in turned if name not in held][: max(0, room)]:
            self.working[name] = self.chain.newest
            self._turn = names.index(name) + 1
            arrivals.start(name, self.chain.newest)

    def _release(self, version: int) -> None:
        self.ready = {name: its for name, its in self.ready.items() if its != version}

    def _chosen(self) -> set[str]:
        """Return `size` clients who are done, `together` of each of their versions at least; none if there are not."""
        done: dict[int, list[str]] = {}
        for name, version in self.ready.items():
            done.setdefault(version, []).append(name)
        enough = sorted((v for v in done if len(done[v]) >= self.together), key=lambda v: (-len(done[v]), v))
        versions = enough[: self.size // self.together]
        if sum(len(done[v]) for v in versions) < self.size:
            return set()
        chosen = {name for v in versions for name in done[v][: self.together]}
        others = [name for name, v in self.ready.items() if v in versions and name not in chosen]
        return chosen | set(others[: self.size - len(chosen)])

    # -- what a run keeps --

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays; `restore` takes them back."""
        told: Json = {"working": self.working, "ready": self.ready}
        told["arrivals"] = self.arrivals.state() if self.arrivals else None
        told |= {"turn": self._turn, "over": self.over}
        told["chain"] = [digest.hex() for digest in self.chain.digests]
        models = {f"model/{number}": flat.vector for number, flat in self.models.items()}
        counters = {f"counters/{number}": flat.counters for number, flat in self.models.items()}
        return {"buffers": np.frombuffer(json.dumps(told).encode(), np.uint8), **models, **counters}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on as `state` returned it; where work does not go on in another process, everybody begins anew."""
        if "buffers" not in state:
            return
        told = json.loads(state["buffers"].tobytes())
        self.over = told["over"]
        self.chain = Chain(tuple(bytes.fromhex(digest) for digest in told["chain"]))
        numbers = [int(name.partition("/")[2]) for name in state if name.startswith("model/")]
        self.models = {
            n: Flat(np.array(state[f"model/{n}"]), np.array(state[f"counters/{n}"]), {}) for n in numbers
        }
        self.working, self.ready = {}, {}
        if self.arrivals is not None and self.arrivals.goes_on:
            self.working, self.ready, self._turn = told["working"], told["ready"], told["turn"]
            self.arrivals.restore(told["arrivals"])


def require_manifest(manifest: Manifest, own: Buffers | None) -> None:
    """Raises ProtocolViolation, at a client, for a manifest in a run whose clients all start from one model, for a
    manifest without the chain of the run's models, and for a model older than this client's federation takes. Updates
    to a very old model count little, so a server could make those of a few others count most.
    """
    if own is None or not manifest.chain.digests:
        raise refuse(
            "the server says that clients start from different models: expected "
            + ("one model for all" if own is None else "the chain of the run's models with it")
        )
    if (age := max((version.age for version in manifest.versions.values()), default=0)) > own.oldest:
        raise refuse(
            f"expected models at most {own.oldest} versions old, as this federation has it, got one of {age}"
        )
