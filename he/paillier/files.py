"""The key files of an arrangement, one per party. What does not belong here: a file's form (`keyring`), making keys.

NAME.paillier.pub is for the server and the clients; what holds a secret has mode 0600 and one reader.
"""

from dataclasses import dataclass
from pathlib import Path

from he.arrangements import MAX_HOLDERS
from he.paillier.keyring import Key, Keyring, save
from protocols.errors import Misuse


@dataclass(frozen=True)
class KeyFiles:
    """public: for everybody. secret: for one party each; a decryptor's by its number, ascending from 1."""

    public: Path
    secret: tuple[Path, ...]


def expect_none(folder: Path, name: str) -> None:
    """Raises Misuse if a key of that name is there already: asked before minutes go into a new one."""
    taken = [_public(folder, name), _secret(folder, name)]
    taken += [_secret(folder, f"{name}-{number}") for number in range(1, MAX_HOLDERS + 1)]
    if found := [path for path in taken if path.exists()]:
        raise Misuse(f"{found[0]} exists already; a key is never overwritten: choose another name or folder")


def save_all(ring: Keyring, folder: Path, name: str) -> KeyFiles:
    """Write the files of a ring that holds all its keys. Raises Misuse, before anything is written, if one
    exists.
    """
    expect_none(folder, name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys: dict[Path, Key] = {}
    if ring.holder is not None:
        keys[_secret(folder, name)] = ring.holder
    keys |= {_secret(folder, f"{name}-{share.index}"): share for share in ring.shares}
    for path, key in keys.items():
        save(key, path)
    save(ring.public, _public(folder, name))
    return KeyFiles(_public(folder, name), tuple(keys))


def _public(folder: Path, name: str) -> Path:
    return folder / f"{name}.paillier.pub"


def _secret(folder: Path, name: str) -> Path:
    return folder / f"{name}.paillier.key"
