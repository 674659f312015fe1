"""Where secret keys are kept: files for their owner alone. What is in them does not belong here."""

from pathlib import Path

from protocols.errors import StoreError
from protocols.store.files import read_private, write_atomic


def write_key_file(path: str | Path, secret: bytes) -> None:
    """Write a secret key whole, readable by its owner alone (mode 0600 from the first byte on), synced.

    Raises StoreError if `path` exists already (a key is never overwritten) or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(
            f"{path} exists already; a key is never overwritten: move it away or choose another name"
        )
    write_atomic(path, secret, mode=0o600)


def read_key_file(path: str | Path, limit: int = 1 << 26) -> bytes:
    """Return the bytes of a key file.

    Raises StoreError if it is missing, not a plain file, larger than `limit` bytes, or open to anyone but
    its owner.
    """
    data = read_private(Path(path), limit)
    if data is None:
        raise StoreError(f"no key file at {path}")
    return data
