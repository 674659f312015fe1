"""A protocol whose result is no sum: the contract, `simulate` and `Runtime` serve it as they serve sums."""

import hashlib

import pytest

from protocols import simulate
from protocols.errors import Misuse, TooFewSurvivors
from protocols.kernel import SERVER, Finished, Message, client
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.store import MemoryStore
from tests.contracts.protocol import RELAXED, ProtocolContract
from tests.toys.coin import Bytes, Coin, JointCoin, commitment


class TestJointCoin(ProtocolContract):
    def protocol(self) -> JointCoin:
        return JointCoin()

    def opened(self, clients: int) -> Session:
        return JointCoin().open([f"c{i}" for i in range(clients)], SystemRandom())

    def inputs(self, clients: int) -> list[bytes]:
        return [bytes([i]) * 32 for i in range(clients)]

    def check_result(self, final: Finished, inputs: list[bytes]) -> None:
        assert isinstance(final, Coin)
        assert final.value == hashlib.sha256(b"".join(inputs)).digest()

    def test_simulate_gives_the_final_state_and_refuses_to_call_it_a_total(self) -> None:
        inputs = self.inputs(4)
        outcome = simulate(JointCoin(), inputs, session=self.opened(4), drop={"reveal": {2}})
        self.check_result(outcome.final, [inputs[0], inputs[1], inputs[3]])
        assert outcome.bytes_of("client") > 4 * 32
        with pytest.raises(Misuse, match="Coin and no sum"):
            _ = outcome.total

    def test_simulate_needs_a_session_of_it(self) -> None:
        with pytest.raises(Misuse, match="session"):
            simulate(JointCoin(), self.inputs(3))

    def test_too_few_answers_end_without_a_result(self) -> None:
        with pytest.raises(TooFewSurvivors):
            simulate(JointCoin(), self.inputs(3), session=self.opened(3), drop={"reveal": {0, 1}})

    def test_a_value_other_than_the_committed_one_is_set_aside(self) -> None:
        session, inputs = self.opened(3), self.inputs(3)
        assert commitment(session, 1, inputs[1]) != commitment(session, 2, inputs[1])

        def lie(sent: Message) -> Message:
            if sent.stage != "reveal" or sent.sender != client(1):
                return sent
            return Message(sent.session, sent.stage, *sent.sender, *sent.recipient, Bytes(bytes(32)).encode())

        outcome = simulate(JointCoin(), inputs, session=session, tamper=lie)
        self.check_result(outcome.final, [inputs[0], inputs[2]])

    def test_runtime_keeps_the_result_and_calls_it_no_total(self) -> None:
        protocol, session, inputs, random = JointCoin(), self.opened(2), self.inputs(2), SystemRandom()
        server = Runtime(protocol, session, MemoryStore())
        clients = [Runtime(protocol, session, MemoryStore()) for _ in inputs]
        for i, runtime in enumerate(clients):
            runtime.begin(protocol.client(session, i, inputs[i], random=random, policy=RELAXED))
        queue = server.begin(protocol.server(session, random=random))
        for _ in protocol.stages(session):
            for request in queue:
                for answer in clients[request.recipient.number].handle(request):
                    assert answer.recipient == SERVER
                    server.handle(answer)
            queue = server.close()
        final = server.result()
        assert final is not None
        self.check_result(final, inputs)
        assert server.total() is None
        assert all(runtime.result() is None for runtime in clients)
