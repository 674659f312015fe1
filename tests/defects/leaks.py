"""Masked sums that tell more than the sum, beside their masks, in what they say, or in what they keep."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from protocols.errors import SecAggError
from protocols.kernel import Message, Step
from secagg import SecAgg
from secagg.client import opening as client_opening
from tests.defects.pieces import MASKING_RECEIVE
from tests.defects.planting import Defect, put
from tests.defects.sealing import TAKE, noted

HOARD: list[Any] = []


def hoarding(what: Any) -> Any:
    """A module keeps what passes through it."""

    def receive(self: Any, request: Message, random: Any) -> Step:
        HOARD.append(what(self))
        return MASKING_RECEIVE(self, request, random)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with put("secagg.client.masking.Masking.receive", receive)():
            yield
        HOARD.clear()

    return planted


def input_in_a_refusal(self: Any, kind: Any, request: Message) -> Any:
    try:
        return TAKE(self, kind, request)
    except SecAggError as error:
        raise client_opening.refuse(
            f"{error} (my input begins with {getattr(self, 'vector', [0])[0]})"
        ) from None


def squared_norm(vector: Any) -> bytes:
    return (int((vector.astype(object) ** 2).sum()) % (1 << 64)).to_bytes(8, "big")


def digest(vector: Any) -> bytes:
    """No canary finds it; whoever guesses an input can check the guess."""
    return hashlib.sha256(vector.tobytes()).digest()[:8]


def count(vector: Any) -> bytes:
    return int(np.count_nonzero(vector)).to_bytes(8, "big")


def total(vector: Any) -> bytes:
    return f"{int(vector.sum()):8d}"[:8].encode()


def mean(vector: Any) -> bytes:
    return np.float64(vector.mean()).tobytes()


DEFECTS = (
    Defect(
        "digest of the input beside the masked vector", "view-depends-on-the-sum-only", noted(digest), SecAgg
    ),
    Defect("squared norm in clear", "nothing-in-clear", noted(squared_norm), SecAgg),
    Defect("count of nonzeros in clear", "nothing-in-clear", noted(count), SecAgg),
    Defect("sum of a vector as text", "nothing-in-clear", noted(total), SecAgg),
    Defect("mean of a vector as a float", "nothing-in-clear", noted(mean), SecAgg),
    Defect(
        "keys kept by a module",
        "nothing-lingers-in-memory",
        hoarding(lambda s: (s.seed, s.keys.mask)),
        SecAgg,
    ),
    Defect("inputs kept by a module", "nothing-lingers-in-memory", hoarding(lambda s: s.vector), SecAgg),
    Defect(
        "input in a refusal",
        "aborts-reveal-nothing",
        put("secagg.client.base.ClientState.take", input_in_a_refusal),
        SecAgg,
    ),
)
