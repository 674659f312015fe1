"""CKKSSum keeps the contract that every secure sum keeps, with a key holder and with a shared key."""

from functools import cache

from he.arrangements import SharedByClients
from he.ckks import CKKSSum, SharedKey
from tests.contracts.secure_sum import SecureSumContract


class TestCKKSWithKeyHolder(SecureSumContract):
    max_clients = 12
    examples = 12
    moduli = (2, 3, 1000003, 1 << 20, (1 << 61) - 1, 1 << 64)
    bounds = (0, 1, 1000, (1 << 31) - 1, 1 << 52)

    def protocol(self) -> CKKSSum:
        return CKKSSum()


@cache
def shared() -> CKKSSum:
    """One instance, as one process has: its clients hold one key."""
    return CKKSSum(SharedByClients(), key=SharedKey(bytes(range(32))))


class TestCKKSSharedByClients(SecureSumContract):
    max_clients = 8
    examples = 8
    moduli = (2, 1000003, 1 << 20, 1 << 64)
    bounds = (0, 1, 1000, (1 << 31) - 1)

    def protocol(self) -> CKKSSum:
        return shared()

    def factory(self) -> tuple[str, str]:
        return "tests.contracts.test_ckks", "shared"
