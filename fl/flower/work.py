"""What a node computes in a round: what it was shown, and its contribution.

What belongs here: reading the model that was sent, and a wrapped Flower app as a client's work. What does not: checks,
sessions, stores (`fl.network`); a Federation's own loop (`fl.computation`).
"""

from collections.abc import Callable
from logging import ERROR

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from fl.flower.arrays import config_bytes, tree_of
from fl.flower.compat import failure_of, log
from fl.flower.messages import strip
from fl.network.messages import Header
from fl.network.node_party import failed
from fl.round import Broadcast, contribution_of, open_round, reference_of
from fl.round.buffers import require_manifest
from protocols.errors import Misuse, PolicyRefusal, refuse
from protocols.layers import Contribution, RoundFacts
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import Store
from protocols.updates import flatten


def shown_arrays(content: RecordDict, arrays_key: str, config_key: str | None = None) -> ArrayRecord:
    """Return the model that was sent: all that a node is shown is in its session's context, so there is nothing else
    but a ConfigRecord under `config_key`. Raises ProtocolViolation naming what is missing or too much.
    """
    arrays = content.array_records.get(arrays_key)
    if arrays is None:
        raise refuse(f"expected the model, an ArrayRecord, under {arrays_key!r}")
    bound = {arrays_key, *(name for name in content.config_records if name == config_key)}
    if extra := sorted(content.keys() - bound):
        raise refuse(
            f"expected the model under {arrays_key!r} and its configuration alone, {extra[0]!r} came too: it is not "
            "in the session's context"
        )
    return arrays


class WrappedApp:
    """The work of a Flower app behind `privacy_mod`: `train` runs the app on the message without our records. weight:
    the metric that it counts by, None for the one that the server names.
    """

    def __init__(
        self, stack: Stack, message: Message, train: Callable[[Message], Message], weight: str | None = None
    ) -> None:
        self.stack = stack
        self._message = message
        self._train = train
        self._weight_key = weight

    def open(self, header: Header, session: Session, content: RecordDict) -> Broadcast:
        terms, run = header.terms, header.terms.run.facts()
        layout = terms.origin.layout
        arrays = shown_arrays(content, layout.arrays, layout.config)
        if (run.sampling, run.rate) != ("all", 1.0):
            raise PolicyRefusal(
                "sampling: this node takes part in runs that ask everybody in every round, the server claims "
                f"{run.sampling!r} at {run.rate:g}"
            )
        if layout.weight != (self._weight_key or layout.weight):
            raise PolicyRefusal(
                f"weight: this node counts by {self._weight_key!r}, the server says {layout.weight!r}"
            )
        if terms.manifest is not None:
            require_manifest(terms.manifest, None)
        self.stack.plan(run)
        self._weight_key = layout.weight
        return open_round(
            self.stack,
            run,
            terms.number,
            session.roster,
            reference_of(tree_of(arrays), layout.integers),
            metrics=layout.metrics,
            public=terms.public.public(),
            config=config_bytes(content.config_records.get(layout.config)),
            name=terms.name,
            origin=terms.origin,
        )

    def prepare(self, header: Header, name: str, store: Store, content: RecordDict) -> None:
        raise PolicyRefusal("this node trains in rounds that wait, and the server asks for work without one")

    def __call__(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        """Run the app and return the difference that it made. Raises Misuse for a reply that is none."""
        self._message.content = strip(self._message.content)
        try:
            reply = self._train(self._message)
        except Exception as error:  # whatever the app raised: its text must not leave
            raise failed(error, log) from None
        if not isinstance(reply, Message):
            raise Misuse(f"expected the app to reply with a Message, it returned {type(reply).__name__}")
        if (why := failure_of(reply)) is not None:
            log(ERROR, "the app answered with an error: %s", why)
            raise Misuse("the app answered with an error; its own log says why")
        arrays = list(reply.content.array_records.values())
        metrics = list(reply.content.metric_records.values())
        if len(arrays) != 1 or len(metrics) != 1:
            raise Misuse(f"expected an ArrayRecord and a MetricRecord, got {len(arrays)} and {len(metrics)}")
        weight = metrics[0].get(self._weight_key or "")
        if not isinstance(weight, int | float) or not float(weight).is_integer() or weight < 0:
            got = "none: name the metric that counts examples" if weight is None else "another"
            raise Misuse(f"expected a whole number of examples >= 0 under {self._weight_key!r}, got {got}")
        trained = flatten(
            tree_of(arrays[0]), broadcast.reference.schema, not self.stack.counts_broken_as_zero
        )
        numbers = {
            k: float(v) for k, v in metrics[0].items() if isinstance(v, int | float) and np.isfinite(v)
        }
        return contribution_of(broadcast, trained, int(weight), numbers, client=own.client, empty=weight == 0)
