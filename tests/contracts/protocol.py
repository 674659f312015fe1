"""The contract that every Protocol inherits, whatever its result: randomness, policy, sessions, states as data.

Subclass `ProtocolContract` in a test module and override `protocol`, `opened`, `inputs` and `check_result`.
A secure sum subclasses `tests.contracts.secure_sum.SecureSumContract`, which does the last three.
"""

from dataclasses import replace
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import pytest

from protocols import simulate
from protocols.errors import Misuse, PolicyRefusal, SecAggError
from protocols.kernel import Finished, Message, Party, State, client
from protocols.policy import Policy
from protocols.protocol import Protocol
from protocols.randomness import SystemRandom
from protocols.session import Session
from tests.deterministic import DeterministicRandom
from tests.programs import FORK

RELAXED = Policy(
    min_cohort=1, min_survivors=1, min_ring_bits=1, min_threshold_share=0.0, allow_simulated=True
)


class ProtocolContract:
    """Inherit and override what raises UsageError; pytest runs every test against it."""

    fresh_process_clients = 5

    def protocol(self) -> Protocol[Any]:
        raise pytest.UsageError("override protocol()")

    def opened(self, clients: int) -> Session:
        """A new production session of `clients` clients."""
        raise pytest.UsageError("override opened()")

    def inputs(self, clients: int) -> list[Any]:
        """What each client brings to it."""
        raise pytest.UsageError("override inputs()")

    def check_result(self, final: Finished, inputs: list[Any]) -> None:
        """Assert that `final` is the result over all inputs."""
        raise pytest.UsageError("override check_result()")

    def test_production_refuses_injected_randomness(self) -> None:
        protocol, session = self.protocol(), self.opened(3)
        with pytest.raises(Misuse, match="SystemRandom"):
            protocol.client(session, 0, self.inputs(3)[0], random=DeterministicRandom(1))
        with pytest.raises(Misuse, match="SystemRandom"):
            protocol.server(session, random=DeterministicRandom(1))

    def test_policy_names_the_demand_that_failed(self) -> None:
        with pytest.raises(PolicyRefusal, match="cohort"):
            simulate(self.protocol(), self.inputs(4), policy=Policy(min_cohort=5), session=self.opened(4))

    def _start(self, session: Session, party: Party, policy: Policy | None) -> None:
        protocol, random = self.protocol(), SystemRandom()
        if party.role == "client":
            protocol.client(session, party.number, self.inputs(4)[0], random=random, policy=policy)
        else:
            protocol.helper(session, party, random=random, policy=policy)

    def test_every_party_holds_a_session_to_its_own_policy(self) -> None:
        """Clients, key holders and decryptors alike, each demand by its name, before anything is made for a session."""
        protocol, session = self.protocol(), self.opened(4)
        demands = protocol.demands(session)
        above: dict[str, Policy] = {
            "cohort": replace(RELAXED, min_cohort=5),
            "survivors": replace(RELAXED, min_survivors=demands.survivors + 1),
            "ring_bits": replace(RELAXED, min_ring_bits=demands.ring_bits + 1),
        }
        if demands.threshold is not None:
            above["threshold"] = replace(RELAXED, min_threshold=demands.threshold + 1)
        if demands.threat != "malicious":
            above["threat"] = replace(RELAXED, threat="malicious")
        if not demands.signed_roster:
            above["signed_roster"] = replace(RELAXED, signed_roster=True)
        for party in (client(0), *protocol.helpers(session)):
            self._start(session, party, RELAXED)
            for name, policy in above.items():
                with pytest.raises(PolicyRefusal, match=name):
                    self._start(session, party, policy)

    def test_no_production_party_joins_a_simulated_session(self) -> None:
        protocol, session = self.protocol(), replace(self.opened(4), simulated=True)
        for party in (client(0), *protocol.helpers(session)):
            for policy in (None, replace(RELAXED, allow_simulated=False)):
                with pytest.raises(PolicyRefusal, match="simulated"):
                    self._start(session, party, policy)
            self._start(session, party, RELAXED)

    def test_message_of_another_session_is_refused(self) -> None:
        protocol, random = self.protocol(), SystemRandom()
        session, other = self.opened(3), self.opened(3)
        assert session.context != other.context
        state = protocol.client(session, 0, self.inputs(3)[0], random=random, policy=RELAXED).state
        request = next(m for m in protocol.server(other, random=random).send if m.recipient.number == 0)
        with pytest.raises(SecAggError):
            state.receive(request, random)

    def test_each_client_step_runs_in_a_fresh_process(self) -> None:
        """State is data: every step of a client, decoded and taken by a process that has run nothing."""
        protocol, random = self.protocol(), SystemRandom()
        n = self.fresh_process_clients
        inputs, session = self.inputs(n), self.opened(n)
        parties: dict[Party, bytes | State] = {}
        for i in range(n):
            step = protocol.client(session, i, inputs[i], random=random, policy=RELAXED)
            parties[client(i)] = protocol.encode_state(step.state)
        for party in protocol.helpers(session):
            parties[party] = protocol.encode_state(protocol.helper(session, party, random=random).state)
        step = protocol.server(session, random=random)
        for _ in protocol.stages(session):
            state, queue = protocol.decode_state(protocol.encode_state(step.state)), step.send
            for request in queue:
                saved, answers = self._fresh(
                    parties[request.recipient], request, request.recipient == client(0)
                )
                parties[request.recipient] = saved
                for answer in answers:
                    state = state.receive(answer, random).state
            step = state.close(random)
        final = protocol.result(step.state)
        assert final is not None
        self.check_result(final, inputs)

    def _fresh(
        self, state: bytes | State, request: Message, new_process: bool
    ) -> tuple[bytes, list[Message]]:
        """Take one step from encoded state; client 0's in a process of its own, the others' by decoding here."""
        assert isinstance(state, bytes)
        protocol = self.protocol()
        if not new_process:
            step = protocol.decode_state(state).receive(Message.from_wire(request.to_wire()), SystemRandom())
            return protocol.encode_state(step.state), list(step.send)
        here, there = FORK.Pipe()
        process = FORK.Process(target=_step, args=(*self.factory(), state, request.to_wire(), there))
        process.start()
        there.close()
        assert here.poll(120), "a step takes more than two minutes"
        saved, *sent = here.recv()
        process.join()
        return saved, [Message.from_wire(piece) for piece in sent]

    def factory(self) -> tuple[str, str]:
        """Module and name of a callable without arguments that makes the protocol (for a fresh process)."""
        kind = type(self.protocol())
        return kind.__module__, kind.__name__


def _step(module: str, factory: str, state: bytes, request: bytes, answer: Connection) -> None:
    """Take a step and send what comes of it, as bytes."""
    protocol = getattr(import_module(module), factory)()
    step = protocol.decode_state(state).receive(Message.from_wire(request), SystemRandom())
    answer.send([protocol.encode_state(step.state), *(m.to_wire() for m in step.send)])
