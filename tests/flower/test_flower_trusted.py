"""Flower's trusted entities: a site runs the app that somebody it trusts has signed, and no other. Slow.

The Hub that keeps reviewers' signatures is played by a server on the loopback that speaks as Flower's does; app,
signature, SuperLink and SuperNodes are the real ones.
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign

from tests.flower.deployed import APP, Deployed
from tests.flower.test_flower_matrix import build, finish

pytestmark = pytest.mark.slow

REVIEWER = "fpk_reviewer"


def trusting(folder: Path, name: str, key: Ed25519PrivateKey) -> list[str]:
    """Return the SuperNode's option for a site that trusts what this key has signed."""
    openssh = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path = folder / f"trusted-{name}.yaml"
    path.write_text(f"{REVIEWER}: '{openssh.decode()}'\n")
    return ["--trusted-entities", str(path)]


def reviewed(fab: bytes, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the signature of an app's bundle as `flwr app review` makes it and the Hub hands it on."""
    when = int(time.time())
    signature = key.sign(create_message_to_sign(hashlib.sha256(fab).digest(), when))
    text = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return {"public_key_id": REVIEWER, "signature": text, "signed_at": when}


@contextmanager
def hub(fab: bytes, verifications: list[dict[str, Any]]) -> Iterator[str]:
    """A Hub with one app, on the loopback; yields the address that takes the place of Flower's."""

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            self.rfile.read(int(self.headers["Content-Length"]))
            address = f"http://{self.headers['Host']}/fab"
            self.reply(json.dumps({"fab_url": address, "verifications": verifications}).encode())

        def do_GET(self) -> None:
            self.reply(fab)

        def reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_signed_app_runs_where_its_signer_is_trusted_and_nowhere_else(tmp_path: Path) -> None:
    """site-1 trusts the reviewer, site-2 somebody else under the same name, the others have no such demand."""
    reviewer, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    fab = build(APP, tmp_path).read_bytes()
    d = Deployed(tmp_path, nodes=4, seconds=30.0)
    d.it.nodes["site-1"].command += trusting(tmp_path, "site-1", reviewer)
    d.it.nodes["site-2"].command += trusting(tmp_path, "site-2", stranger)
    with hub(fab, [reviewed(fab, reviewer)]) as address:
        link = d.it.superlink
        link.environment = {**link.environment, "FLWR_SUPERGRID_API_URL": address}
        with d:
            finish(d, d.submit(rounds=1, app=Path("@tests/faultapp==1.0.0")))
    (report,) = d.reports()
    assert report["survivors"] == ["site-1", "site-3", "site-4"]
    assert "FAB could not be verified" in report["refusals"]["site-2"]
    assert d.times_asked("site-2", "advertise-keys") == 0


def test_an_unsigned_app_does_not_run_where_signatures_are_asked_for(tmp_path: Path) -> None:
    """How a site closes the gap that policies leave: code that nobody it trusts has signed does not run there."""
    d = Deployed(tmp_path, nodes=4, seconds=30.0)
    d.it.nodes["site-1"].command += trusting(tmp_path, "site-1", Ed25519PrivateKey.generate())
    with d:
        finish(d, d.submit(rounds=1))
        (report,) = d.reports()
        assert "FAB could not be verified" in report["refusals"]["site-1"]
        assert d.times_asked("site-1", "advertise-keys") == 0
