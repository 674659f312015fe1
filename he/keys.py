"""Who holds the secret key, as types; and where secret keys are kept. No mathematics of any scheme belongs
here.

The arrangement is part of a sum's type and of its statement, because it decides who can read single
updates: `Threshold` nobody alone, `KeyHolder` one party apart from the aggregator, `SharedByClients` every
client.
"""

from dataclasses import dataclass
from pathlib import Path

from protocols.errors import Misuse, StoreError
from protocols.store.files import read_private, write_atomic

MAX_HOLDERS = 100


@dataclass(frozen=True)
class Threshold:
    """No single holder: any `t` of `n` decryptors open a sum together, fewer learn nothing.

    1 <= t <= n <= 100; t > n/2 keeps two disjoint groups from opening two different things. `dealer` names
    the party that makes the key, hands out the shares and forgets it; it is trusted to do so, and the
    statement names it. Raises Misuse for other values.
    """

    t: int = 2
    n: int = 3
    dealer: str = "key dealer"

    def __post_init__(self) -> None:
        if not 1 <= self.t <= self.n <= MAX_HOLDERS:
            raise Misuse(f"expected 1 <= t <= n <= {MAX_HOLDERS} holders, got t={self.t}, n={self.n}")
        if not self.dealer.strip():
            raise Misuse("expected the name of the dealer who makes the key, got an empty one")

    def __str__(self) -> str:
        return f"threshold-{self.t}-of-{self.n}"


@dataclass(frozen=True)
class KeyHolder:
    """One party apart from the aggregator holds the key; it opens aggregates only, each session once."""

    name: str = "key holder"

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise Misuse("expected the key holder's name, got an empty one")

    def __str__(self) -> str:
        return "keyholder"


@dataclass(frozen=True)
class SharedByClients:
    """Every client holds the key: one client together with the server reads every update. Never a default."""

    def __str__(self) -> str:
        return "shared"


Arrangement = Threshold | KeyHolder | SharedByClients


def arrangement(text: str) -> Arrangement:
    """Return the arrangement that the command line names: keyholder, shared, threshold or threshold-T-of-N.

    Raises Misuse for any other text.
    """
    if text == "keyholder":
        return KeyHolder()
    if text == "shared":
        return SharedByClients()
    if text == "threshold":
        return Threshold()
    parts = text.split("-")
    if len(parts) == 4 and parts[0] == "threshold" and parts[2] == "of" and (parts[1] + parts[3]).isdecimal():
        return Threshold(int(parts[1]), int(parts[3]))
    raise Misuse(f"expected keyholder, shared, threshold or threshold-T-of-N, got {text!r}")


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
