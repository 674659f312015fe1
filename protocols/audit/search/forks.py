"""A server that goes back: its courses from any state it was ever in, and what comes out of them.

Nothing here knows a protocol. The server's state is data, so a server that cheats runs from any state it was ever in,
with any of the answers it ever got, those of another session put into this one's envelopes included; each run words its
requests as the honest server would. What does not belong here: which schedules are tried (`schedules`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from protocols.audit.prop import Finding
from protocols.audit.search.playing import LiveSession, next_session, sit_down
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message, Party, State, Step, client
from protocols.randomness import SystemRandom
from protocols.summation import Total

CLIENTS, LEAST, DIMENSION = 4, 3, 3


@dataclass(frozen=True)
class ServerCourse:
    """One course of the server: its session, its encoded state, the requests it would send, and how it came there."""

    table: int
    state: bytes = field(repr=False)
    pending: tuple[Message, ...] = field(repr=False)
    story: tuple[str, ...] = ()


class World:
    """Sessions side by side, everything that was answered, and every total that came out."""

    def __init__(self, subject: Any, corrupt: frozenset[Party]) -> None:
        rng = np.random.default_rng(CLIENTS)
        bound = subject.bound
        vectors = [rng.integers(-bound, bound, DIMENSION, endpoint=True) for _ in range(CLIENTS)]
        self.subject, self.protocol, self.vectors, self.corrupt = subject, subject.protocol, vectors, corrupt
        self.promised = max(2, LEAST - sum(p.role == "client" for p in corrupt))
        self.tables: list[LiveSession] = []
        self.runs: list[ServerCourse] = []
        self.answers: dict[tuple[int, bytes], tuple[Message, ...]] = {}
        self.totals: list[tuple[Total, Any, tuple[str, ...]]] = []
        self.count: Counter[tuple[Party, bytes, str]] = Counter()
        self.begin()

    def begin(self) -> None:
        """Begin a session, beside those that run: the same parties, and their stores. The second one has the updates of
        the first, and the third has others.
        """
        count = len(self.tables)
        if count:
            vectors = self.vectors if count == 1 else [v // 2 for v in self.vectors]
            table = next_session(self.tables[-1], vectors, self.corrupt)
        else:
            session = self.subject.session_of(CLIENTS, DIMENSION, self.subject.bound, min_survivors=LEAST)
            table = sit_down(self.protocol, session, self.vectors, self.corrupt)
        step = self.protocol.server(table.session, random=SystemRandom(), memory=table.memory)
        self.tables.append(table)
        self._go_on(count, step, ())

    def _go_on(self, table: int, step: Step, story: tuple[str, ...]) -> ServerCourse:
        self.tables[table].keep(SERVER, step)
        self.runs.append(ServerCourse(table, self.protocol.encode_state(step.state), step.send, story))
        return self.runs[-1]

    def run(self, number: int) -> ServerCourse:
        return self.runs[number % len(self.runs)]

    def ask(self, number: int, request: Message) -> tuple[Message, ...]:
        """The answers to a request: those it got before, or new ones. Raises Finding for a second answer."""
        known = self.answers.get((number, request.to_wire()))
        if known is not None:
            return known
        given = self.tables[number].ask(request)
        self.answers[number, request.to_wire()] = given
        party = request.recipient
        if given and party not in self.corrupt and self._opens(number, request.stage):
            self.count[party, request.session, request.stage] += 1
            if self.count[party, request.session, request.stage] > 1:
                raise Finding(f"{party} answers twice at {request.stage} of one session")
        return given

    def _opens(self, number: int, stage: str) -> bool:
        """Whether a stage is the input's or a later one."""
        names = [s.name for s in self.protocol.stages(self.tables[number].session)]
        counting = next(s.name for s in self.protocol.stages(self.tables[number].session) if s.counts)
        return stage in names[names.index(counting) :]

    def again(self, number: int) -> None:
        """Send an earlier request again, as it was. Raises Finding if it is answered again."""
        table = self.tables[number % len(self.tables)]
        sent = [m for m in table.transcript if m.recipient != SERVER and m.recipient not in self.corrupt]
        if sent:
            request = sent[number % len(sent)]
            if table.ask(request) and self._opens(self.tables.index(table), request.stage):
                raise Finding(f"{request.recipient} answers the same request at {request.stage} again")

    def two_views(self, run: ServerCourse, absent: set[int], side: set[int]) -> None:
        """Run on twice from here, with everybody's answers and without some, both to the end: an honest party is asked
        by the one or by the other, a corrupt one by both.
        """
        runs = [self.advance(run, set(), False), self.advance(run, absent, False)]
        while all(runs):
            parted = []
            for one, mine in zip(runs, (True, False), strict=True):
                assert one is not None
                honest = ((k, m) for k, m in enumerate(one.pending) if m.recipient not in self.corrupt)
                away = {k for k, m in honest if (m.recipient.number in side) != mine}
                parted.append(self.advance(one, away, False))
            runs = parted

    def advance(self, run: ServerCourse, absent: set[int], grafted: bool) -> ServerCourse | None:
        """Run the server through one stage without the answers of some; grafted: they answer in another session."""
        state: State = self.protocol.decode_state(run.state)
        if not run.pending or state.finished:
            return None
        came = []
        for place, request in enumerate(run.pending):
            if place in absent and not grafted:
                continue
            answers = self._grafts(run, request) if place in absent else self.ask(run.table, request)
            for answer in answers:
                try:
                    state = state.receive(answer, SystemRandom()).state
                    came.append(str(answer.sender))
                except SecAggError:
                    continue
        told = f"session {run.table}, {run.pending[0].stage}: the server goes on with {', '.join(came) or 'nobody'}"
        story = (*run.story, told)
        try:
            step = state.close(SystemRandom())
        except SecAggError:
            return None
        if isinstance(step.state, Total):
            self._compare(run.table, step.state, story)
            return None
        return self._go_on(run.table, step, story)

    def _grafts(self, run: ServerCourse, request: Message) -> Sequence[Message]:
        """What the same party answered at this stage of the other session, in this session's envelope."""
        others = [m for k, table in enumerate(self.tables) if k != run.table for m in table.transcript]
        mine = [m for m in others if m.sender == request.recipient and m.stage == request.stage]
        return [replace(m, session=request.session) for m in mine[-1:]]

    def _compare(self, table: int, total: Total, story: tuple[str, ...]) -> None:
        """Raises Finding if a total is over too few honest clients, or differs from another one by too few."""
        mine = self._honest(total)
        if len(mine) < self.promised:
            said = f"a total over {len(mine)} honest clients came out"
            raise Finding(_told(said, total.total.tolist(), story))
        vectors = self.tables[table].vectors
        for other, of, there in self.totals:
            differ = mine ^ self._honest(other)
            if of is not vectors or not 0 < len(differ) < self.promised:
                continue
            gap = total.total - other.total
            for c in (set(total.survivors) ^ set(other.survivors)) - differ:
                gap = gap - vectors[c] * (1 if c in total.survivors else -1)
            signed = (vectors[c] * (1 if c in mine else -1) for c in differ)
            if gap.tolist() == sum(signed, np.zeros(DIMENSION, np.int64)).tolist():
                said = f"two totals that differ by clients {sorted(differ)} came out"
                both = (*there, "and, from states it was in before:", *story)
                raise Finding(_told(said, gap.tolist(), both))
        self.totals.append((total, vectors, story))

    def _honest(self, total: Total) -> frozenset[int]:
        return frozenset(i for i in total.survivors if client(i) not in self.corrupt)


def _told(said: str, value: list[int], story: Sequence[str]) -> str:
    return "\n".join([f"{said}, exactly: {value}", *(f"  {line}" for line in story)])
