"""The long-term key that clients share under `SharedByClients`, and its file. What does not belong here:
sessions' keys.

Every session's CKKS key, check key and box key are derived from it and from the session's context; it
encrypts nothing itself.
"""

from pathlib import Path
from typing import Self, final

from he.key_files import read_key_file, write_key_file
from protocols.errors import Misuse, StoreError
from protocols.randomness import SystemRandom

MAGIC = b"secagg ckks shared key v1\n"
SECRET_BYTES = 32


@final
class SharedKey:
    """32 secret bytes. `repr` shows none of them.

    simulated: all clients are simulated parties, so the key may go to the worker processes of one simulation.
    """

    def __init__(self, secret: bytes, simulated: bool = False) -> None:
        if len(secret) != SECRET_BYTES:
            raise Misuse(f"expected a shared key of {SECRET_BYTES} bytes, got {len(secret)}")
        self.secret, self.simulated = secret, simulated

    def __repr__(self) -> str:
        return "SharedKey(...)"

    def __reduce__(self) -> str | tuple[object, ...]:
        if self.simulated:
            return SharedKey, (self.secret, True)
        raise Misuse("a shared key is not pickled: save it to a file of its owner")

    @classmethod
    def generate(cls, *, simulated: bool = False) -> Self:
        """Return a new key from the operating system's generator."""
        return cls(SystemRandom().bytes(SECRET_BYTES), simulated)

    def save(self, path: str | Path) -> None:
        """Write the key file, mode 0600. Raises StoreError if the path exists."""
        write_key_file(path, MAGIC + self.secret)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a key file. Raises StoreError if it is missing, open to others or not such a file."""
        data = read_key_file(path, 4096)
        if not data.startswith(MAGIC) or len(data) != len(MAGIC) + SECRET_BYTES:
            raise StoreError(f"{path} is not a shared CKKS key")
        return cls(data[len(MAGIC) :])
