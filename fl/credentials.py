"""Identities of parties, the signed roster, and public keys as people write them.

What belongs here: making and reading these files, mode 0600 where they are secret. What does not: connection keys of
an engine (`fl.flower.nodes`), and TLS certificates, which an organisation's own authority issues.
"""

from pathlib import Path

from protocols.errors import Misuse
from protocols.identity import Identity, SignedRoster
from protocols.store import write_atomic


def make_identity(name: str, folder: Path) -> Identity:
    """Make NAME.key (0600) and NAME.pub (hexadecimal) in `folder`. Raises Misuse rather than replace a key."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    expect_none(private, public)
    private_folder(folder)
    identity = Identity.generate(name)
    identity.save(private)
    write_atomic(public, identity.public.hex().encode() + b"\n", 0o644)
    return identity


def save_roster(signed: SignedRoster, path: Path) -> None:
    """Write a roster (0644). Raises Misuse where `path` holds one of another federation or of the same serial or a
    later one, which nodes would take for a copy of an old roster; PeerError for a file that is no roster.
    """
    if path.exists():
        old, new = SignedRoster.load(path).roster, signed.roster
        if old.federation != new.federation:
            raise Misuse(
                f"{path} is the roster of {old.federation!r}, this one is of {new.federation!r}: name another"
            )
        if new.serial <= old.serial:
            raise Misuse(
                f"{path} has serial {old.serial}: a roster is replaced by a later one only, "
                f"give --serial {old.serial + 1}"
            )
    signed.save(path)


def read_public(text_or_path: str) -> bytes:
    """Return an Ed25519 public key (32 bytes) given as 64 hexadecimal digits or as the path of a .pub file."""
    text = text_or_path
    path = Path(text_or_path)
    if path.is_file():
        text = path.read_text(errors="replace").strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Misuse(f"{text_or_path!r} is neither 64 hexadecimal digits nor a file that holds them")
    return key


def expect_none(*paths: Path) -> None:
    """Raises Misuse if one of the files is there: what was handed out or registered cannot be had back."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise Misuse(f"{path} exists; a key is never replaced: choose another name or folder")


def private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
