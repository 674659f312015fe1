"""Drives the server of one session, stage by stage. What does not belong here: how messages travel, who the parties
are.

`simulate` carries messages in memory, an engine over its network; both give a `carry` that delivers a stage's
requests and hands every answer to `Driver.take`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

from protocols.errors import Misuse, PeerError
from protocols.kernel import Finished, Message, Party, State, Step
from protocols.protocol import Input, Protocol, Stage
from protocols.randomness import SecureRandom
from protocols.session import Session

Perform = Callable[[str, Callable[[], Step]], Step]
"""Runs a step of the server in a stage, saves what it says in the server's store, and returns it."""
Carry = Callable[[Stage, tuple[Message, ...]], None]


@dataclass(eq=False)
class Driver(Generic[Input]):
    """The server's side of one session.

    protocol, session: what is played. random: the source of the server's secrets. perform: called with a stage and a
    step; runs the step, saves it in the server's store and returns it. refused: called with a party and the reason when
    the server refuses its answer, which then counts as silence.

        driver = Driver(protocol, session, SystemRandom(), lambda stage, step: step(), print)

        def carry(stage: Stage, requests: tuple[Message, ...]) -> None:
            for answer in network.ask(requests):          # a transport of yours
                driver.take(answer)

        final = driver.run(carry)
    """

    protocol: Protocol[Input]
    session: Session
    random: SecureRandom
    perform: Perform
    refused: Callable[[Party, PeerError], None]
    state: State = field(init=False)

    def run(self, carry: Carry, memory: bytes | None = None) -> Finished:
        """Play all stages and return the final state with the result.

        carry: delivers the requests of a stage and returns when nobody else will answer it. memory: what the server
        keeps of earlier sessions. Raises Aborted if the session ends without a result, Misuse if stages run out.
        """
        stages = self.protocol.stages(self.session)
        queue = self._step(
            stages[0].name, lambda: self.protocol.server(self.session, random=self.random, memory=memory)
        )
        for stage in stages:
            carry(stage, queue)
            if self.state.finished:
                break
            queue = self._step(stage.name, lambda: self.state.close(self.random))
        final = self.protocol.result(self.state)
        if final is None:
            ended = type(self.state).__name__
            raise Misuse(f"{self.protocol.tag} ran out of stages in state {ended}: no result")
        return final

    def take(self, answer: Message) -> None:
        """Hand one answer to the server; what it refuses changes nothing."""
        try:
            self._step(answer.stage, lambda: self.state.receive(answer, self.random))
        except PeerError as error:
            self.refused(answer.sender, error)

    def _step(self, stage: str, call: Callable[[], Step]) -> tuple[Message, ...]:
        step = self.perform(stage, call)
        self.state = step.state
        return step.send
