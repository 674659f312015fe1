"""Broken secrecy around masks: boxes, what goes in clear, what is printed or kept."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.errors import SecAggError
from protocols.kernel import Message, Step
from protocols.sealing import _cipher
from protocols.summation import SecureSum
from secagg import SecAgg
from secagg.client import masking as client_masking
from secagg.client import opening as client_opening
from secagg.client.base import ClientState
from secagg.messages import Masked
from secagg.packing import add_packed, unpack
from tests.defects.pieces import MASKING_RECEIVE, OPENING_RECEIVE, no_session
from tests.defects.planting import Defect, put, together


def fixed_nonce(key: bytes, plain: bytes, bound: bytes, random: Any) -> bytes:
    return bytes(12) + _cipher(key).encrypt(bytes(12), plain, bound)


def unbound(session: bytes, stage: str, sender: str, receiver: str) -> bytes:
    return b"the same everywhere"


def clear_box(key: bytes, plain: bytes, bound: bytes, random: Any) -> bytes:
    return plain + bytes(28)


def open_clear(key: bytes, box: bytes, bound: bytes, sender: str) -> bytes:
    return box[:-28]


def clipped(session: Any, vector: Any) -> Any:
    return np.clip(np.asarray(vector, np.int64), -session.bound, session.bound)


def noted(note: Any) -> Any:
    """Clients add note(vector) to their input message, 8 bytes; the server takes it off, so that the sum is right."""

    def receive(self: Any, request: Message, random: Any) -> Step:
        step = MASKING_RECEIVE(self, request, random)
        answer = step.send[0]
        return replace(step, send=(replace(answer, body=bytes(answer.body) + note(self.vector)),))

    def decode(cls: Any, data: Any) -> Masked:
        return DECODE_MASKED(cls, bytes(data)[:-8])

    return together(
        put("secagg.client.masking.Masking.receive", receive),
        put("secagg.messages.Masked.decode", classmethod(decode)),
    )


DECODE_MASKED = Masked.decode.__func__  # type: ignore[attr-defined]  # a class method's function


def sized(bearer: Any, seed: bytes, pairs: Any) -> bytes:
    """Leading zeros are saved: the length tells the magnitude."""
    packed = MASKED(bearer, seed, pairs)
    return packed + bytes(0 if np.abs(bearer.vector).max() == 0 else 4)


MASKED = client_masking.masked


def cut(function: Any) -> Any:
    """A reader of packed vectors that takes what is behind them off."""

    def read(*given: Any) -> Any:
        *total, packed, count, ring = given
        return function(*total, packed[: ring.packed_bytes(count)], count, ring)

    return read


def told_in_the_error(self: Any, kind: Any, request: Message) -> Any:
    try:
        return TAKE(self, kind, request)
    except SecAggError as error:
        secret = getattr(self, "seed", b"") or getattr(self, "mask", b"")
        raise client_opening.refuse(f"{error} (seed {bytes(secret).hex()})") from None


TAKE = ClientState.take


def printed(self: Any) -> str:
    return f"Masking(seed={self.seed.hex()}, vector={self.vector.tolist()})"


def unpickled(self: SecureSum, data: bytes) -> Any:
    if data[:1] == b"\x80":
        return pickle.loads(data)  # the defect
    return DECODE(self, data)


DECODE = SecureSum.decode_state


def keeps_its_shares(self: Any, request: Message, random: Any) -> Step:
    step = OPENING_RECEIVE(self, request, random)
    return replace(step, state=replace(self, held=self.held))


DEFECTS = (
    Defect(
        "shares relayed in clear",
        "shares-are-sealed",
        together(
            put("secagg.client.dealing.seal", clear_box),
            put("secagg.client.dealing.unseal", open_clear),
        ),
        SecAgg,
    ),
    Defect(
        "public exponent leaking magnitude",
        "sizes-say-nothing",
        together(
            put("secagg.client.masking.masked", sized),
            put("secagg.server.summing.add_packed", cut(add_packed)),
            put("secagg.audit_hooks.unpack", cut(unpack)),
        ),
        SecAgg,
    ),
    Defect(
        "weights or counts in clear",
        "nothing-in-clear",
        noted(lambda vector: int(np.abs(vector).max()).to_bytes(8, "big")),
        SecAgg,
    ),
    Defect(
        "silent saturation",
        "no-input-beyond-the-bound",
        put("protocols.summation.SecureSum.checked_input", staticmethod(clipped)),
        SecAgg,
    ),
    Defect(
        "pickle in a decoder",
        "nothing-is-unpickled",
        put("protocols.summation.SecureSum.decode_state", unpickled),
        SecAgg,
    ),
    Defect(
        "secret in an exception",
        "secrets-are-blank",
        put("secagg.client.base.ClientState.take", told_in_the_error),
        SecAgg,
    ),
    Defect(
        "secret in a repr",
        "secrets-are-blank",
        put("secagg.client.masking.Masking.__repr__", printed),
        SecAgg,
    ),
    Defect(
        "secrets kept after the session",
        "secrets-die-with-the-session",
        put("secagg.client.opening.Opening.receive", keeps_its_shares),
        SecAgg,
    ),
    Defect(
        "nonce reuse in AEAD", "nonces-are-used-once", put("secagg.client.dealing.seal", fixed_nonce), SecAgg
    ),
    Defect(
        "stale share accepted after abort",
        "stale-shares-refused",
        together(
            put("secagg.client.dealing.binding", unbound),
            put("protocols.key_agreement.derive", no_session),
            put("secagg.client.dealing.share_digest", lambda *a: bytes(16)),
            put("secagg.server.opening.share_digest", lambda *a: bytes(16)),
        ),
        SecAgg,
    ),
)
