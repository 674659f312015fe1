"""Keys and certificates of a deployment: identities, the signed roster, SuperNode keys, TLS for tests.

What belongs here: making these files, mode 0600 where they are secret. What does not: Flower itself (nothing
of it is imported), and certificates for production, which an organisation's own authority issues.
"""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols.errors import Misuse
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.store import write_atomic

TLS_DAYS = 30
_PRIVATE, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True)
class TlsFiles:
    """Where the TLS files of a test deployment lie."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class NodeFiles:
    """Where one SuperNode's files lie: its identity, its connection key (OpenSSH form) and that key's
    public half.
    """

    name: str
    identity: Path
    auth_key: Path
    auth_public: Path


@dataclass(frozen=True)
class Deployment:
    """Everything a loopback deployment needs. `authority` signed the roster and is no party of the
    federation.
    """

    folder: Path
    tls: TlsFiles
    server_identity: Path
    authority: Path
    roster: Path
    nodes: tuple[NodeFiles, ...]

    @property
    def authority_key(self) -> bytes:
        return Identity.load(self.authority).public


def make_identity(name: str, folder: Path) -> Identity:
    """Make NAME.key (0600) and NAME.pub (hexadecimal) in `folder`. Raises Misuse rather than replace a
    key.
    """
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    _expect_none(private, public)
    _folder(folder)
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
    """Return an Ed25519 public key (32 bytes) given as 64 hexadecimal digits or as the path of a .pub
    file.
    """
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
    _expect_none(auth, auth_public)
    _folder(folder)
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
    """Return the transport name of a public connection key in OpenSSH or PEM form. Raises Misuse for
    another file.
    """
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


def make_tls(folder: Path, hosts: Sequence[str] = ("127.0.0.1", "localhost")) -> TlsFiles:
    """Make a certificate authority and a server certificate for `hosts`, valid for 30 days: for tests and
    demos. Raises Misuse rather than replace a key or a certificate that nodes trust.
    """
    files = TlsFiles(folder / "ca.pem", folder / "server.pem", folder / "server-tls.key")
    _expect_none(files.ca, files.certificate, files.key)
    _folder(folder)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca = _certificate(ca_name, ca_name, ca_key.public_key(), ca_key, ca_key.public_key(), hosts=())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    leaf = _certificate(name, ca_name, key.public_key(), ca_key, ca_key.public_key(), hosts)
    write_atomic(files.ca, ca.public_bytes(serialization.Encoding.PEM), _PUBLIC)
    write_atomic(files.certificate, leaf.public_bytes(serialization.Encoding.PEM), _PUBLIC)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    write_atomic(files.key, private, _PRIVATE)
    return files


def make_deployment(
    folder: Path, nodes: int, *, federation: str = "demo", hosts: Sequence[str] = ("127.0.0.1", "localhost")
) -> Deployment:
    """Make all files of a test deployment with `nodes` clients. In production each party makes its own
    keys. Raises Misuse rather than replace one.
    """
    if nodes < 1:
        raise Misuse(f"expected at least one node, got {nodes}")
    authority = make_identity("authority", folder / "authority")
    server = make_identity("server", folder / "server")
    members = [Member("server", "server", server.public)]
    files = []
    for index in range(nodes):
        name = f"site-{index + 1}"
        identity = make_identity(name, folder / name)
        auth, public, transport = make_node_key(name, folder / name)
        members.append(Member(name, "client", identity.public, transport))
        files.append(NodeFiles(name, folder / name / f"{name}.key", auth, public))
    save_roster(SignedRoster.sign(Roster.of(federation, 1, members), authority), folder / "roster.json")
    return Deployment(
        folder=folder,
        tls=make_tls(folder / "tls", hosts),
        server_identity=folder / "server" / "server.key",
        authority=folder / "authority" / "authority.key",
        roster=folder / "roster.json",
        nodes=tuple(files),
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    signer_public: ec.EllipticCurvePublicKey,
    hosts: Sequence[str],
) -> x509.Certificate:
    """Return a certificate; without `hosts` it is that of an authority."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=TLS_DAYS))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_public), critical=False)
        .add_extension(_usage(authority=not hosts), critical=True)
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False
        )
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _expect_none(*paths: Path) -> None:
    """Raises Misuse if one of the files is there: what was handed out or registered cannot be had back."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise Misuse(f"{path} exists; a key is never replaced: choose another name or folder")


def _folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
