"""The states of those who open sums: the key holder, the decryptors."""

from he.paillier.holders.decryptor import HasShare
from he.paillier.holders.key_holder import HasKey

__all__ = ["HasKey", "HasShare"]
