"""The contract that every SecureSum inherits: exact sums over survivors, whatever happens before any stage.

Subclass `SecureSumContract` in a test module and override `protocol` (and the class attributes where needed).
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import Outcome, SecureSum, simulate
from protocols.errors import Aborted, CapacityError, Misuse, PolicyRefusal
from protocols.kernel import SERVER, Finished, Message, client
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.summation import Total
from tests.contracts.protocol import RELAXED, ProtocolContract


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


class SecureSumContract(ProtocolContract):
    """Inherit and override `protocol`; pytest runs every test against it, those of every protocol included."""

    max_clients = 40
    max_dimension = 40
    moduli: tuple[int, ...] = (2, 1 << 20, 1 << 64)
    bounds: tuple[int, ...] = (0, 1, 1000, (1 << 31) - 1)
    examples = 25

    def protocol(self) -> SecureSum:
        raise pytest.UsageError("override protocol()")

    def opened(self, clients: int) -> Session:
        names = [f"c{i}" for i in range(clients)]
        return self.protocol().session(names, 3, 50, random=SystemRandom())

    def inputs(self, clients: int) -> list[np.ndarray]:
        return vectors(clients, 3, 50, 7)

    def check_result(self, final: Finished, inputs: list[np.ndarray]) -> None:
        assert isinstance(final, Total)
        assert final.total.tolist() == exact(inputs, tuple(range(len(inputs))))

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
