"""The secure sum that docs/extending.md shows keeps the contract, as one of yours would have to.

It has no tolerance: where the contract goes on without a client, this sum ends, and says who was missing and why.
"""

import pytest

from examples.extending.keyed_sum import KeyedSum
from protocols.errors import TooFewSurvivors
from protocols.kernel import Message, client
from protocols.session import Session
from tests.contracts.secure_sum import SecureSumContract, vectors


class TestKeyedSum(SecureSumContract):
    examples = 10

    def protocol(self) -> KeyedSum:
        return KeyedSum(bytes(range(32)))

    def tolerant(self, session: Session, gone: dict[str, set[int]]) -> bool:
        return not any(gone.values())

    def test_input_out_of_bounds_is_refused_by_its_own_client(self) -> None:
        inputs = vectors(4, 2, 5, 2)
        inputs[1][0] = 6
        with pytest.raises(TooFewSurvivors, match=r"got 3\n1: expected coordinates in \[-5, 5\]"):
            self.run(inputs, bound=5)

    def test_clients_shown_another_model_never_end_in_the_same_total(self) -> None:
        with pytest.raises(TooFewSurvivors, match=r"got 4\n2: .*another session, roster or model"):
            self.run(vectors(5, 2, 9, 4), models={2: b"\1" * 32})

    def test_garbled_bodies_are_refused_and_named(self) -> None:
        def garble(sent: Message) -> Message:
            if sent.sender != client(4):
                return sent
            return Message(
                *(getattr(sent, k) for k in list(Message.__dataclass_fields__)[:-1]), sent.body[:-1]
            )

        with pytest.raises(TooFewSurvivors, match="about 4: client 4: truncated"):
            self.run(vectors(6, 3, 9, 6), tamper=garble)
