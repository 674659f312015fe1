"""Black boxes: anything that runs, behind a contract that is checked at every session. No property lives here."""

import contextlib
import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.audit.bridge import Bridge
from protocols.audit.heeding import deaf
from protocols.audit.limit import limited
from protocols.audit.pieces import Malformed, Pieces, told
from protocols.audit.prop import Finding
from protocols.audit.repeatable import supplied
from protocols.audit.subject import Drop, Played, Subject, Vectors
from protocols.audit.wire import Wire, place_of
from protocols.audit_hooks import Hooks
from protocols.errors import require
from protocols.kernel import Message

CONTRACT = (
    "run(inputs, drop) gives (total, transcript): an integer array of the inputs' length or None, and a list of "
    "(sender, recipient, bytes) with the senders 'client 0', 'client 1', ..., 'server'"
)
SMALL_RING = 16
"""Where every value counts, and a chi-square test finds one that never comes."""
_UNSAID = (
    "what it promises when clients leave is not known: give BlackBox tolerated=, a function of the number of "
    "clients and the drop-outs that says whether there is a total"
)


class Runs(Protocol):
    """A black box: inputs (int64 vectors of one length) and who leaves at which stage -> (total or None, transcript).

    transcript: everything that the server received and sent, in order, as (sender, recipient, bytes). A client's
    messages have the sender "client 0", "client 1", ..., by its place in `inputs` (or a name that `sender` of the
    BlackBox maps to that place); the server's have "server"; other names are helpers. None as total: the session
    ended without one. A run that has an argument `tamper` calls it for each message as it is sent, with its stage, and
    delivers what that returns: (stage, message) -> messages (`protocols.audit.Wire` does it).
    """

    def __call__(
        self, inputs: Vectors, drop: Drop
    ) -> tuple[NDArray[np.int64] | None, Sequence[tuple[str, str, bytes]]]: ...


class BlackBox(Subject):
    """Anything that runs.

    threat: the model it declares. stages: names of the stages that clients may leave at. counting: the stage of
    the input. bound: on the absolute value of an input, at least 1. clients: the least and the largest number.
    tolerated: (number of clients, drop) -> whether a total is promised; without it what is promised under
    drop-outs is reported as not checked. sender: name of a sender -> the client's place in the inputs, None for
    anybody else. timeout: seconds that one session may take. pieces: what more the adapter gives, by the names of
    `protocols.audit.pieces.Pieces`. Raises Misuse for arguments that are none of these.

    An exception that leaves `run` after somebody left, or after a message was changed, ends that session without a
    total; anywhere else it is a finding.
    """

    level = "black"

    def __init__(
        self,
        run: Runs,
        *,
        name: str = "",
        threat: str = "semi-honest",
        stages: tuple[str, ...] = ("input",),
        counting: str = "input",
        bound: int = (1 << 15) - 1,
        clients: tuple[int, int] = (3, 8),
        tolerated: Callable[[int, Drop], bool] | None = None,
        sender: Callable[[str], int | None] | None = None,
        timeout: float = 60.0,
        **pieces: Any,
    ) -> None:
        super().__init__(name or getattr(run, "__name__", "black box"), threat, tuple(stages), counting)
        require(callable(run), "a function", type(run).__name__, "run")
        require(stages, "at least one name of a stage", "none", "stages")
        require(counting in stages, f"one of the stages {stages}", f"{counting!r}", "counting")
        require(1 <= bound < 1 << 62, "1 to 2^62 - 1", bound, "bound")
        require(1 <= clients[0] <= clients[1], "the least and the largest", clients, "clients")
        for piece, given, of in (
            ("tolerated", tolerated, "(clients, drop)"),
            ("sender", sender, "a sender's name"),
        ):
            require(given is None or callable(given), f"a function of {of}", type(given).__name__, piece)
        require(timeout > 0, "seconds above 0", timeout, "timeout")
        self.run, self.bound, self.clients, self.timeout = run, int(bound), clients, timeout
        self.tolerated = told("tolerated", tolerated) if tolerated else None
        self.sender = told("sender", sender) if sender else _place
        self.pieces = Pieces.of(pieces)
        self.given = frozenset(self.pieces.given(run) | ({"tolerated"} if tolerated else set()))
        self.hooks = Hooks(
            stream=self._stream if self.pieces.stream else None,
            seed_bytes=self.pieces.seed_bytes,
            stripped=(lambda session, sent, states: self._stripped(sent)) if self.pieces.stripped else None,
        )
        self._deaf: str | None = None
        if tolerated is None:
            self.unknown = {"exact-sum": _UNSAID, "no-total-beyond-tolerance": _UNSAID}

    def play(
        self, inputs: Vectors, drop: Drop | None = None, *, small: bool = False, tamper: Any = None, rng: Any = None,
        **unseen: Any,
    ) -> Played:  # fmt: skip
        """Run one session within the time limit. Raises Misuse for a result that is not of the contract, Hung.

        small: over the ring of 16 that the piece `ring` makes. tamper: as for `protocols.simulate`. rng: what the
        operating system's randomness is replaced by. unseen: what only a white box heeds.
        """
        if tamper is not None and "tamper" in self.given:
            self.require_heeded()
        self.playing = list(inputs), dict(drop or {})
        given = [vector.copy() for vector in inputs]
        gone = {stage: set(who) for stage, who in (drop or {}).items()}
        bridge = Bridge(self.sender, tamper)
        run = self.pieces.ring(SMALL_RING) if small and self.pieces.ring else self.run
        more = {"tamper": bridge} if "tamper" in self.given else {}
        Wire.last = []
        with supplied(rng) if rng is not None else contextlib.nullcontext():
            try:
                result = limited(lambda: run(given, gone, **more), self.timeout)
            except (Malformed, Finding):
                raise
            except (Exception, SystemExit) as error:
                if not (tamper or any(gone.values())):
                    raise
                return Played(None, (), bridge.transcript, bridge.messages, why=_raised(error))
        played = self._checked(result, len(inputs), len(inputs[0]))
        played.survivors = self.survivors_of(len(inputs), drop or {})
        played.messages = bridge.messages
        played.notes = tuple(f"client {i} raised {type(e).__name__}: {e}" for i, e in Wire.last)
        played.modulus = SMALL_RING if small else self.pieces.modulus
        return played

    def refuses(self, sent: Message) -> bool:
        """Whether what a client sends is a refusal and no answer: an error reply of its runtime, or as it words one."""
        return Wire.refusing or bool(self.pieces.refusal and self.pieces.refusal(bytes(sent.body)))

    def require_heeded(self) -> None:
        """Raise Malformed for a run that is deaf to `tamper`. The first look plays sessions of its own."""
        if self._deaf is None:
            self._deaf = ""
            try:
                self._deaf = deaf(self)
            except BaseException:
                self._deaf = None  # it was not looked to the end
                raise
        if self._deaf:
            self._malformed(self._deaf)

    def _checked(self, result: Any, clients: int, length: int) -> Played:
        if inspect.iscoroutine(result):
            result.close()
        if not isinstance(result, tuple | list) or len(result) != 2:
            self._malformed(f"run gave a {type(result).__name__}")
        total, transcript = result
        return Played(self._total(total, length), (), self._transcript(transcript, clients))

    def _stream(self, seed: bytes, count: int) -> NDArray[Any]:
        values = np.asarray(self.pieces.stream(seed, count))  # type: ignore[misc]  # asked only where it is given
        if values.shape != (count,):
            raise Malformed(f"stream: expected {count} elements, got an array of shape {values.shape}")
        return values

    def _stripped(self, transcript: Any) -> dict[int, Any]:
        triples = [(str(m.sender), str(m.recipient), bytes(m.body)) for m in transcript]
        found: dict[int, Any] = self.pieces.stripped(triples)  # type: ignore[misc]  # asked only where it is given
        return found

    def _total(self, total: Any, length: int) -> NDArray[np.int64] | None:
        if total is None:
            return None
        array = np.asarray(total)
        if array.dtype.kind not in "iuO" or array.shape != (length,):
            self._malformed(f"run gave a total of type {array.dtype} and shape {array.shape}")
        return array

    def _transcript(self, transcript: Any, clients: int) -> list[tuple[str, str, bytes]]:
        if not isinstance(transcript, list | tuple):
            self._malformed(f"run gave a transcript of type {type(transcript).__name__}")
        return [self._message(message, clients) for message in transcript]

    def _message(self, message: Any, clients: int) -> tuple[str, str, bytes]:
        if not isinstance(message, list | tuple) or len(message) != 3:
            self._malformed(f"run gave a message of type {type(message).__name__} that is no triple")
        sender, recipient, body = message
        if not isinstance(sender, str) or not isinstance(recipient, str):
            self._malformed(f"run gave the names {sender!r} and {recipient!r}, which are not both text")
        if not isinstance(body, bytes | bytearray | memoryview):
            self._malformed(f"run gave a body of type {type(body).__name__} from {sender!r}")
        number = self.sender(sender)
        if number is None:
            if self.sender is _place and sender.lower().startswith("client"):
                self._malformed(f"run gave the sender {sender!r}")
            return sender if not sender.startswith("client") else f"party {sender}", recipient, bytes(body)
        if not isinstance(number, int) or not 0 <= number < clients:
            self._malformed(f"run gave the sender {sender!r}, which is none of {clients} clients")
        return f"client {number}", recipient, bytes(body)

    def _malformed(self, what: str) -> None:
        raise Malformed(f"the adapter {self.name!r} does not keep its contract: {what}; expected: {CONTRACT}")


def _place(sender: str) -> int | None:
    """The number in "client 7", None for any other name."""
    with contextlib.suppress(ValueError):
        return place_of(sender)
    return None


def _raised(error: BaseException) -> str:
    """What was raised where, on one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return f"run raised {type(error).__name__}: {said} ({last.filename}, line {last.lineno})"
