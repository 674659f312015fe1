"""What sessions that came to nothing leave with a client. What does not belong here: what others leave (`secrets`)."""

from typing import Any

import numpy as np

from protocols.audit.prop import Finding, promised
from protocols.audit.properties.secrets import CANARY, hidden
from protocols.audit.subject import OPEN
from protocols.kernel import Message, Step, client
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime, recall


@promised("semi-honest", "forward secrecy, expiry", most=1)
def abandoned_sessions_leave_nothing(subject: Any, data: Any) -> None:
    """What a session that was given up left with a client is gone once a session of a later round begins, or once its
    input left in another one.

    Its keys, its chains where keys are reused, and its input; what serves later rounds lies elsewhere (`memory/`).
    """
    protocol, stores, secrets = subject.protocol, subject.stores(5), list[bytes]()
    subject.play([np.array([i, -i], np.int64) for i in range(5)], {}, stores=stores)
    for round in (2, 3):
        memory = recall(stores["server"], protocol)
        session = subject.session_of(5, 2, 1 << 40, round=round, memory=memory)
        vector, store = np.array([CANARY + round, 0], np.int64), stores[0]
        Runtime(protocol, session, store).begin(_first(protocol, session, vector))
        state = protocol.decode_state(store.get(f"session/{session.context.hex()}"))
        own = set(hidden(state, protocol.audit_hooks.sent))  # a lasting identity is among them
        for name, entry in store.entries().items():
            gone = [] if name.startswith("value/memory/") else secrets
            if any(secret in entry for secret in gone if secret not in own):
                raise Finding(
                    f"a secret of an abandoned session stays in the client's store\n  in {name[:40]}"
                )
        secrets += [*own, vector[:1].tobytes(), vector[:1].byteswap().tobytes()]
    for other in (0, 1) if protocol.builds_on_earlier else (0,):
        _decoy_leaves_nothing(subject, stores, 4 + other, other)


@promised("semi-honest", "several federations on one store", most=1)
def series_keep_to_themselves(subject: Any, data: Any) -> None:
    """What a client keeps of one federation is not touched by another one on the same store, which starts from nothing.

    Sets up twice, in two series. Counts of sessions, and keys that are reused, are what is kept.
    """
    protocol, stores, kept = subject.protocol, subject.stores(5), dict[str, bytes | None]()
    for round, series in enumerate(("one", "another"), 1):
        runtime = Runtime(protocol, subject.session_of(5, 2, 1 << 40, round=round), stores[0])
        found = recall(stores[0], protocol, series)
        runtime.begin(_first(protocol, runtime.session, np.array([round, 0], np.int64)), series)
        _send_input(subject, runtime, stores, None)
        if found is not None or any(recall(stores[0], protocol, one) != kept[one] for one in kept):
            raise Finding("two federations on one store share what the client keeps of their sessions")
        kept[series] = recall(stores[0], protocol, series)


def _decoy_leaves_nothing(subject: Any, stores: Any, round: int, other: int) -> None:
    """Two sessions of one round, of inputs that differ by `other`: nothing of one is left once the other's has gone."""
    protocol, memory = subject.protocol, recall(stores["server"], subject.protocol)
    runtimes = []
    for number in (0, other):
        session = subject.session_of(5, 2, 1 << 40, round=round, memory=memory)
        runtimes.append(Runtime(protocol, session, stores[0]))
        vector = np.array([CANARY + 10 * round + number, 0], np.int64)
        runtimes[-1].begin(_first(protocol, session, vector))
    real, decoy = runtimes
    waiting = protocol.decode_state(stores[0].get(decoy._key))
    secrets = set(hidden(waiting, protocol.audit_hooks.sent))
    _send_input(subject, real, stores, memory)
    kept = stores[0].get(real._key)
    own = set(hidden(protocol.decode_state(kept), protocol.audit_hooks.sent)) if kept else set()
    for name, entry in stores[0].entries().items():
        if not name.startswith("value/memory/") and any(secret in entry for secret in secrets - own):
            raise Finding(
                f"a session beside one that sent this round's input keeps its secrets\n  in {name[:40]}"
            )


def _send_input(subject: Any, runtime: Runtime[Any], stores: Any, memory: bytes | None) -> None:
    """Play a session until the inputs have left; client 0 is on its runtime, the others keep nothing."""
    protocol, session, random = subject.protocol, runtime.session, SystemRandom()
    states: dict[Any, Any] = {
        helper: protocol.helper(session, helper, random=random, policy=OPEN).state
        for helper in protocol.helpers(session)
    }
    for i in range(1, session.clients):
        kept, vector = recall(stores[i], protocol), np.array([i, 0], np.int64)
        states[client(i)] = protocol.client(session, i, vector, random=random, policy=OPEN, memory=kept).state

    def told(request: Message) -> tuple[Message, ...]:
        done: Step = states[request.recipient].receive(request, random)
        states[request.recipient] = done.state
        return done.send

    step = protocol.server(session, random=random, memory=memory)
    for stage in protocol.stages(session):
        state = step.state
        for request in step.send:
            answers = runtime.handle(request) if request.recipient == client(0) else told(request)
            for answer in answers:
                state = state.receive(answer, random).state
        if stage.counts:
            return
        step = state.close(random)


def _first(protocol: Any, session: Any, vector: Any) -> Any:
    """How client 0 starts, given what it keeps."""
    return lambda kept: protocol.client(session, 0, vector, random=SystemRandom(), policy=OPEN, memory=kept)
