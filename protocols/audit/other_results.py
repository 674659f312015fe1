"""A protocol whose result is no sum, as a white box. What does not belong here: sums."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.audit.subject import Drop, Played, Vectors, WhiteBox
from protocols.kernel import Step
from protocols.protocol import NO_MODEL, Protocol
from protocols.randomness import SecureRandom, SystemRandom
from protocols.session import Session

NO_SUM = "it is about a total, and this protocol's result is no sum"
ABOUT_ANY_RESULT = frozenset(
    (
        "state-is-data",
        "no-statistical-generators",
        "mixed-sessions-refused",
        "swapped-recipients-refused",
        "replays-refused",
        "one-answer-per-session",
        "weakened-parameters-refused",
        "any-bytes-decoded-safely",
        "nothing-is-unpickled",
        "secrets-are-blank",
        "secrets-die-with-the-session",
        "nothing-lingers-in-memory",
        "statement-is-true",
        "abandoned-sessions-leave-nothing",
        "series-keep-to-themselves",
    )
)
"""The properties that need no total."""


class _GivenVectors:
    """A protocol that is given an int64 vector wherever a client's input is due; all else is the protocol's."""

    builds_on_earlier = False

    def __init__(
        self, protocol: Protocol[Any], opened: Callable[..., Session], given: Callable[[Any], Any]
    ) -> None:
        self.protocol, self.opened, self.given = protocol, opened, given

    def __getattr__(self, name: str) -> Any:
        return getattr(self.protocol, name)

    def session(
        self,
        roster: Sequence[str],
        dimension: int,
        bound: int,
        *,
        random: SecureRandom,
        simulated: bool = False,
        model: bytes = NO_MODEL,
        round: int = 1,
        **of_sums: Any,
    ) -> Session:
        return replace(self.opened(list(roster), random), simulated=simulated, model=model, round=round)

    def client(self, session: Session, index: int, vector: Any, **more: Any) -> Step:
        return self.protocol.client(session, index, self.given(np.asarray(vector, np.int64)), **more)


class ProtocolBox(WhiteBox):
    """A `Protocol` whose result is no sum. What is about a total is not claimed, with that reason.

    factory: makes the protocol. session: names (a list of str) and a random source -> a session of it. given: vector
    (int64 [d]) -> the input that a client brings in its place; distinct vectors must give distinct inputs.

        audit(ProtocolBox(JointCoin, session=open_coin, given=lambda v: hashlib.sha256(v.tobytes()).digest()))
    """

    def __init__(
        self,
        factory: Callable[[], Protocol[Any]],
        name: str = "",
        *,
        session: Callable[[list[str], SecureRandom], Session],
        given: Callable[[NDArray[np.int64]], Any],
    ) -> None:
        super().__init__(lambda: _GivenVectors(factory(), session, given), name)
        self.given_for = given

    def inapplicable(self, name: str) -> str:
        return super().inapplicable(name) or ("" if name in ABOUT_ANY_RESULT else NO_SUM)

    def as_bytes(self, vectors: Vectors) -> list[bytes]:
        """Return the inputs of 8 bytes or more; shorter ones are found in anything."""
        found = [bytes(self.protocol.input_bytes(self.given_for(vector))) for vector in vectors]
        return [given for given in found if len(given) >= 8]

    def play(self, inputs: Vectors, drop: Drop | None = None, **options: Any) -> Played:
        told = {key: options.pop(key) for key in ("round", "model") if key in options}
        for key in ("bound", "modulus", "min_survivors"):
            options.pop(key, None)
        names, random = [str(i) for i in range(len(inputs))], options.get("rng") or SystemRandom()
        made = self.protocol.session(names, 1, 1, random=random, simulated=True, **told)
        return super().play(inputs, drop, **{"session": made, **options})
