"""Against an active server: what it may ask, once, and what its clients refuse.

A semi-malicious server follows the protocol until shares are dealt and may then send anything to anybody; a malicious
one may do so from the first message. What a client's own policy demands, and what the holder of a key may open, is
promised to semi-honest servers too.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.audit.draws import inputs, small_vectors, tell, wrong
from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.properties import tampered
from protocols.audit.reading import hook_of
from protocols.audit.repeatable import ReplayRandom
from protocols.audit.stepping import Driven, Driving, answer_to, answers, drive
from protocols.audit_hooks import Forgery
from protocols.errors import PolicyRefusal, SecAggError
from protocols.kernel import SERVER, Message, Party, client
from protocols.policy import THREATS, Policy
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.store import MemoryStore

LONG = 5000
"""Coordinates that no ciphertext holds by itself."""
FORGED = 10
"""Clients of sessions in which requests are forged."""


def _requests(driven: Driven) -> list[tuple[str, Message, bytes]]:
    """(stage, genuine request, the encoded state it reached) for every party that was asked."""
    return [
        (stage.name, request, driven.before[stage.name][request.recipient])
        for stage in driven.stages
        for request in stage.requests
        if request.recipient in driven.before[stage.name]
    ]


@promised("semi-malicious", "session binding", most=1, pieces=("tamper",), outside=tampered.mixed_sessions)
def mixed_sessions_refused(subject: Any, data: Any) -> None:
    """Messages of another session are refused."""
    here, there = drive(subject, small_vectors()), drive(subject, small_vectors())
    for (stage, _, saved), (_, foreign, _) in zip(_requests(here), _requests(there), strict=True):
        if answers(subject, saved, foreign):
            raise Finding(f"a request of another session is answered\n  {foreign.recipient} at {stage}")


@promised("semi-malicious", "session binding of ciphertexts", most=1)
def stale_shares_refused(subject: Any, data: Any) -> None:
    """What was sealed in another session, one that was aborted say, is refused in this one.

    Shares sealed in one session (aborted, say) and relayed into another, between the same keys, are refused.
    """
    judge = hook_of(subject, "foreign_refused", "whether stale shares were taken cannot be seen")
    models = (bytes(32), b"\x01" * 32)
    runs = [drive(subject, small_vectors(), random=ReplayRandom(11), model=model) for model in models]
    old, new = (next(s for s in run.stages if s.name == subject.counting) for run in runs)
    for stale, genuine in zip(old.requests, new.requests, strict=True):
        request = replace(genuine, body=stale.body)
        step, _ = answer_to(subject, runs[1].before[subject.counting][genuine.recipient], request)
        if step is not None and step.send and not judge(request, step.send[0]):
            who = f"{genuine.recipient} at {subject.counting}"
            raise Finding(f"shares of another session are accepted\n  {who}")


@promised(
    "semi-malicious", "authenticated routing", most=1, pieces=("tamper",), outside=tampered.swapped_recipients
)
def swapped_recipients_refused(subject: Any, data: Any) -> None:
    """A request meant for another client is refused."""
    driven = drive(subject, small_vectors())
    for stage in driven.stages:
        clients = [m for m in stage.requests if m.recipient.role == "client"]
        for request in clients[1:]:
            if answers(subject, driven.before[stage.name][client(0)], request):
                raise Finding(f"client 0 answers a request meant for {request.recipient}\n  at {stage.name}")


@promised("semi-malicious", "replay", most=1)
def replays_refused(subject: Any, data: Any) -> None:
    """Requests of earlier stages are not answered again.

    Each earlier request, sent again later, is refused or answered with nothing.
    """
    driven = drive(subject, small_vectors())
    for later, earlier in ((a, b) for at, a in enumerate(driven.stages) for b in driven.stages[:at]):
        for request in earlier.requests:
            saved = driven.before[later.name].get(request.recipient)
            if saved is not None and answers(subject, saved, request):
                said = f"answers a request of {earlier.name} again when it waits for {later.name}"
                raise Finding(f"{request.recipient} {said}")


@promised("semi-malicious", "state rollback", most=1, pieces=("tamper",), outside=tampered.one_answer)
def one_answer_per_session(subject: Any, data: Any) -> None:
    """A party answers once what opens anything, from a restored state too.

    After its input has left, a party answers each request once: repeated, from a restored state, or in a new
    process.
    """
    driven = drive(subject, small_vectors())
    names = [stage.name for stage in driven.stages]
    for stage in driven.stages[names.index(subject.counting) :]:
        for request in stage.requests:
            _answer_twice(subject, driven, request)


def _answer_twice(subject: Any, driven: Driven, request: Message) -> None:
    store, saved = MemoryStore(), driven.state_for(request)
    key = f"session/{driven.session.context.hex()}"
    store.put(key, saved)
    runtime = Runtime(subject.protocol, driven.session, store, random=SystemRandom())
    if not runtime.handle(request):
        return
    for story, restore in (
        ("the same request again", False),
        ("the same request after its old state was restored", True),
    ):
        if restore:
            store.put(key, saved)
        try:
            again = runtime.handle(request)
        except SecAggError:
            continue
        if again:
            raise Finding(f"{request.recipient} answers {story}\n  at {request.stage}")


@promised("semi-malicious", "feigned abort, differencing", most=1)
def no_second_total_of_a_spent_update(subject: Any, data: Any) -> None:
    """An update that has left is not summed a second time."""
    vectors = small_vectors()
    stores = subject.stores(len(vectors))
    updates = {i: bytes([i + 1]) * 32 for i in range(len(vectors))}
    first = subject.play(vectors, {}, stores=stores, updates=updates)
    if first.total is None:
        raise tell("no total without drop-outs", vectors, {}, first)
    again = subject.play(vectors, {subject.counting: {0}}, stores=stores, updates=updates, round=2)
    if again.total is not None and len(again.survivors) > 0:
        said = "a second total of the same updates came out, without client 0: the difference of both is its update"
        raise tell(said, vectors, {subject.counting: {0}}, again)


@promised("malicious", "model inconsistency (Pasquini et al., CCS 2022)", most=5)
def different_models_refused(subject: Any, data: Any) -> None:
    """Clients that were shown different models never unmask together."""
    vectors = inputs(subject, data)
    played = subject.play(vectors, {}, models={1: b"\x01" * 32})
    if (played.total is not None and 1 in played.survivors) or wrong(played, vectors):
        said = "a client that was shown another model unmasks together with the others"
        raise tell(said, vectors, {}, played)


@promised("semi-honest", "parameter downgrade", most=1)
def weakened_parameters_refused(subject: Any, data: Any) -> None:
    """Every party, helpers included, refuses a session that asks for less than its own policy.

    Each of a party's own minimums, put just above what the session offers, makes it refuse.
    """
    protocol, n = subject.protocol, 5
    session = subject.session_of(n, 2, 9)
    demands = protocol.demands(session)
    base = {"min_cohort": 1, "min_survivors": 1, "allow_simulated": True}
    policies: dict[str, dict[str, Any]] = {
        "cohort": {"min_cohort": n + 1},
        "survivors": {"min_survivors": demands.survivors + 1},
        "ring": {"min_ring_bits": demands.ring_bits + 1},
        "simulated": {"allow_simulated": False},
    }
    if demands.threshold is not None:
        policies["threshold"] = {"min_threshold": demands.threshold + 1}
    if not demands.signed_roster:
        policies["roster"] = {"signed_roster": True}
    if demands.threat != "malicious":
        policies["threat"] = {"threat": THREATS[THREATS.index(demands.threat) + 1]}
    for party in (client(0), *protocol.helpers(session)):
        for name, demand in policies.items():
            try:
                _start(subject, session, party, Policy(**{**base, **demand}))
            except PolicyRefusal:
                continue
            said = "a session that falls short of a party's own policy is joined"
            raise Finding(f"{said}\n  {party}, demand: {name}, {demand}")
    _alone(subject)


def _start(subject: Any, session: Session, party: Party, policy: Policy) -> None:
    protocol, random = subject.protocol, SystemRandom()
    if party.role == "client":
        zeros = np.zeros(session.dimension, np.int64)
        protocol.client(session, party.number, zeros, random=random, policy=policy)
    else:
        protocol.helper(session, party, random=random, policy=policy)


def _alone(subject: Any) -> None:
    """With the policy it ships, no party joins a cohort of one."""
    policy = replace(subject.protocol.default_policy, allow_simulated=True)
    try:
        session = subject.session_of(1, 2, 9)
    except SecAggError:
        return
    for party in (client(0), *subject.protocol.helpers(session)):
        try:
            _start(subject, session, party, policy)
        except SecAggError:
            continue
        raise Finding(f"with its default policy {party} joins a cohort of one, whose sum is its input")


@promised("semi-honest", "small cohorts", most=1)
def least_survivors_hold(subject: Any, data: Any) -> None:
    """No total over fewer clients than the session promises is opened.

    A drop-out that is tolerated, and then again in a session that promises a total over everybody or none.
    """
    vectors = small_vectors(8)
    gone = {subject.counting: {0}}
    if subject.play(vectors, gone).total is None:
        raise NotChecked("no total comes out when one of 8 clients leaves, whatever the session promises")
    played = subject.play(vectors, gone, min_survivors=8)
    if played.total is not None:
        said = "a total over 7 clients was opened though the session promises at least 8"
        raise tell(said, vectors, gone, played)


@promised(
    "semi-malicious",
    "active server (Bonawitz et al., CCS 2017, section 6.2)",
    most=1,
    pieces=("tamper views",),
    outside=tampered.forged_views,
)
def forged_requests_refused(subject: Any, data: Any) -> None:
    """Survivor sets that overlap, repeat or shrink, swapped keys and split views are refused."""
    hook = hook_of(subject, "forgeries", "no requests of a cheating server are known for it")
    for kind, driven in _kinds_of_sessions(subject):
        before: list[Message] = []
        for stage in driven.stages:
            for request in stage.requests:
                for forged in hook(driven.session, request, tuple(before)):
                    if _falls_for(subject, driven.state_for(request), forged):
                        told = f"at {stage.name}{kind}: {forged.story}"
                        raise Finding(f"{request.recipient} answers a forged request\n  {told}")
            before += [*stage.requests, *stage.answers]


def _kinds_of_sessions(subject: Any) -> Iterator[tuple[str, Driven]]:
    """Sessions of each kind that a protocol has: as it comes and on its sparse graph, and rounds that build on those.

    One client leaves before its input; of ten one more may, so that a forged view falls short of no other number.
    """
    protocols = {"": subject.protocol}
    if subject.hooks.sparse is not None:
        protocols[" on a sparse graph"] = subject.hooks.sparse(FORGED)
    gone = {subject.counting: {FORGED - 1}}
    for kind, protocol in protocols.items():
        bound = Driving(protocol, subject.bound)
        yield kind, drive(bound, small_vectors(FORGED), gone=gone)
        first = drive(bound, small_vectors(FORGED))
        if SERVER in first.memory:
            later = drive(bound, small_vectors(FORGED), gone=gone, round=2, earlier=first)
            yield f"{kind} in a later round", later


def _falls_for(subject: Any, saved: bytes, forged: Forgery) -> bool:
    """Whether a party in an encoded state answers what it must refuse."""
    step, _ = answer_to(subject, saved, forged.message)
    if step is not None and step.send and forged.then is not None:
        return answers(subject, subject.protocol.encode_state(step.state), forged.then(step.send[0]))
    return step is not None and bool(step.send)


@promised("semi-honest", "chosen-ciphertext decryption of aggregates", most=1)
def no_decryption_oracle(subject: Any, data: Any) -> None:
    """Whoever holds a key opens the sum and nothing else, re-randomised single ciphertexts included.

    The vectors fill several ciphertexts and end alike: to open what has other ciphertexts would tell that.
    """
    hook = hook_of(subject, "oracles", "no requests to open something else are known for it")
    vectors = [np.pad(vector, (0, LONG - len(vector))) for vector in small_vectors(4)]
    session = subject.session_of(4, LONG, subject.bound)
    for story, _ in hook(session):
        fresh = subject.session_of(4, LONG, subject.bound)
        tamper = next(t for s, t in hook(fresh) if s == story)
        played = subject.play(vectors, {}, tamper=tamper, session=fresh)
        if wrong(played, vectors):
            raise Finding(f"something else than the sum over the survivors was opened: {story}")
        if played.total is not None:
            raise Finding(f"what was opened tells that a guess was right: {story}")
