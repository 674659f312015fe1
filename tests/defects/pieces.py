"""Pieces that several groups of broken masked sums are made of. No defect lives here."""

from typing import Any

from protocols.kernel import Message, Step
from secagg import Credentials, SecAgg
from secagg.client import masking as client_masking
from secagg.client import opening as client_opening


def malicious() -> SecAgg:
    return SecAgg(threat="malicious", credentials=Credentials.simulated(range(12)))


def no_session(secret: bytes, session: bytes, context: bytes, length: int = 32) -> bytes:
    from protocols.key_agreement import HKDF, SHA256

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=context).derive(secret)


def anything_goes(*_: Any, **__: Any) -> None:
    """A check that checks nothing."""


def unmarked(receive: Any) -> Any:
    """A step that leaves nothing in the party's store."""

    def step(self: Any, message: Message, random: Any) -> Step:
        done = receive(self, message, random)
        return Step(done.state, done.send, (), done.memory)

    return step


MASKING_RECEIVE = client_masking.Masking.receive


OPENING_RECEIVE = client_opening.Opening.receive
