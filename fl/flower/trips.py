"""One secure sum over Flower's grid, from the server's side: a trip per stage, each with a deadline.

What belongs here: sending requests, taking answers as they come, closing stages, seconds and bytes. What
does not: what is summed, strategies. Replies are polled for by the public push and pull calls, more often
than `send_and_receive` would.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl.flower.compat import failure_of
from fl.flower.messages import START, STEP, VERSION, Answer, Frames, Header, Request, pack, unpack_answer
from fl.flower.nodes import Directory
from fl.flower.server_state import AskedRound, ServerState
from protocols.errors import Aborted, Misuse, PeerError
from protocols.identity import Identity
from protocols.kernel import Message as Frame
from protocols.kernel import Party, State, Step
from protocols.randomness import SystemRandom
from protocols.runtime import remember
from protocols.session import Session
from protocols.summation import SecureSum, Total

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Trip:
    """What one trip took. seconds: wall time. node: the slowest answering node's own computing, training
    included; train: of that, the user's code. server: computing here. waiting: the rest: polling, transport
    and starting processes. asked, answered: parties. up, down: bytes of frames over all parties.
    """

    stage: str
    seconds: float
    node: float
    train: float
    server: float
    asked: int
    answered: int
    up: int
    down: int

    @property
    def waiting(self) -> float:
        return max(0.0, self.seconds - self.node - self.server)


def ask(
    grid: Grid, poll: float, contents: Mapping[int, RecordDict], seconds: float, group: str
) -> Iterator[Message]:
    """Send one message each to some nodes; yield the replies as they arrive, at most one per node.

    It ends when all are there or `seconds` have passed; a node that is asked and silent yields nothing. poll: seconds
    between two looks.
    """
    messages = [Message(c, node, "train", ttl=seconds, group_id=group) for node, c in contents.items()]
    pending = {message_id for message_id in grid.push_messages(messages) if message_id}
    waiting = set(contents)
    deadline = time.monotonic() + seconds
    while pending and waiting:
        late = time.monotonic() >= deadline  # whatever came in time is taken: one last look
        for reply in list(grid.pull_messages(list(pending))):
            pending.discard(reply.metadata.reply_to_message_id)
            node = reply.metadata.src_node_id
            if node in waiting:
                waiting.discard(node)
                yield reply
        if late:
            break
        if pending and waiting:
            time.sleep(min(poll, max(0.0, deadline - time.monotonic())))


@dataclass
class SumOverGrid:
    """Drives one session. content: the model, which goes with a party's first request. timeout: seconds per trip.

    refusals: party name -> why it did not take part, or not to the end. resent: who declared to send an update again.
    """

    grid: Grid
    poll: float
    protocol: SecureSum
    state: ServerState
    identity: Identity | None
    directory: Directory
    session: Session
    header: Header
    content: RecordDict
    timeout: float
    refusals: dict[str, str] = field(default_factory=dict)
    trips: list[Trip] = field(default_factory=list)
    resent: list[str] = field(default_factory=list)

    def run(self) -> Total:
        """Play all stages. Raises Aborted (with the refusals as notes) if there is no total, Misuse."""
        random = SystemRandom()
        self._begun: set[Party] = set()
        self._computing = 0.0
        memory = self.state.recall(self.protocol)
        state, outbox = self._save(self.protocol.server(self.session, random=random, memory=memory))
        try:
            for stage in self.protocol.stages(self.session):
                if stage.counts:
                    session, number = self.session, self.header.number
                    self.state.inputs_asked(
                        AskedRound(session.round, number, session.context, session.roster)
                    )
                state = self._trip(stage.name, outbox, state)
                if state.finished:
                    break
                began = time.perf_counter()
                state, outbox = self._save(state.close(random))
                self._computing += time.perf_counter() - began
        except Aborted as error:
            for name, why in sorted(self.refusals.items()):
                error.add_note(f"{name}: {why}")
            raise
        if not isinstance(state, Total):
            raise Misuse(f"{self.protocol.tag} ran out of stages in state {type(state).__name__}: no total")
        return state

    def _trip(self, stage: str, outbox: tuple[Frame, ...], state: State) -> State:
        """Carry one stage's requests and take the answers as they come, so that they are never all held at once."""
        began, computing, self._computing = time.perf_counter(), self._computing, 0.0
        requests, nodes = self._requests(stage, outbox)
        down = sum(len(f.to_wire()) for f in outbox)
        slowest = train = 0.0
        up = answered = 0
        heard = set()
        for reply in ask(self.grid, self.poll, requests, self.timeout, f"round {self.session.round}"):
            taken = time.perf_counter()
            name, party = nodes[reply.metadata.src_node_id]
            heard.add(name)
            answer, frames = self._read(reply, name)
            if answer is not None:
                answered += 1
                if answer.sent_again:
                    self.resent.append(name)
                    self.state.resent(self.session.round, name)
                slowest, train = max(slowest, answer.seconds), max(train, answer.train_seconds)
                up += sum(len(f) for f in frames)
                state = self._take(state, name, party, frames)
            computing += time.perf_counter() - taken
        for name, _ in nodes.values():
            if name not in heard:
                self.refusals.setdefault(name, f"no answer to {stage!r} within {self.timeout:g} s")
        seconds = time.perf_counter() - began
        self.trips.append(Trip(stage, seconds, slowest, train, computing, len(nodes), answered, up, down))
        return state

    def _requests(
        self, stage: str, outbox: tuple[Frame, ...]
    ) -> tuple[dict[int, RecordDict], dict[int, tuple[str, Party]]]:
        frames: dict[Party, list[bytes]] = {}
        for frame in outbox:
            frames.setdefault(frame.recipient, []).append(frame.to_wire())
        contents: dict[int, RecordDict] = {}
        nodes: dict[int, tuple[str, Party]] = {}
        for party, wire in frames.items():
            found = self.directory.find(party, self.session.roster)
            if found is None:
                self.refusals.setdefault(str(party), "not connected")
                continue
            name, node = found
            nodes[node] = (name, party)
            contents[node] = self._pack(stage, party, name, wire)
        return contents, nodes

    def _pack(self, stage: str, party: Party, name: str, frames: Frames) -> RecordDict:
        first = party not in self._begun
        self._begun.add(party)
        kind, header = (START, self.header) if first else (STEP, None)
        request = Request(VERSION, kind, self.session.context, stage, name, *party, header, len(frames))
        ours = pack(request, frames, self.identity)
        return RecordDict({**(self.content if first else {}), **ours})

    def _read(self, reply: Message, name: str) -> tuple[Answer | None, list[bytes]]:
        """Return a party's answer, or None if it refused, failed or is not who it should be."""
        if (why := failure_of(reply)) is not None:
            self.refusals.setdefault(name, why)
            return None, []
        try:
            answer, frames = unpack_answer(reply.content, self.directory.keys.get(name))
            if (answer.context, answer.name) != (self.session.context, name):
                raise PeerError(f"an answer of another session or by {answer.name!r}", name)
        except PeerError as error:
            self.refusals.setdefault(name, f"{type(error).__name__}: {error}")
            return None, []
        return answer, frames

    def _take(self, state: State, name: str, party: Party, frames: list[bytes]) -> State:
        """Hand frames to the server's state; what it refuses counts as that party's silence."""
        for data in frames:
            try:
                frame = Frame.from_wire(data)
                if frame.sender != party:
                    raise PeerError(f"{name} sent a message in the name of {frame.sender}", name)
                state, _ = self._save(state.receive(frame, SystemRandom()))
            except PeerError as error:
                self.refusals.setdefault(name, f"{type(error).__name__}: {error}")
        return state

    def _save(self, step: Step) -> tuple[State, tuple[Frame, ...]]:
        if step.marks or step.memory is not None:
            with self.state.store.transaction() as transaction:
                remember(transaction, self.protocol, step)
        return step.state, step.send
