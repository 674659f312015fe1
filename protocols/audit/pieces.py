"""What an adapter of a black box may give beyond totals and transcripts. No property lives here."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.audit.limit import Hung
from protocols.errors import Misuse, require

Seen = tuple[str, str, bytes]
"""A message: sender, recipient, body."""
Share = tuple[int, str, bytes]
"""A share that is opened: whose secret it is of (a client's place), which of its secrets ("own", "key"), the share."""
Tamper = Callable[[str, Seen], Sequence[Seen]]
"""(stage, message) -> the messages that arrive instead; a body that is changed, none at all, or more than one."""


@dataclass(frozen=True)
class Pieces:
    """Each piece is optional, and makes properties visible; docs/audit.md says which.

    modulus: of the ring of masked vectors. elements: message -> the ring elements of a client's masked vector that it
    carries (integers from 0 to modulus - 1), None for any other message. ring: modulus (16) -> a `run` of the same
    protocol over so small a ring. stream: seed, count -> so many mask elements, as the protocol expands that seed:
    over the ring, or over bytes where `modulus` is not given. seed_bytes: width of those seeds. watch: functions of the
    protocol, or "module:name" of them, whose first argument is a seed (bytes or int): each call is recorded, with its
    seed and its caller. stripped: transcript -> client's place -> what is left of its masked vector once the server
    took off all masks that the transcript lets it. shares: message -> the shares that it opens in clear, each as (the
    place of the client whose secret it is of; "own" for what makes its own mask, "key" for what makes its masks with
    others; the share). opens: shares of one secret, by the place of the client that opened each -> the secret, None for
    too few; it takes more than are needed, too. views: stage, message of the server, places of clients -> the same
    message as it would be if just these clients had stayed; None for a message that names nobody. It is also asked for
    places that come twice (they are a tuple then) and for places of nobody. refusal: body -> whether a client that
    sends it refuses.
    """

    modulus: int = 0
    elements: Callable[[Seen], Any] | None = None
    ring: Callable[[int], Any] | None = None
    stream: Callable[[bytes, int], Any] | None = None
    seed_bytes: int = 0
    watch: tuple[Any, ...] = ()
    stripped: Callable[[Sequence[Seen]], Any] | None = None
    shares: Callable[[Seen], Iterable[Share]] | None = None
    opens: Callable[[Mapping[int, bytes]], bytes | None] | None = None
    views: Callable[[str, Seen, Any], Seen | None] | None = None
    refusal: Callable[[bytes], bool] | None = None

    def __post_init__(self) -> None:
        """Raises Misuse for a piece of the wrong kind."""
        for name in ("elements", "ring", "stream", "stripped", "shares", "opens", "views", "refusal"):
            given = getattr(self, name)
            require(given is None or callable(given), "a function", type(given).__name__, name)
        for name, most in (("modulus", 1 << 64), ("seed_bytes", 1 << 16)):
            given = getattr(self, name)
            if not isinstance(given, int) or not 0 <= given <= most or (name == "modulus" and given == 1):
                raise Misuse(f"{name}: expected a whole number up to {most}, got {given!r}")

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Pieces":
        """Return the pieces by name. Raises Misuse for a name that is none."""
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise Misuse(f"{name}: no piece of that name; a BlackBox takes {', '.join(known)}")
        if callable(given.get("watch")) or isinstance(given.get("watch"), str):
            given = {**given, "watch": (given["watch"],)}
        return cls(**{name: told(name, one) if callable(one) else one for name, one in given.items()})

    def given(self, run: Any) -> set[str]:
        """The names of what is there; `tamper` is an argument of `run`."""
        found = {one.name for one in fields(self) if getattr(self, one.name)}
        return found | ({"tamper"} if "tamper" in _arguments(run) else set())

    def vector(self, message: Seen) -> NDArray[np.uint64] | None:
        """The ring elements of a message. Raises Malformed where they are none."""
        found = self.elements(message) if self.elements else None
        if found is None:
            return None
        values = np.asarray(found)
        if values.dtype.kind not in "iuO" or values.ndim != 1 or not values.size:
            raise Malformed(
                f"elements: expected a vector of integers, got {values.dtype} of shape {values.shape}"
            )
        if int(values.min()) < 0 or (int(values.max()) >= self.modulus > 0):
            raise Malformed(
                f"elements: expected 0 to {self.modulus - 1}, got {values.min()} to {values.max()}"
            )
        return values.astype(np.uint64)


class Malformed(Misuse):
    """An adapter that does not keep its contract: nothing is found out about the protocol behind it."""


def _shares(given: Any) -> list[Share]:
    return [(int(whose), str(kind), bytes(memoryview(share))) for whose, kind, share in given]


def _stripped(given: Any) -> dict[int, NDArray[np.uint64]]:
    return {int(place): np.asarray(left).astype(np.uint64) for place, left in dict(given).items()}


def _view(given: Any) -> Seen | None:
    if given is None:
        return None
    sender, recipient, body = given
    return sender, recipient, bytes(memoryview(body))


_READ: dict[str, Callable[[Any], Any]] = {"shares": _shares, "stripped": _stripped, "views": _view}


def told(name: str, piece: Any) -> Any:
    """The piece, and what it gives as values; what it raises, or what else it gives, is the adapter's fault and no
    finding about the protocol.
    """

    def call(*given: Any) -> Any:
        try:
            return _READ.get(name, lambda found: found)(piece(*given))
        except (Hung, KeyboardInterrupt):
            raise
        except BaseException as error:  # what ends a thread or a program, too
            raise Malformed(f"the piece {name} raised {type(error).__name__}: {error}") from error

    return call


def _arguments(run: Any) -> Sequence[str]:
    try:
        return tuple(inspect.signature(run).parameters)
    except (TypeError, ValueError):
        return ()
