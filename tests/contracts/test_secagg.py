"""SecAgg and SecAggPlus keep the contract, in each threat model and on complete and sparse graphs."""

import functools

from protocols.session import Session
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.session_rules import rules_of
from tests.contracts.secure_sum import SecureSumContract


class MaskedSumContract(SecureSumContract):
    """What is within tolerance here: each stage is answered by more clients than the threshold."""

    def tolerant(self, session: Session, gone: dict[str, set[int]]) -> bool:
        rules = rules_of(session)
        if not rules.complete and any(gone.values()):
            return False  # each session draws another graph: who keeps enough neighbours is left to chance
        left = set(range(session.clients))
        for stage in self.protocol().stages(session):
            left -= gone.get(stage.name, set())
            enough = (len(left & set(rules.neighbours(i, rules.seed))) >= rules.threshold for i in left)
            if len(left) <= rules.threshold or not all(enough):
                return False
        return True


class TestSecAgg(MaskedSumContract):
    def protocol(self) -> SecAgg:
        return SecAgg()


class TestSecAggPlus(MaskedSumContract):
    def protocol(self) -> SecAggPlus:
        return SecAggPlus()


class TestSecAggPlusSemiHonest(MaskedSumContract):
    examples = 15

    def protocol(self) -> SecAggPlus:
        return SecAggPlus(threat="semi-honest")


@functools.cache
def credentials() -> Credentials:
    return Credentials.simulated([*range(40), *"abc", *(f"c{i}" for i in range(14))])


class TestSecAggMalicious(MaskedSumContract):
    examples = 15

    def protocol(self) -> SecAgg:
        return SecAgg(threat="malicious", credentials=credentials())

    def factory(self) -> tuple[str, str]:
        return "secagg", "SecAgg"


class TestSecAggReuse(MaskedSumContract):
    """Every run here is a set-up with its first round; later rounds are in
    tests/property/secagg/test_reuse.py.
    """

    examples = 15

    def protocol(self) -> SecAgg:
        return SecAgg(setup="reuse")

    def factory(self) -> tuple[str, str]:
        return "secagg", "SecAgg"


class TestSecAggPlusMaliciousSparse(MaskedSumContract):
    """Six stages from 12 clients on: the graph is fixed by commit and reveal."""

    examples = 12
    fresh_process_clients = 13

    def protocol(self) -> SecAggPlus:
        return SecAggPlus(
            threat="malicious", neighbours=10, collusion=0.0, dropout=0.05, credentials=credentials()
        )

    def factory(self) -> tuple[str, str]:
        return "secagg", "SecAggPlus"


class TestSecAggPlusReuseSparse(MaskedSumContract):
    examples = 12
    fresh_process_clients = 8

    def protocol(self) -> SecAggPlus:
        return SecAggPlus(setup="reuse", neighbours=6, collusion=0.0, dropout=0.05)

    def factory(self) -> tuple[str, str]:
        return "secagg", "SecAggPlus"
