"""A server that does whatever it likes, for as long as it likes, with two sessions of the same clients and
one corrupt client.

It reorders, repeats, withholds, forges, replays and moves messages between sessions, stages and clients,
names any sets of survivors, shows different ones to different clients and feigns aborts. Whatever it does, no
client's two secrets can both be opened, no update leaves twice, and nothing is answered twice.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocols.agreement import Vote, agreed, cast, certify, check_vote
from protocols.errors import Aborted, Misuse, PeerError, PolicyRefusal
from protocols.kernel import SERVER, Message, State, client, message
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.store import MemoryStore
from protocols.summation import Total
from secagg import SecAgg
from secagg.client.voting import Voting
from secagg.commitments import KEY, SEED, share_digest, signer, view_facts
from secagg.messages import (
    ADVERTISE,
    CONFIRM,
    INPUT,
    SHARE,
    UNMASK,
    Advertisement,
    Dealing,
    Masked,
    Opened,
    Survivors,
    Unmask,
    items,
    pack_bits,
    unpack_bits,
)
from secagg.session_rules import rules_of

N, CORRUPT = 7, 6


def signs(key: bytes, digest: bytes, signature: bytes) -> bool:
    try:
        check_vote(key, digest, signature, "somebody")
    except PeerError:
        return False
    return True


HONEST = [i for i in range(N) if i != CORRUPT]
SESSIONS = (0, 1)
clients = st.integers(0, N - 1)
subsets = st.sets(clients, max_size=N)


class CheatingServer(RuleBasedStateMachine):
    """The clients are real, each on its own store, each step decoded from it. The server is a pool of
    messages and a will.
    """

    def __init__(self) -> None:
        super().__init__()
        self.random = SystemRandom()
        self.pool: list[Message] = []
        self.given: defaultdict[tuple[bytes, str], list[Message]] = defaultdict(list)
        self.crashed = 0

    @initialize(
        threat=st.sampled_from(["semi-honest", "semi-malicious"]),
        depth=st.sampled_from([0, 1, 2, 3, 3, 3, 4]),
    )
    def begin(self, threat: str, depth: int) -> None:
        self.protocol = SecAgg(threat=threat, dropout=0.2, collusion=0.2)
        self.voted = threat != "semi-honest"
        self.stores = [MemoryStore() for _ in range(N)]
        self.sessions: list[Session] = []
        self.servers: list[State] = []
        self.runtimes: list[list[Runtime]] = []
        self.queues: list[list[Message]] = []
        for _ in SESSIONS:
            session = self.protocol.session([f"c{i}" for i in range(N)], 3, 9, random=self.random)
            step = self.protocol.server(session, random=self.random)
            self.sessions.append(session)
            self.servers.append(step.state)
            self.queues.append(list(step.send))
            self.runtimes.append([self.enter(session, i) for i in range(N)])
            self.pool.extend(step.send)
        for _ in range(depth):
            self.honest_trip(which=0, absent=set())

    def enter(self, session: Session, i: int) -> Runtime:
        runtime = Runtime(self.protocol, session, self.stores[i])
        vector = np.full(3, i, np.int64)
        step = self.protocol.client(session, i, vector, random=self.random, update=b"the one update %d" % i)
        runtime.begin(step)
        return runtime

    # -- what the server does --

    def tell(self, which: int, sent: Message) -> list[Message]:
        """Deliver a message to a client of one session; a refusal is one of ours, anything else fails the
        test.
        """
        index = sent.recipient.number if sent.recipient.role == "client" else 0
        try:
            answers = self.runtimes[which][index % N].handle(sent)
        except (PeerError, PolicyRefusal, Aborted):
            return []
        for answer in answers:
            self.given[answer.session, answer.stage].append(answer)
        self.pool.extend(answers)
        return list(answers)

    @rule(which=st.sampled_from(SESSIONS), absent=st.sets(clients, max_size=1))
    def honest_trip(self, which: int, absent: set[int]) -> None:
        """Let one stage pass as it should, so that the later ones are reached."""
        for request in self.queues[which]:
            if request.recipient.number not in absent:
                for answer in self.tell(which, request):
                    try:
                        self.servers[which] = self.servers[which].receive(answer, self.random).state
                    except PeerError:
                        continue
        try:
            step = self.servers[which].close(self.random)
        except (Aborted, Misuse):  # too few answered, or it is done: the rest is for the cheating server
            return
        self.servers[which], self.queues[which] = step.state, list(step.send)
        self.pool.extend(step.send)

    @rule(data=st.data(), which=st.sampled_from(SESSIONS))
    def replay(self, data: st.DataObject, which: int) -> None:
        """Any message that was ever seen, to whom it was meant for or not."""
        sent = data.draw(st.sampled_from(self.pool))
        self.tell(which, sent)
        self.tell(which, replace(sent, recipient_role="client", recipient_index=data.draw(clients)))

    @rule(data=st.data(), which=st.sampled_from(SESSIONS), to=clients)
    def relabel(self, data: st.DataObject, which: int, to: int) -> None:
        """The body of any message under any stage of any session."""
        sent = data.draw(st.sampled_from(self.pool))
        stage = data.draw(st.sampled_from(sorted({m.stage for m in self.pool})))
        self.tell(which, message(self.sessions[which].context, stage, SERVER, client(to), sent.body))

    @rule(data=st.data(), which=st.sampled_from(SESSIONS))
    def corrupt_bytes(self, data: st.DataObject, which: int) -> None:
        """Any message with one byte changed."""
        sent = data.draw(st.sampled_from(self.pool))
        if sent.body:
            at = data.draw(st.integers(0, len(sent.body) - 1))
            body = bytearray(sent.body)
            body[at] ^= data.draw(st.integers(1, 255))
            self.tell(which, replace(sent, body=bytes(body)))

    @precondition(lambda self: self.voted)
    @rule(which=st.sampled_from(SESSIONS), alive=subsets, to=subsets)
    def show_survivors(self, which: int, alive: set[int], to: set[int]) -> None:
        """Any set of survivors to any clients."""
        bits = pack_bits(sorted(alive), N)
        for i in to:
            self.tell(
                which,
                message(self.sessions[which].context, CONFIRM, SERVER, client(i), Survivors(bits).encode()),
            )

    @rule(which=st.sampled_from(SESSIONS), alive=subsets, to=subsets)
    def ask_to_unmask(self, which: int, alive: set[int], to: set[int]) -> None:
        """Any survivors, to any clients; in a voted session with the votes there are for them, and what the corrupt
        client signs.
        """
        for i in to:
            bits = pack_bits(sorted(alive), N)
            body = self.ballot(which, i, bits) if self.voted else Unmask(bits, None, b"")
            self.tell(which, message(self.sessions[which].context, UNMASK, SERVER, client(i), body.encode()))

    @rule(which=st.sampled_from(SESSIONS), gone=clients, to=subsets)
    def tell_two_stories(self, which: int, gone: int, to: set[int]) -> None:
        """One client is alive to some and dropped to the others; then everybody is asked to open."""
        views = {i: set(range(N)) - (set() if i in to else {gone}) for i in range(N)}
        if self.voted:
            for i, view in views.items():
                self.show_survivors(which, view, {i})
        for i, view in views.items():
            self.ask_to_unmask(which, view, {i})

    def ballot(self, which: int, i: int, bits: bytes) -> Unmask:
        """All votes for these survivors, with the corrupt client's own, and the inputs that were signed."""
        session = self.sessions[which]
        everybody = pack_bits(range(N), N)
        facts = view_facts(rules_of(session).seed, everybody, bits)
        votes = {}
        for m in self.given[session.context, CONFIRM]:
            vote, key = Vote.decode(m.body).signature, self.key_of(which, m.sender.number)
            if signs(key, agreed(session.context, facts), vote):
                votes[m.sender.number] = vote
        corrupt = self.state_of(which, CORRUPT)
        if isinstance(corrupt, Voting):
            votes[CORRUPT] = cast(signer(corrupt.sign), session.context, facts).signature
        certificate = certify(votes, min(rules_of(session).parameters.quorum, len(votes)))
        inputs = {
            m.sender.number: Masked.decode(m.body).signature for m in self.given[session.context, INPUT]
        }
        silent = unpack_bits(bits, N) - set(certificate.voters.tolist()) - {i}
        return Unmask(bits, certificate, b"".join(inputs.get(j, bytes(64)) for j in sorted(silent)))

    def key_of(self, which: int, i: int) -> bytes:
        said = self.given[self.sessions[which].context, ADVERTISE]
        return next(Advertisement.decode(m.body).keys[64:96] for m in said if m.sender.number == i)

    def state_of(self, which: int, i: int) -> State | None:
        key = f"session/{self.sessions[which].context.hex()}"
        saved = self.stores[i].get(key)
        return None if saved is None else self.protocol.decode_state(saved)

    # -- what must hold --

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        for answers in self.given.values():
            senders = [m.sender for m in answers]
            assert len(set(senders)) == len(senders)

    @invariant()
    def no_update_leaves_twice(self) -> None:
        senders = [m.sender for (_, stage), ms in self.given.items() if stage == INPUT for m in ms]
        assert len(set(senders)) == len(senders)

    @invariant()
    def no_client_has_both_its_secrets_opened(self) -> None:
        for (context, stage), answers in list(self.given.items()):
            if stage != UNMASK:
                continue
            rules = rules_of(next(s for s in self.sessions if s.context == context))
            dealt = {m.sender.number: Dealing.decode(m.body) for m in self.given[context, SHARE]}
            seeds, keys = defaultdict(set), defaultdict(set)
            for answer in answers:
                opened, holder = Opened.decode(answer.body), answer.sender.number
                for j, share in zip(opened.owners.tolist(), items(opened.shares, 32), strict=True):
                    kinds = {kind: share_digest(context, j, holder, kind, share) for kind in (SEED, KEY)}
                    digests = [dealt[j].digest(holder, place) for place in (0, 1)]
                    assert (kinds[SEED] == digests[0]) != (kinds[KEY] == digests[1])
                    (seeds if kinds[SEED] == digests[0] else keys)[j].add(holder)
            if self.voted:
                for j in HONEST:
                    both = [len((x[j] - {CORRUPT}) | {CORRUPT}) >= rules.threshold for x in (seeds, keys)]
                    assert not all(both), f"client {j} is open"

    def teardown(self) -> None:
        for server in getattr(self, "servers", []):
            if isinstance(server, Total):
                assert server.total.tolist() == [sum(server.survivors)] * 3


CheatingServer.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCheatingServer = CheatingServer.TestCase


def test_the_cheating_server_gets_as_far_as_unmasking() -> None:
    """The machine is not beaten by never getting anywhere: honest trips in it end in a total."""
    machine = CheatingServer()
    machine.begin(threat="semi-malicious", depth=0)
    for _ in range(6):
        machine.honest_trip(which=0, absent=set())
    assert isinstance(machine.servers[0], Total)
    assert len(machine.given[machine.sessions[0].context, UNMASK]) == N
