"""Keys of a deployment: identities, the signed roster, SuperNode connection keys.

What belongs here: making and reading these files, mode 0600 where they are secret. What does not: Flower itself
(nothing of it is imported), and TLS certificates, which an organisation's own authority issues.
"""

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocols.errors import Misuse
from protocols.identity import Identity, SignedRoster
from protocols.store import write_atomic

_PRIVATE, _PUBLIC = 0o600, 0o644


def make_identity(name: str, folder: Path) -> Identity:
    """Make NAME.key (0600) and NAME.pub (hexadecimal) in `folder`. Raises Misuse rather than replace a key."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    expect_none(private, public)
    private_folder(folder)
    identity = Identity.generate(name)
    identity.save(private)
    write_atomic(public, identity.public.hex().encode() + b"\n", _PUBLIC)
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


def make_node_key(name: str, folder: Path) -> tuple[Path, Path, str]:
    """Make a SuperNode's connection key (P-384): private and public OpenSSH files, and its transport name.

    Raises Misuse rather than replace a key: a registered SuperNode would be locked out.
    """
    auth, auth_public = folder / f"{name}.auth", folder / f"{name}.auth.pub"
    expect_none(auth, auth_public)
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_atomic(auth, private, _PRIVATE)
    write_atomic(auth_public, public + b"\n", _PUBLIC)
    return auth, auth_public, transport_name(key.public_key())


def transport_name(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name under which a roster binds a connection key: "ec-" and the SHA-256 of its DER form."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "ec-" + hashlib.sha256(der).hexdigest()


def read_node_key(path: Path) -> str:
    """Return the transport name of a public connection key in OpenSSH or PEM form. Raises Misuse for another file."""
    try:
        data = path.read_bytes()
        load = (
            serialization.load_pem_public_key
            if data.startswith(b"-----")
            else serialization.load_ssh_public_key
        )
        key = load(data)
    except (OSError, ValueError) as error:
        raise Misuse(f"{path} is not a public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Misuse(f"{path}: a SuperNode authenticates by an elliptic-curve key, this is another kind")
    return transport_name(key)


def expect_none(*paths: Path) -> None:
    """Raises Misuse if one of the files is there: what was handed out or registered cannot be had back."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise Misuse(f"{path} exists; a key is never replaced: choose another name or folder")


def private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
