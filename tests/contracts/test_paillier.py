"""PaillierSum keeps the contract of every secure sum, under each key arrangement."""

from he import PaillierSum
from tests import paillier_fixed
from tests.contracts.secure_sum import SecureSumContract


class PaillierContract(SecureSumContract):
    max_clients = 10
    moduli = (2, 1 << 20, 1 << 64, 1_000_003)
    make: str

    def protocol(self) -> PaillierSum:
        return getattr(paillier_fixed, self.make)()

    def factory(self) -> tuple[str, str]:
        return "tests.paillier_fixed", self.make


class TestKeyHolder(PaillierContract):
    make = "keyholder"
    max_clients = 20
    max_dimension = 200


class TestSharedByClients(PaillierContract):
    make = "shared"
    examples = 12


class TestThreshold(PaillierContract):
    make = "threshold"
    max_clients = 6
    examples = 4


del PaillierContract
