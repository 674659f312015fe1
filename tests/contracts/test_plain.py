"""PlainSum keeps the contract: it is the reference for all others."""

from protocols import PlainSum
from tests.contracts.secure_sum import SecureSumContract


class TestPlainSum(SecureSumContract):
    moduli = (2, 3, 1000003, 1 << 20, 1 << 64)

    def protocol(self) -> PlainSum:
        return PlainSum()
