"""One session in which the test plays the network and, where it likes, the server. The clients are the
real ones.
"""

from collections.abc import Callable, Iterable

import numpy as np

from protocols import SecureSum
from protocols.codec import Record
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message, State, client, message
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.summation import Total

Intercept = Callable[[Message], Iterable[Message]]


class Play:
    """n clients of one protocol with random vectors, and an honest server beside them whose messages may
    be used or not.
    """

    def __init__(
        self,
        protocol: SecureSum,
        n: int = 6,
        *,
        policy: Policy | None = None,
        session: Session | None = None,
        memories: dict[int, bytes] | None = None,
        server_memory: bytes | None = None,
        round: int = 1,
        min_survivors: int = 1,
    ) -> None:
        self.protocol, self.random = protocol, SystemRandom()
        self.session = session or protocol.session(
            [f"c{i}" for i in range(n)],
            4,
            100,
            random=self.random,
            round=round,
            memory=server_memory,
            min_survivors=min_survivors,
        )
        generator = np.random.default_rng(n)
        self.inputs = [generator.integers(-100, 101, 4, dtype=np.int64) for _ in range(n)]
        self.memories = dict(memories or {})
        self.server_memory = server_memory
        self.refused: dict[int, SecAggError] = {}
        self.answers: list[Message] = []
        self.clients: dict[int, State] = {}
        for i in range(n):
            self._enter(i, policy)
        step = protocol.server(self.session, random=self.random, memory=server_memory)
        self.server, self.queue = step.state, list(step.send)
        self._remember(step.memory)

    def _enter(self, i: int, policy: Policy | None) -> None:
        try:
            step = self.protocol.client(
                self.session,
                i,
                self.inputs[i],
                random=self.random,
                policy=policy,
                memory=self.memories.get(i),
            )
            self.clients[i] = step.state
            if step.memory is not None:
                self.memories[i] = step.memory
        except SecAggError as error:
            self.refused[i] = error

    @property
    def stages(self) -> list[str]:
        return [stage.name for stage in self.protocol.stages(self.session)]

    def tell(self, sent: Message) -> list[Message]:
        """Deliver one message to its client and return the answers. Raises what the client raises."""
        index = sent.recipient.number
        step = self.clients[index].receive(sent, self.random)
        self.clients[index] = step.state
        if step.memory is not None:
            self.memories[index] = step.memory
        self.answers.extend(step.send)
        return list(step.send)

    def ask(self, stage: str, index: int, body: Record) -> list[Message]:
        """Tell a client something the test made up."""
        return self.tell(message(self.session.context, stage, SERVER, client(index), body.encode()))

    def trip(self, intercept: Intercept = lambda m: [m], absent: Iterable[int] = ()) -> list[Message]:
        """Play one stage with the honest server; requests and answers pass through `intercept`. Returns
        the next requests.
        """
        for request in self.queue:
            for delivered in intercept(request):
                index = delivered.recipient.number
                if index in absent or index not in self.clients or index in self.refused:
                    continue
                try:
                    answers = self.tell(delivered)
                except SecAggError as error:
                    self.refused[index] = error
                    continue
                for answer in answers:
                    self.hear(*intercept(answer))
        return self.close()

    def hear(self, *answers: Message) -> None:
        """Deliver answers to the honest server."""
        for answer in answers:
            self.server = self.server.receive(answer, self.random).state

    def close(self) -> list[Message]:
        step = self.server.close(self.random)
        self.server, self.queue = step.state, list(step.send)
        self._remember(step.memory)
        return self.queue

    def _remember(self, memory: bytes | None) -> None:
        if memory is not None:
            self.server_memory = memory

    def until(self, stage: str, absent: Iterable[int] = ()) -> list[Message]:
        """Play honestly up to the requests of `stage`, which are returned and not delivered."""
        while self.queue and self.queue[0].stage != stage:
            self.trip(absent=absent)
        return self.queue

    def finish(self, absent: Iterable[int] = ()) -> Total:
        """Play honestly to the end."""
        while not isinstance(self.server, Total):
            self.trip(absent=absent)
        return self.server

    def expected(self, survivors: Iterable[int]) -> list[int]:
        """The exact sum."""
        return sum(self.inputs[i] for i in survivors).tolist()  # type: ignore[union-attr]  # never empty here


def with_body(original: Message, body: Record) -> Message:
    """The message with another body."""
    return message(original.session, original.stage, original.sender, original.recipient, body.encode())
