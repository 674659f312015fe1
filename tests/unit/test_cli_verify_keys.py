"""`secagg verify` and `secagg keys` as they are typed: what they print, their exit codes, the modes of their files."""

import contextlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from fl.cli import invoke
from fl.flower.credentials import read_public
from protocols.identity import Identity, SignedRoster
from protocols.record import FILE_NAME, RunRecord, file_digest


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def secagg(*arguments: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = invoke([str(a) for a in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def test_verify_tells_consistent_from_verified_and_fails_on_an_edit(tmp_path: Path) -> None:
    signer = Identity.generate("server")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with RunRecord.open(tmp_path / FILE_NAME, signer) as record:
        record.append({"round": 1})
        head = record.append({"files": {"model.safetensors": file_digest(tmp_path / "model.safetensors")}})
    (tmp_path / "server.pub").write_text(signer.public.hex())

    plain = json.loads(secagg("verify", tmp_path, "--json").stdout)
    assert (plain["verdict"], plain["verified"], plain["entries"]) == ("internally consistent only", False, 2)
    key = ("--public-key", tmp_path / "server.pub")
    full = secagg("verify", tmp_path, *key, "--head", head, "--json")
    assert full.returncode == 0
    assert json.loads(full.stdout)["verified"] is True

    lines = (tmp_path / FILE_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE_NAME).write_bytes(lines[0])
    assert secagg("verify", tmp_path, *key).returncode == 0
    cut = secagg("verify", tmp_path, *key, "--head", head)
    assert (cut.returncode, "cut short" in cut.stderr) == (1, True)
    (tmp_path / FILE_NAME).write_bytes(b"".join(lines).replace(b'"round":1', b'"round":2'))
    edited = secagg("verify", tmp_path)
    assert (edited.returncode, "edited" in edited.stderr, "Traceback" in edited.stderr) == (1, True, False)
    (tmp_path / FILE_NAME).write_bytes(b"".join(lines))
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert secagg("verify", tmp_path).returncode == 1


def test_a_path_as_long_as_a_key_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    signer = Identity.generate("server")
    with RunRecord.open(tmp_path / FILE_NAME, signer) as record:
        head = record.append({"round": 1})
    key, kept = "k" * 60 + ".pub", "h" * 60 + ".txt"
    Path(key).write_text(signer.public.hex() + "\n")
    Path(kept).write_text(head + "\n")
    assert len(key) == len(kept) == 64
    assert secagg("verify", tmp_path, "--public-key", key, "--head", kept).returncode == 0
    assert read_public(key) == signer.public


def test_a_wrong_request_exits_with_2(tmp_path: Path) -> None:
    assert secagg("verify", tmp_path / "none").returncode == 2
    (tmp_path / FILE_NAME).write_bytes(b"")
    wrong = secagg("verify", tmp_path, "--head", "zz", "--json")
    assert wrong.returncode == 2
    assert "error" in json.loads(wrong.stdout)
    assert secagg("keys", "roster", "f", "--authority", tmp_path / "none", "--member", "a").returncode == 2


def test_keys_are_private_and_never_replaced(tmp_path: Path) -> None:
    assert secagg("keys", "new", "authority", "--out", tmp_path).returncode == 0
    assert secagg("keys", "new", "server", "--out", tmp_path).returncode == 0
    made = json.loads(secagg("keys", "new", "alice", "--out", tmp_path, "--json").stdout)
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    assert made["public"] == Identity.load(tmp_path / "alice.key").public.hex()
    assert secagg("keys", "new", "alice", "--out", tmp_path).returncode == 2
    node = json.loads(secagg("keys", "node", "alice", "--out", tmp_path, "--json").stdout)

    members = [f"alice:client:{made['public']}:{tmp_path / 'alice.auth.pub'}"]
    members.append(f"server:server:{tmp_path / 'server.pub'}")
    options = [word for m in members for word in ("--member", m)]
    roster = tmp_path / "roster.json"
    signed = secagg(
        "keys", "roster", "demo", "--authority", tmp_path / "authority.key", *options, "--out", roster
    )
    assert signed.returncode == 0
    assert SignedRoster.load(roster).roster.member("alice").transport == node["transport"]
    assert secagg("keys", "check", roster, "--authority", tmp_path / "authority.pub").returncode == 0
    assert secagg("keys", "check", roster, "--authority", tmp_path / "server.pub").returncode == 1
    own = secagg("keys", "roster", "demo", "--authority", tmp_path / "server.key", *options, "--out", roster)
    assert (own.returncode, "someone other" in own.stderr) == (2, True)


def test_a_deployment_has_everything_and_keeps_secrets_private(tmp_path: Path) -> None:
    assert secagg("keys", "deployment", "--out", tmp_path / "d", "--nodes", 2).returncode == 0
    secret = [p for p in (tmp_path / "d").rglob("*") if p.suffix in (".key", ".auth")]
    assert len(secret) == 1 + 1 + 1 + 2 + 2
    assert {p.stat().st_mode & 0o777 for p in secret} == {0o600}
    assert all((tmp_path / "d" / "tls" / name).is_file() for name in ("ca.pem", "server.pem"))
