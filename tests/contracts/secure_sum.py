"""The contract that every SecureSum inherits: exact sums over survivors, whatever happens before any stage.

Subclass `SecureSumContract` in a test module and override `protocol` (and the class attributes where needed).
"""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import Outcome, SecureSum, simulate
from protocols.errors import Aborted, CapacityError, Misuse, PolicyRefusal, SecAggError
from protocols.kernel import SERVER, Message, Party, State, client
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.summation import Total
from tests.deterministic import DeterministicRandom

RELAXED = Policy(
    min_cohort=1, min_survivors=1, min_ring_bits=1, min_threshold_share=0.0, allow_simulated=True
)
STEP = """
import sys
from protocols.kernel import Message
from protocols.randomness import SystemRandom
from {module} import {factory} as factory
protocol = factory()
out = sys.stdout.buffer
data = sys.stdin.buffer.read()
cut = int.from_bytes(data[:8], "big")
state = protocol.decode_state(data[8 : 8 + cut])
step = state.receive(Message.from_wire(data[8 + cut :]), SystemRandom())
for piece in (protocol.encode_state(step.state), *(m.to_wire() for m in step.send)):
    out.write(len(piece).to_bytes(8, "big") + piece)
"""


def vectors(n: int, dimension: int, bound: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(-bound, bound, dimension, endpoint=True, dtype=np.int64) for _ in range(n)]


def exact(inputs: list[np.ndarray], survivors: tuple[int, ...], modulus: int = 0) -> list[int]:
    """The sum in Python's own integers, over Z or as representatives in [-M/2, M/2)."""
    total = [sum(int(inputs[i][j]) for i in survivors) for j in range(len(inputs[0]))]
    if not modulus:
        return total
    half = modulus // 2
    return [(x + half) % modulus - half for x in total]


class SecureSumContract:
    """Inherit and override `protocol`; pytest runs every test against it."""

    max_clients = 40
    max_dimension = 40
    moduli: tuple[int, ...] = (2, 1 << 20, 1 << 64)
    bounds: tuple[int, ...] = (0, 1, 1000, (1 << 31) - 1)
    examples = 25
    fresh_process_clients = 5

    def protocol(self) -> SecureSum:
        raise pytest.UsageError("override protocol()")

    def tolerant(self, session: Session, gone: dict[str, set[int]]) -> bool:
        """True if the protocol promises a total although the clients in `gone` leave before their stages."""
        counting = next(stage.name for stage in self.protocol().stages(session) if stage.counts)
        early = {
            i for stage, who in gone.items() for i in who if self._before_or_at(session, stage, counting)
        }
        return len(early) < session.clients

    def _before_or_at(self, session: Session, stage: str, other: str) -> bool:
        names = [s.name for s in self.protocol().stages(session)]
        return names.index(stage) <= names.index(other)

    def run(self, inputs: list[np.ndarray], **options: object) -> Outcome:
        return simulate(self.protocol(), inputs, policy=RELAXED, **options)  # type: ignore[arg-type]

    def client_stages(self, n: int, dimension: int, bound: int, modulus: int = 0) -> list[str]:
        protocol = self.protocol()
        session = protocol.session(
            [str(i) for i in range(n)],
            dimension,
            bound,
            random=SystemRandom(),
            modulus=modulus,
            simulated=True,
        )
        return [stage.name for stage in protocol.stages(session) if stage.role == "client"]

    # -- exactness --

    def test_sum_is_exact_under_any_tolerated_dropout(self) -> None:
        @settings(max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            n = data.draw(st.integers(3, self.max_clients), label="clients")
            dimension = data.draw(st.integers(1, self.max_dimension), label="dimension")
            bound = data.draw(st.sampled_from(self.bounds), label="bound")
            inputs = vectors(n, dimension, bound, data.draw(st.integers(0, 2**32 - 1), label="seed"))
            stages = self.client_stages(n, dimension, bound)
            leaving = data.draw(
                st.dictionaries(st.integers(0, n - 1), st.sampled_from(stages), max_size=n // 3)
            )
            drop = {stage: {i for i, s in leaving.items() if s == stage} for stage in stages}
            self.check_one(inputs, drop, bound)

        check()

    def check_one(self, inputs: list[np.ndarray], drop: dict[str, set[int]], bound: int) -> None:
        """Exact over the survivors where the protocol promises a total, else a typed error and no total."""
        session = self.protocol().session(
            [str(i) for i in range(len(inputs))], len(inputs[0]), bound, random=SystemRandom(), simulated=True
        )
        try:
            outcome = self.run(inputs, drop=drop, bound=bound)
        except Aborted:
            assert not self.tolerant(session, drop), "aborted although the drop-outs were within tolerance"
            return
        names = [stage.name for stage in self.protocol().stages(session)]
        counting = next(i for i, s in enumerate(self.protocol().stages(session)) if s.counts)
        gone = {i for stage, who in drop.items() if names.index(stage) <= counting for i in who}
        assert outcome.survivors == tuple(i for i in range(len(inputs)) if i not in gone)
        assert outcome.total.dtype == np.int64
        assert outcome.total.tolist() == exact(inputs, outcome.survivors)

    def test_extremes_of_the_bound_do_not_wrap(self) -> None:
        for bound in self.bounds:
            for sign in (1, -1):
                inputs = [np.full(3, sign * bound, np.int64)] * 5
                assert self.run(inputs, bound=bound).total.tolist() == [sign * bound * 5] * 3

    def test_sum_in_a_ring_wraps_exactly_there(self) -> None:
        for modulus in self.moduli:
            inputs = vectors(4, 7, min(modulus * 3, 1 << 62), seed=modulus % 1000)
            outcome = self.run(inputs, modulus=modulus)
            assert outcome.total.tolist() == exact(inputs, outcome.survivors, modulus)

    def test_everyone_leaving_gives_a_typed_error_and_no_total(self) -> None:
        for stage in self.client_stages(4, 2, 9):
            counting = self.client_stages(4, 2, 9)
            if len(counting) == 1 or stage != counting[-1] or self.opened_by_clients():
                with pytest.raises(Aborted):
                    self.run(vectors(4, 2, 9, 1), drop={stage: {0, 1, 2, 3}})

    def opened_by_clients(self) -> bool:
        """True if the clients' last stage is needed to open the sum."""
        return True

    # -- refusals --

    def test_input_out_of_bounds_is_refused_by_its_own_client(self) -> None:
        inputs = vectors(4, 2, 5, 2)
        inputs[1][0] = 6
        outcome = self.run(inputs, bound=5)
        assert outcome.survivors == (0, 2, 3)
        assert isinstance(outcome.refusals[1], PolicyRefusal)

    def test_floats_and_wrong_lengths_are_misuse(self) -> None:
        protocol, random = self.protocol(), SystemRandom()
        session = protocol.session(["a", "b", "c"], 3, 10, random=random)
        for bad in (np.zeros(3), np.zeros(4, np.int64), np.zeros((3, 1), np.int64)):
            with pytest.raises(Misuse):
                protocol.client(session, 0, bad, random=random)

    def test_impossible_capacity_is_refused(self) -> None:
        with pytest.raises(CapacityError):
            self.protocol().session(["a", "b", "c"], 3, 1 << 62, random=SystemRandom())

    def test_production_refuses_injected_randomness(self) -> None:
        protocol, random = self.protocol(), SystemRandom()
        session = protocol.session(["a", "b", "c"], 3, 10, random=random)
        with pytest.raises(Misuse, match="SystemRandom"):
            protocol.client(session, 0, np.zeros(3, np.int64), random=DeterministicRandom(1))
        with pytest.raises(Misuse, match="SystemRandom"):
            protocol.server(session, random=DeterministicRandom(1))

    def test_policy_names_the_demand_that_failed(self) -> None:
        with pytest.raises(PolicyRefusal, match="cohort"):
            simulate(self.protocol(), vectors(4, 2, 9, 3), policy=Policy(min_cohort=5))

    def test_message_of_another_session_is_refused(self) -> None:
        protocol, random = self.protocol(), SystemRandom()
        names = ["a", "b", "c"]
        session, other = (protocol.session(names, 2, 9, random=random) for _ in range(2))
        assert session.context != other.context
        state = protocol.client(session, 0, np.zeros(2, np.int64), random=random, policy=RELAXED).state
        request = next(m for m in protocol.server(other, random=random).send if m.recipient.number == 0)
        with pytest.raises(SecAggError):
            state.receive(request, random)

    def test_clients_shown_another_model_never_end_in_the_same_total(self) -> None:
        inputs = vectors(5, 2, 9, 4)
        outcome = self.run(inputs, models={2: b"\1" * 32})
        assert 2 not in outcome.survivors
        assert outcome.total.tolist() == exact(inputs, outcome.survivors)

    # -- messages and states --

    def test_replayed_answers_do_not_count_twice(self) -> None:
        inputs = vectors(5, 3, 9, 5)

        def twice(sent: Message) -> list[Message]:
            return [sent, sent] if sent.recipient == SERVER else [sent]

        assert self.run(inputs, tamper=twice).total.tolist() == exact(inputs, (0, 1, 2, 3, 4))

    def test_garbled_bodies_are_refused_and_named(self) -> None:
        inputs = vectors(6, 3, 9, 6)
        for stage in self.client_stages(6, 3, 9):

            def garble(sent: Message, stage: str = stage) -> Message:
                if sent.sender != client(4) or sent.stage != stage:
                    return sent
                return Message(
                    *(getattr(sent, k) for k in list(Message.__dataclass_fields__)[:-1]), sent.body[:-1]
                )

            outcome = self.run(inputs, tamper=garble)
            assert any("4" in str(who) for who in outcome.refusals), f"nobody was named at {stage}"
            assert outcome.total.tolist() == exact(inputs, outcome.survivors)

    def test_equal_inputs_are_never_sent_equally_twice(self) -> None:
        if self.protocol().name == "none":
            pytest.skip("PlainSum hides nothing and says so")
        inputs = [np.full(8, 3, np.int64)] * 4
        sent: list[bytes] = []
        for _ in range(2):
            stages = self.protocol().stages(self.run(inputs).session)
            counting = next(stage.name for stage in stages if stage.counts)

            def note(m: Message, counting: str = counting) -> None:
                if m.sender.role == "client" and m.stage == counting:
                    sent.append(m.body)

            self.run(inputs, observe=note)
        assert len(sent) == 8
        assert len(set(sent)) == 8

    def test_each_client_step_runs_in_a_fresh_process(self) -> None:
        """State is data: every step of a client, decoded and taken by a new interpreter."""
        protocol, random = self.protocol(), SystemRandom()
        n = self.fresh_process_clients
        inputs = vectors(n, 3, 50, 7)
        session = protocol.session([f"c{i}" for i in range(n)], 3, 50, random=random)
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
        assert isinstance(step.state, Total)
        assert step.state.total.tolist() == exact(inputs, tuple(range(n)))

    def _fresh(
        self, state: bytes | State, request: Message, new_process: bool
    ) -> tuple[bytes, list[Message]]:
        """Take one step from encoded state; client 0's in a new interpreter, the others' by decoding here."""
        assert isinstance(state, bytes)
        protocol = self.protocol()
        if not new_process:
            step = protocol.decode_state(state).receive(Message.from_wire(request.to_wire()), SystemRandom())
            return protocol.encode_state(step.state), list(step.send)
        module, factory = self.factory()
        done = subprocess.run(
            [sys.executable, "-c", STEP.format(module=module, factory=factory)],
            input=len(state).to_bytes(8, "big") + state + request.to_wire(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        pieces = list(_pieces(done.stdout))
        return pieces[0], [Message.from_wire(piece) for piece in pieces[1:]]

    def factory(self) -> tuple[str, str]:
        """Module and name of a callable without arguments that makes the protocol (for a fresh process)."""
        kind = type(self.protocol())
        return kind.__module__, kind.__name__


def _pieces(data: bytes) -> Iterator[bytes]:
    while data:
        size = int.from_bytes(data[:8], "big")
        yield data[8 : 8 + size]
        data = data[8 + size :]
