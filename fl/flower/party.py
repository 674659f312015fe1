"""A node's part in a round: from a request to an answer, on its own store, identity and policy.

What belongs here: checks in the order in which they must come, the client's contribution, the helper's
steps. What does not: Flower's calls (`mod`), files (`site`), protocols.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fl.flower.compat import failure_of
from fl.flower.envelope import (
    CLOSE,
    START,
    VERSION,
    Answer,
    Header,
    Request,
    pack,
    strip,
    unpack_request,
)
from fl.flower.rounds import Reference, model_digest, plan_round, reference_of, tree_of
from fl.flower.site import Site
from fl.metrics import encode as encode_metrics
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, WireError
from protocols.identity import verify
from protocols.kernel import Message as Frame
from protocols.kernel import Party
from protocols.layers import Contribution
from protocols.randomness import SystemRandom
from protocols.record import HEAD_PURPOSE
from protocols.runtime import Runtime, recall
from protocols.session import Session
from protocols.stack import RoundPlan, Stack
from protocols.store import write_atomic
from protocols.updates import flatten

Train = Callable[[Message], Message]
KEPT_HEAD = "kept-head.txt"


class NodeParty:
    """One node while it answers one message. Raises PolicyRefusal, PeerError, StoreError or Misuse instead
    of answering.
    """

    def __init__(self, site: Site, stack: Stack) -> None:
        self.site = site
        self.stack = stack
        self.protocol = stack.secure_sum
        self.policy = site.policy(stack.secure_sum)
        self.train_seconds = 0.0

    def answer(self, message: Message, train: Train) -> Message:
        """Return the protected reply to a request; `train` runs the wrapped app on the message it is given."""
        began = time.perf_counter()
        request, frames = unpack_request(message.content, self.site.server_key)
        if request.recipient != self.site.name:
            raise ProtocolViolation(
                f"a request for {request.recipient!r} came to {self.site.name!r}", "server"
            )
        if request.kind == CLOSE:
            self._keep_head(request)
            out: list[Frame] = []
        else:
            if request.kind == START:
                self._start(request, message, train)
            out = self._step(request, frames)
        seconds = time.perf_counter() - began
        answer = Answer(
            VERSION, request.context, request.stage, self.site.name, seconds, self.train_seconds, len(out)
        )
        return Message(pack(answer, [f.to_wire() for f in out], self.site.identity), reply_to=message)

    def _start(self, request: Request, message: Message, train: Train) -> None:
        """Check everything that can be checked, then train, then begin the session."""
        header = _header(request)
        claimed = Session.decode(header.session)
        site = self.site
        site.require_role(request.role)
        site.require_roster(header.federation, header.serial, claimed.roster)
        self._check_layers()
        self._keep_head(request)
        party = Party(request.role, request.index)
        if claimed.roster[request.index : request.index + 1] != (site.name,) and party.role == "client":
            raise ProtocolViolation(f"index {party.index} of the session is not {site.name!r}", "server")
        plan, reference, session = self._plan(header, claimed, message)
        if session.context != request.context:
            raise ProtocolViolation("the request is of another session than its header", "server")
        self.policy.check(self.protocol.demands(session))  # before training: it may take hours
        site.enter_round(header.federation, session.round, _session_key(session.context), session.encode())
        if party.role == "client":
            self._begin_client(request.index, plan, reference, header, session, message, train)
        else:
            step = self.protocol.helper(
                session,
                party,
                random=SystemRandom(),
                policy=self.policy,
                memory=recall(site.store, self.protocol),
            )
            self._runtime(session).begin(step)

    def _check_layers(self) -> None:
        allowed = self.policy.allow_layers
        if allowed is None:
            return
        for name in (*(layer.name for layer in self.stack.layers), self.protocol.name):
            if name not in allowed:
                raise PolicyRefusal(f"allow_layers: this node does not accept {name!r}, it accepts {allowed}")

    def _plan(
        self, header: Header, claimed: Session, message: Message
    ) -> tuple[RoundPlan, Reference, Session]:
        """Compute the round from what this node was shown; the server's own digest counts for nothing."""
        content = strip(message.content)
        arrays = content.array_records.get(header.arrays_key)
        if arrays is None:
            raise WireError(f"expected the model under {header.arrays_key!r}")
        reference = reference_of(tree_of(arrays), header.integers)
        run = header.run.facts()
        if run.dimension != reference.schema.dimension or run.cohort < len(claimed.roster):
            raise ProtocolViolation(
                "the planned run does not fit the model or the cohort that was sent", "server"
            )
        self.stack.plan(run)
        plan = plan_round(
            self.stack, run, claimed.round, claimed.roster, header.public, reference, header.metrics
        )
        config = next(iter(content.config_records.values()), None)
        own = replace(claimed, model=model_digest(plan, reference, config))
        if own.model != claimed.model:
            raise ProtocolViolation(
                "the model, configuration or layers that this node was shown are not those of the session",
                "server",
            )
        summed = plan.summed
        if (own.dimension, own.bound, int(own.modulus)) != (plan.dimension, plan.bound, summed.modulus):
            raise ProtocolViolation(
                "the session's dimension, bound or modulus is not what the layers give", "server"
            )
        if own.min_survivors < min(summed.min_survivors, own.clients):
            raise PolicyRefusal(
                f"min_survivors: the layers demand {summed.min_survivors}, the session offers {own.min_survivors}"
            )
        return plan, reference, own

    def _begin_client(
        self,
        index: int,
        plan: RoundPlan,
        reference: Reference,
        header: Header,
        session: Session,
        message: Message,
        train: Train,
    ) -> None:
        update, weight, metrics = self._train(header, reference, message, train)
        weight = min(weight, plan.signals[0].weight_cap)
        coordinates = self._metrics(plan, metrics, header.metrics, weight)
        own = replace(plan.facts, client=self.site.name, store=self.site.store)
        vector = plan.encode(Contribution(update, weight, coordinates), own)
        step = self.protocol.client(
            session,
            index,
            vector,
            random=SystemRandom(),
            policy=self.policy,
            update=hashlib.sha256(b"secagg update v1\0" + reference.digest + update.tobytes()).digest(),
            memory=recall(self.site.store, self.protocol),
        )
        self._runtime(session).begin(step)

    @staticmethod
    def _metrics(
        plan: RoundPlan, values: dict[str, object], names: tuple[str, ...], weight: int
    ) -> dict[str, NDArray[np.int64]]:
        """Return the metrics that are summed; a DP layer that forbids exact coordinates drops them."""
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and np.isfinite(v)}
        wanted = {c.name for c in plan.summed.coordinates}
        return {k: v for k, v in encode_metrics(numbers, names, weight).items() if k in wanted}

    def _train(
        self, header: Header, reference: Reference, message: Message, train: Train
    ) -> tuple[NDArray[np.float64], int, dict[str, object]]:
        """Run the wrapped app; return the update (difference to the model), its weight and the metrics."""
        began = time.perf_counter()
        message.content = strip(message.content)
        reply = train(message)
        self.train_seconds = time.perf_counter() - began
        if (why := failure_of(reply)) is not None:
            raise Misuse(f"the wrapped app failed: {why}")
        arrays, metrics = (
            list(reply.content.array_records.values()),
            list(reply.content.metric_records.values()),
        )
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
        flat = flatten(tree_of(arrays[0]), reference.schema)
        return flat.vector - reference.flat.vector, int(weight), values

    def _step(self, request: Request, frames: list[bytes]) -> list[Frame]:
        """Hand the frames to the session's state, each once; what is answered was saved before."""
        saved = self.site.store.get(_session_key(request.context))
        if saved is None:
            raise PolicyRefusal("no such session was begun here, or it is over")
        runtime = self._runtime(Session.decode(saved))
        out: list[Frame] = []
        for data in frames:
            out.extend(runtime.handle(Frame.from_wire(data)))
        return out

    def _runtime(self, session: Session) -> Runtime:
        return Runtime(self.protocol, session, self.site.store, allow_resend=self.policy.allow_resend)

    def _keep_head(self, request: Request) -> None:
        """Keep the record's last head, so that a record that is cut short later can be found out."""
        header = _header(request)
        if not header.head:
            return
        if self.site.server_key is not None:
            verify(self.site.server_key, HEAD_PURPOSE, bytes.fromhex(header.head), header.head_signature)
        self.site.store.put(f"flower/head/{header.federation}", header.head.encode())
        if self.site.folder is not None:
            write_atomic(self.site.folder / KEPT_HEAD, header.head.encode() + b"\n")


def _header(request: Request) -> Header:
    if request.header is None:
        raise WireError("expected a header with the first request of a round")
    return request.header


def _session_key(context: bytes) -> str:
    return f"flower/session/{context.hex()}"
