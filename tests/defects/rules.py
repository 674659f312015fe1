"""Masked sums that break a rule, or say of themselves what is not so."""

from dataclasses import replace
from typing import Any

import numpy as np

from protocols.codec import ByteReader
from protocols.errors import Aborted, PeerError, refuse
from protocols.kernel import Message, Step
from protocols.summation import SecureSum, Total
from secagg import SecAgg, protection, session_rules
from secagg.audit_hooks import HOOKS
from secagg.client import masking as client_masking
from secagg.client import sharing as client_sharing
from secagg.messages import ADVERTISE, Advertisement
from secagg.packing import pack
from secagg.server import STATES
from tests.defects.planting import Defect, put, together


def last_coordinate_off(words: Any, ring: Any) -> bytes:
    if len(words) > 100:
        words[-1] += 1
    return pack(words, ring)


def rather_zero(close: Any) -> Any:
    """A server that gives zeros where there is no total."""

    def closing(self: Any, random: Any) -> Step:
        try:
            done: Step = close(self, random)
        except Aborted:
            return Step(Total(np.zeros(self.session.dimension, np.int64), ()))
        return done

    return closing


def silent(receive: Any) -> Any:
    """A server that drops what it cannot read and says nothing."""

    def receiving(self: Any, answer: Message, random: Any) -> Step:
        try:
            done: Step = receive(self, answer, random)
        except PeerError:
            return Step(self)
        return done

    return receiving


def at_the_server(method: str, change: Any) -> Any:
    """Every state of the server with a method changed."""
    return together(
        *(put(f"{s.__module__}.{s.__name__}.{method}", change(getattr(s, method))) for s in STATES)
    )


DECODE = SecureSum.decode_state


def forgetful(self: SecureSum, data: bytes) -> Any:
    state = DECODE(self, data)
    return replace(state, seed=bytes(32)) if isinstance(state, client_masking.Masking) else state


def any_recipient(message: Message, session: bytes, stage: str, role: str, recipient: Any) -> None:
    if message.session != session or message.stage != stage:
        raise refuse("another session or stage")


def keys_again(self: Any, request: Message, random: Any) -> Step:
    if request.stage == ADVERTISE:
        return Step(self, self.answer(Advertisement(bytes(96))))
    return SHARING_RECEIVE(self, request, random)


SHARING_RECEIVE = client_sharing.Sharing.receive
RULES = session_rules.Rules.__init__


def whoever_stays(self: Any, parameters: Any, clients: int, survivors: int, *more: Any) -> None:
    RULES(self, parameters, clients, 1, *more)


def unchecked_take(self: ByteReader, count: int) -> memoryview:
    piece = self.view[self.at : self.at + count]
    self.at += count
    return piece


PROTECTION = protection.protection
DEFECTS = (
    Defect(
        "a long vector's last coordinate is off",
        "exact-in-every-coordinate",
        put("secagg.client.masking.pack", last_coordinate_off),
        SecAgg,
    ),
    Defect(
        "zeros in place of an abort", "no-total-beyond-tolerance", at_the_server("close", rather_zero), SecAgg
    ),
    Defect(
        "tolerance never promised",
        "tolerance-declared",
        put("secagg.audit_hooks.HOOKS", replace(HOOKS, tolerated=lambda *_: None)),
        SecAgg,
    ),
    Defect(
        "a secret lost in a stored state",
        "state-is-data",
        put("protocols.summation.SecureSum.decode_state", forgetful),
        SecAgg,
    ),
    Defect(
        "requests for others are answered",
        "swapped-recipients-refused",
        put("protocols.roles.expect", any_recipient),
        SecAgg,
    ),
    Defect(
        "an earlier request is answered again",
        "replays-refused",
        put("secagg.client.sharing.Sharing.receive", keys_again),
        SecAgg,
    ),
    Defect(
        "promised number of survivors ignored",
        "least-survivors-hold",
        put("secagg.session_rules.Rules.__init__", whoever_stays),
        SecAgg,
    ),
    Defect(
        "a decoder that reads past the end",
        "any-bytes-decoded-safely",
        put("protocols.codec.ByteReader.take", unchecked_take),
        SecAgg,
    ),
    Defect(
        "malformed answers dropped in silence",
        "garbled-answers-are-named",
        at_the_server("receive", silent),
        SecAgg,
    ),
    Defect(
        "poisoning left out of the statement",
        "additive-attacks-declared",
        put("secagg.protection._LIMITS", protection._LIMITS[1:]),
        SecAgg,
    ),
    Defect(
        "a statement of a stronger model",
        "statement-is-true",
        put("secagg.protocol.protection", lambda *given: replace(PROTECTION(*given), threat="malicious")),
        SecAgg,
    ),
)
