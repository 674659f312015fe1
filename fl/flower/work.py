"""What a client computes in a round, behind one small interface, so that `party` need not know who trains.

What belongs here: a wrapped Flower app's update, through the stack. What does not: checks, sessions, stores
(`party`); a Federation's own loop (`apps`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from logging import ERROR
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from fl.flower.compat import failure_of, log
from fl.flower.messages import Header, strip
from fl.flower.rounds import CAPPED, COUNTERS, Reference, model_digest, plan_round, reference_of, tree_of
from fl.metrics import encode as encode_metrics
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation
from protocols.layers import Contribution, RoundFacts
from protocols.roundplan import RoundPlan
from protocols.session import Session
from protocols.stack import Stack
from protocols.updates import Flat, flatten

Train = Callable[[Message], Message]


@dataclass(frozen=True)
class Planned:
    """A round as this node computed it. model: what enters its session's context. dimension: of the model."""

    plan: RoundPlan
    model: bytes
    dimension: int


class Work(Protocol):
    """One client's part of one round. `plan` comes first; `vector` only if every check passed."""

    def plan(self, header: Header, session: Session, content: RecordDict) -> Planned:
        """Return the round's arithmetic from what this node was shown. Raises Misuse, PeerError."""
        ...

    def vector(self, planned: Planned, header: Header, own: RoundFacts) -> tuple[NDArray[np.int64], bytes]:
        """Train; return the integer vector and the digest that names the update behind it. Raises Misuse."""
        ...


def shown_arrays(content: RecordDict, arrays_key: str, config_key: str | None = None) -> ArrayRecord:
    """Return the model that was sent: all that a node is shown is in its session's context, so there is nothing else
    but a ConfigRecord under `config_key`. Raises ProtocolViolation naming what is missing or too much.
    """
    arrays = content.array_records.get(arrays_key)
    if arrays is None:
        raise ProtocolViolation(
            f"expected the model, an ArrayRecord, under {arrays_key!r}; there is none", "server"
        )
    bound = {arrays_key, *(name for name in content.config_records if name == config_key)}
    if extra := sorted(content.keys() - bound):
        raise ProtocolViolation(
            f"expected the model under {arrays_key!r} and its configuration alone, {extra[0]!r} came too: it is not "
            "in the session's context",
            "server",
        )
    return arrays


def failed(error: Exception) -> Misuse:
    """Return what may be said of a failure: its text can quote the data, so it goes to this node's own log."""
    log(ERROR, "the app failed", exc_info=error)
    return Misuse(f"the app failed: {type(error).__name__}; its own log says why")


def update_name(reference: bytes, update: NDArray[np.float64]) -> bytes:
    """Return what names an update: the same difference to the same model is the same update, however it is encoded."""
    return hashlib.sha256(b"secagg update v1\0" + reference + update.tobytes()).digest()


class WrappedApp:
    """The work of a Flower app behind `privacy_mod`: `train` runs the app on the message without our records."""

    def __init__(self, stack: Stack, message: Message, train: Train) -> None:
        self.stack = stack
        self._message = message
        self._train = train
        self._reference: Reference | None = None

    def plan(self, header: Header, session: Session, content: RecordDict) -> Planned:
        arrays = shown_arrays(content, header.arrays_key, header.config_key)
        reference = self._reference = reference_of(tree_of(arrays), header.integers)
        run = header.run.facts()
        if (run.sampling, run.rate) != ("all", 1.0):
            raise PolicyRefusal(
                "sampling: this node takes part in runs that ask everybody in every round, the server claims "
                f"{run.sampling!r} at {run.rate:g}"
            )
        self.stack.plan(run)
        plan = plan_round(
            self.stack, run, header.number, session.roster, header.public.public(), reference, header.metrics
        )
        config = content.config_records.get(header.config_key)
        return Planned(plan, model_digest(plan, reference, config), reference.schema.dimension)

    def vector(self, planned: Planned, header: Header, own: RoundFacts) -> tuple[NDArray[np.int64], bytes]:
        if self._reference is None:
            raise Misuse("expected plan before vector")
        trained, weight, values = self._run(header, self._reference)
        before = self._reference.flat
        update = trained.vector - before.vector
        cap = planned.plan.signals[0].weight_cap
        exact = _metrics(values, header.metrics, min(weight, cap))
        exact[CAPPED] = np.array([cap > 1 and weight > cap], np.int64)
        exact[COUNTERS] = trained.counters - before.counters
        wanted = {
            c.name for c in planned.plan.summed.coordinates
        }  # a DP layer that forbids exact ones drops them
        coordinates = {name: block for name, block in exact.items() if name in wanted}
        vector = planned.plan.encode(Contribution(update, min(weight, cap), coordinates), own)
        return vector, update_name(self._reference.digest, update)

    def _run(self, header: Header, reference: Reference) -> tuple[Flat, int, dict[str, object]]:
        """Run the app; return the trained model, its weight and the metrics."""
        self._message.content = strip(self._message.content)
        try:
            reply = self._train(self._message)
        except Exception as error:  # whatever the app raised: its text must not leave
            raise failed(error) from None
        if not isinstance(reply, Message):
            raise Misuse(f"expected the app to reply with a Message, it returned {type(reply).__name__}")
        if (why := failure_of(reply)) is not None:
            log(ERROR, "the app answered with an error: %s", why)
            raise Misuse("the app answered with an error; its own log says why")
        arrays = list(reply.content.array_records.values())
        metrics = list(reply.content.metric_records.values())
        if len(arrays) != 1 or len(metrics) != 1:
            raise Misuse(
                f"expected one ArrayRecord and one MetricRecord, got {len(arrays)} and {len(metrics)}"
            )
        values: dict[str, object] = dict(metrics[0])
        weight = values.get(header.weight_key)
        if not isinstance(weight, int | float) or not float(weight).is_integer() or weight < 0:
            raise Misuse(
                f"expected a finite, whole number of examples >= 0 under {header.weight_key!r}, got another value"
            )
        return flatten(tree_of(arrays[0]), reference.schema), int(weight), values


def _metrics(values: dict[str, object], names: tuple[str, ...], weight: int) -> dict[str, NDArray[np.int64]]:
    """Return the metrics that are summed; all others are stripped."""
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and np.isfinite(v)}
    return encode_metrics(numbers, names, weight)
