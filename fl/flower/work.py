"""What a client computes in a round, behind one small interface, so that `party` need not know who trains.

What belongs here: a wrapped Flower app's update, through the stack. What does not: checks, sessions, stores
(`party`); a Federation's own loop (`apps`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from fl.flower.compat import failure_of
from fl.flower.envelope import Header, strip
from fl.flower.rounds import CAPPED, COUNTERS, Reference, model_digest, plan_round, reference_of, tree_of
from fl.metrics import encode as encode_metrics
from protocols.errors import Misuse, PolicyRefusal, WireError
from protocols.layers import Contribution, RoundFacts
from protocols.session import Session
from protocols.stack import RoundPlan, Stack
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
        arrays = content.array_records.get(header.arrays_key)
        if arrays is None:
            raise WireError(f"expected the model under {header.arrays_key!r}")
        reference = self._reference = reference_of(tree_of(arrays), header.integers)
        run = header.run.facts()
        if run.sampling != "all":
            raise PolicyRefusal(
                f"sampling: this node prices a run that asks everybody every round, the server claims {run.sampling!r}"
            )
        self.stack.plan(run)
        plan = plan_round(
            self.stack, run, header.number, session.roster, header.public, reference, header.metrics
        )
        config = next(iter(content.config_records.values()), None)
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
        reply = self._train(self._message)
        if (why := failure_of(reply)) is not None:
            raise Misuse(f"the wrapped app failed: {why}")
        arrays = list(reply.content.array_records.values())
        metrics = list(reply.content.metric_records.values())
        if len(arrays) != 1 or len(metrics) != 1:
            raise Misuse(
                f"expected one ArrayRecord and one MetricRecord, got {len(arrays)} and {len(metrics)}"
            )
        values: dict[str, object] = dict(metrics[0])
        weight = values.get(header.weight_key)
        if not isinstance(weight, int | float) or weight < 0 or weight != int(weight):
            raise Misuse(
                f"expected a whole number of examples under {header.weight_key!r}, got another value"
            )
        return flatten(tree_of(arrays[0]), reference.schema), int(weight), values


def _metrics(values: dict[str, object], names: tuple[str, ...], weight: int) -> dict[str, NDArray[np.int64]]:
    """Return the metrics that are summed; all others are stripped."""
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and np.isfinite(v)}
    return encode_metrics(numbers, names, weight)


__all__ = ["Planned", "Train", "Work", "WrappedApp", "update_name"]
