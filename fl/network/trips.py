"""One secure sum over a network, from the server's side: a trip per stage, each with a deadline.

What belongs here: sending requests, taking answers as they come, closing stages, seconds and bytes. What
does not: what is summed, strategies.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

from fl.network.directory import Directory, Node
from fl.network.messages import START, STEP, VERSION, Answer, Header, Request, Shown
from fl.network.server_party import Reply, Sent, ServerParty
from fl.network.server_state import AskedRound
from fl.round import Trip
from protocols.driver import Driver
from protocols.errors import Misuse, PeerError
from protocols.kernel import Message as Frame
from protocols.kernel import Party, Step
from protocols.protocol import Stage
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.summation import Total

Contents = dict[Node, Sent[Shown]]
"""What each node is sent."""


@dataclass
class SumOverNetwork(Generic[Shown]):
    """Drives one session. content: the model as it travels, by a party's name, for its first request. timeout: seconds
    per trip. awaited: how many clients a trip waits for (None: all); who answers later is left out.

    refusals: party name -> why it did not take part, or not to the end. resent: who declared to send an update again.
    """

    server: ServerParty[Shown]
    directory: Directory
    session: Session
    header: Header
    content: Callable[[str], Shown]
    timeout: float
    awaited: int | None = None
    refusals: dict[str, str] = field(default_factory=dict)
    trips: list[Trip] = field(default_factory=list)
    resent: list[str] = field(default_factory=list)

    def run(self) -> Total:
        """Play all stages. Raises Aborted if there is no total; `refusals` says why."""
        self._begun: set[Party] = set()
        self._names: dict[Party, str] = {}
        self._computing = 0.0
        self._driver = Driver(
            self.server.protocol, self.session, SystemRandom(), self._perform, self._refused
        )
        final = self._driver.run(self._trip, self.server.recall())
        if not isinstance(final, Total):
            raise Misuse(f"expected a sum, {self.server.protocol.tag} ended with a {type(final).__name__}")
        return final

    def _trip(self, stage: Stage, queue: tuple[Frame, ...]) -> None:
        """Carry one stage's requests and take the answers as they come, so that they are never all held at once."""
        began, session = time.perf_counter(), self.session
        if stage.counts:
            asked = AskedRound(session.round, self.header.terms.number, session.context, session.roster)
            self.server.state.inputs_asked(asked)
        if not self.trips and stage.role == "client":
            self._name_unasked({frame.recipient.number for frame in queue})
        requests, parties = self._requests(stage.name, queue)
        needed = min(len(requests), stage.needed or self.server.protocol.demands(session).survivors)
        down = sum(len(frame.to_wire()) for frame in queue)
        answers: list[Answer] = []
        up, silent = 0, set(parties)

        def enough() -> bool:  # who was refused has not answered
            return sum(answer.name not in self.refusals for answer in answers) >= needed

        for reply in self.server.ask(requests, self.timeout, str(self.header.terms.number), enough):
            node = reply.node
            silent.discard(node)
            taken = time.perf_counter()
            answer, frames = self._read(reply, self._names[parties[node]])
            self._computing += time.perf_counter() - taken
            if answer is not None:
                answers.append(answer)
                up += sum(len(frame) for frame in frames)
                self._take(answer, parties[node], frames)
            if stage.role == "client" and len(answers) == self.awaited:
                break
        seconds = time.perf_counter() - began
        for node in silent:
            why = f"no answer to {stage.name!r} within {seconds:.3g} s"
            if len(answers) == self.awaited:
                why = f"not among the first {self.awaited} to answer {stage.name!r}"
            self.refusals.setdefault(self._names[parties[node]], why)
        # a node says what it took; it cannot have been longer than the trip
        node_s, train_s = (
            min(seconds, max(said, default=0.0))
            for said in ([a.seconds for a in answers], [a.train_seconds for a in answers])
        )
        server_s, self._computing = self._computing, 0.0
        counts = len(parties), len(answers), up, down
        self.trips.append(Trip(stage.name, seconds, node_s, train_s, server_s, *counts))

    def _name_unasked(self, asked: set[int]) -> None:
        for index, name in enumerate(self.session.roster):
            if index not in asked:
                self.refusals[name] = (
                    "not asked: it was not there for the set-up of keys that this round builds on, and joins with the "
                    "next one"
                )

    def _requests(self, stage: str, outbox: tuple[Frame, ...]) -> tuple[Contents[Shown], dict[Node, Party]]:
        frames: dict[Party, list[bytes]] = {}
        for frame in outbox:
            frames.setdefault(frame.recipient, []).append(frame.to_wire())
        contents: Contents[Shown] = {}
        nodes: dict[Node, Party] = {}
        for party, wire in frames.items():
            found = self.directory.find(party, self.session.roster)
            if found is None:
                self.refusals.setdefault(str(party), "not connected")
                continue
            self._names[party], node = found
            nodes[node] = party
            contents[node] = self._pack(stage, party, found[0], wire, self.server.late.pop(node, 0.0))
        return contents, nodes

    def _pack(self, stage: str, party: Party, name: str, frames: list[bytes], late: float) -> Sent[Shown]:
        first = party not in self._begun
        self._begun.add(party)
        kind, header = (START, self.header) if first else (STEP, None)
        request = Request(VERSION, kind, self.session.context, stage, name, *party, header, len(frames), late)
        return Sent(request, frames, self.content(name) if first else None)

    def _read(self, reply: Reply, name: str) -> tuple[Answer | None, list[bytes]]:
        """Return a party's answer, or None if it refused, failed or is not who it should be."""
        if reply.failure is not None:
            self.refusals.setdefault(name, reply.failure)
            return None, []
        try:
            answer, frames = reply.opened(self.directory.keys.get(name))
            if (answer.context, answer.name) != (self.session.context, name):
                raise PeerError(f"an answer of another session or by {answer.name!r}", name)
            return answer, frames
        except PeerError as error:
            self.refusals.setdefault(name, f"{type(error).__name__}: {error}")
            return None, []

    def _take(self, answer: Answer, party: Party, frames: list[bytes]) -> None:
        """Hand an answer's frames to the server's state; what it refuses counts as that party's silence."""
        if answer.sent_again:
            self.resent.append(answer.name)
            self.server.state.resent(self.session.round, answer.name)
        for data in frames:
            try:
                frame = Frame.from_wire(data)
                if frame.sender != party:
                    raise PeerError(f"{answer.name} speaks in the name of {frame.sender}", answer.name)
            except PeerError as error:
                self._refused(party, error)
            else:
                self._driver.take(frame)

    def _refused(self, party: Party, error: PeerError) -> None:
        self.refusals.setdefault(self._names[party], f"{type(error).__name__}: {error}")

    def _perform(self, _: str, call: Callable[[], Step]) -> Step:
        began = time.perf_counter()
        step = call()
        self.server.remember(step)
        self._computing += time.perf_counter() - began
        return step
