"""Keys and certificates of a deployment on one machine, made by `python examples/flower/keys.py FOLDER [NODES]`.

What belongs here: what only a test or a demo needs. In production each party makes its own keys (`secagg keys`), and
an organisation's own authority issues the TLS certificate.
"""

import datetime
import ipaddress
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl.credentials import expect_none, make_identity, private_folder, save_roster
from fl.flower.nodes import make_node_key
from protocols.errors import Misuse
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.store import write_atomic

TLS_DAYS = 30
LOCAL = ("127.0.0.1", "localhost")
_PRIVATE, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True)
class TlsFiles:
    """Where the TLS files of a test deployment lie."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class NodeFiles:
    """Where one SuperNode's files lie: its identity, its connection key (OpenSSH form) and that key's public half."""

    name: str
    identity: Path
    auth_key: Path
    auth_public: Path


@dataclass(frozen=True)
class Deployment:
    """Everything a loopback deployment needs. `authority` signed the roster and is no party of the federation."""

    folder: Path
    tls: TlsFiles
    server_identity: Path
    authority: Path
    roster: Path
    nodes: tuple[NodeFiles, ...]

    @property
    def authority_key(self) -> bytes:
        return Identity.load(self.authority).public


def make_tls(folder: Path, hosts: Sequence[str] = LOCAL) -> TlsFiles:
    """Make a certificate authority and a server certificate for `hosts`, valid for 30 days: for tests and
    demos. Raises Misuse rather than replace a key or a certificate that nodes trust.
    """
    files = TlsFiles(folder / "ca.pem", folder / "server.pem", folder / "server-tls.key")
    expect_none(files.ca, files.certificate, files.key)
    private_folder(folder)
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
    folder: Path, nodes: int, *, federation: str = "demo", hosts: Sequence[str] = LOCAL
) -> Deployment:
    """Make all files of a test deployment with `nodes` clients. In production each party makes its own
    keys. Raises Misuse rather than replace one.
    """
    if nodes < 1:
        raise Misuse(f"expected at least one node, got {nodes}")
    authority = make_identity("authority", folder / "authority")
    server = make_identity("server", folder / "server")
    members = [Member("server", "server", server.public)]
    for index in range(nodes):
        name = f"site-{index + 1}"
        identity = make_identity(name, folder / name)
        members.append(Member(name, "client", identity.public, make_node_key(name, folder / name)[2]))
    make_tls(folder / "tls", hosts)
    save_roster(SignedRoster.sign(Roster.of(federation, 1, members), authority), folder / "roster.json")
    return deployment_in(folder)


def deployment_in(folder: Path) -> Deployment:
    """Return the files of the test deployment that was made in `folder`."""
    members = SignedRoster.load(folder / "roster.json").roster.with_role("client")
    named = [(m.name, folder / m.name) for m in members]
    named.sort(key=lambda node: int(node[0].partition("-")[2]))
    tls = folder / "tls"
    return Deployment(
        folder=folder,
        tls=TlsFiles(tls / "ca.pem", tls / "server.pem", tls / "server-tls.key"),
        server_identity=folder / "server" / "server.key",
        authority=folder / "authority" / "authority.key",
        roster=folder / "roster.json",
        nodes=tuple(
            NodeFiles(name, at / f"{name}.key", at / f"{name}.auth", at / f"{name}.auth.pub")
            for name, at in named
        ),
    )


def write_site(files: Deployment, node: NodeFiles, policy: Mapping[str, Any]) -> None:
    """Write a node's site.toml: its name, the roster and what it insists on."""
    table: dict[str, Any] = {"name": node.name, "roster": str(files.roster.resolve())}
    table |= {"authority": files.authority_key.hex(), "identity": node.identity.name}
    if policy:
        table["policy"] = {k: list(v) if isinstance(v, tuple) else v for k, v in policy.items()}
    write_atomic(node.identity.parent / "site.toml", tomli_w.dumps(table).encode(), 0o600)


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


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python examples/flower/keys.py FOLDER [NODES]")
    print(make_deployment(Path(sys.argv[1]), int((sys.argv[2:] or ["5"])[0])).roster)
