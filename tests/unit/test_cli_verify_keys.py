"""`secagg verify` and `secagg keys` as they are typed: what they print, their exit codes, the modes of their files."""

import contextlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from dp import Ledger
from dp.events import Gaussian, Relation, Unit
from examples.flower.keys import make_deployment, make_tls
from fl.cli import invoke
from fl.credentials import make_identity, read_public
from fl.flower.nodes import make_node_key
from protocols.errors import Misuse
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


def test_verify_checks_a_ledger_as_it_checks_a_run(tmp_path: Path) -> None:
    path, signer = tmp_path / "own.ledger", Identity.generate("ward 7")
    ledger = Ledger(path, epsilon=5.0, delta=1e-5)
    ledger.charge(
        Gaussian(noise_multiplier=5.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT), run="r", round=1
    )
    signer.save(tmp_path / "ward.pem")
    plain = json.loads(secagg("verify", "--ledger", path, "--json").stdout)
    assert (plain["verdict"], plain["verified"], plain["charges"]) == ("internally consistent only", False, 1)
    kept = secagg("verify", "--ledger", path, "--sign", tmp_path / "ward.pem")
    assert kept.returncode == 0
    (tmp_path / "head.json").write_text(kept.stdout)
    given = ("--head", tmp_path / "head.json", "--public-key", signer.public.hex())
    full = json.loads(secagg("verify", "--ledger", path, *given, "--json").stdout)
    assert (full["verified"], full["kept"], full["terms"]["epsilon"]) == (True, 1, 5.0)
    shown = secagg("verify", "--ledger", path, *given).stdout
    assert "verified; 1 charges" in shown
    assert "per client, zero-out neighbours" in shown
    for wrong in (
        [],
        [tmp_path, "--ledger", path],
        [tmp_path, "--sign", path],
        ["--ledger", tmp_path / "none"],
    ):
        assert secagg("verify", *wrong).returncode == 2
    assert secagg("verify", "--ledger", path, "--head", "ab" * 32).returncode == 2
    path.unlink()
    other = Ledger(path, epsilon=50.0, delta=1e-5)
    other.charge(
        Gaussian(noise_multiplier=5.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT), run="r", round=1
    )
    raised = secagg("verify", "--ledger", path, *given)
    assert (raised.returncode, "budget" in raised.stderr, "Traceback" in raised.stderr) == (1, True, False)


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


def test_verify_says_up_to_where_the_kept_head_proves(tmp_path: Path) -> None:
    signer = Identity.generate("server")
    with RunRecord.open(tmp_path / FILE_NAME, signer) as record:
        heads = [record.append({"round": number}) for number in range(1, 6)]
    key = ("--public-key", signer.public.hex())
    for index, follow in ((0, "4 entries follow"), (2, "2 entries follow"), (3, "1 entry follows")):
        said = secagg("verify", tmp_path, *key, "--head", heads[index])
        assert f"proves everything up to entry {index} (round {index + 1})" in said.stdout
        assert f"{follow} it: the signature alone covers them" in said.stdout
        told = json.loads(secagg("verify", tmp_path, *key, "--head", heads[index], "--json").stdout)
        assert (told["kept_index"], told["entries_after_kept"]) == (index, 4 - index)
    assert "follow" not in secagg("verify", tmp_path, *key, "--head", heads[4]).stdout
    assert "2 entries follow it: nothing covers them" in secagg("verify", tmp_path, "--head", heads[2]).stdout
    (tmp_path / "heads.txt").write_text("\n".join([heads[3], heads[1]]))  # in any order, the newest counts
    told = json.loads(secagg("verify", tmp_path, *key, "--head", tmp_path / "heads.txt", "--json").stdout)
    assert (told["verdict"], told["kept_index"]) == ("verified", 3)
    assert json.loads(secagg("verify", tmp_path, "--json").stdout)["entries_after_kept"] is None


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


def test_no_command_replaces_what_it_made_before(tmp_path: Path) -> None:
    assert secagg("keys", "new", "authority", "--out", tmp_path / "a").returncode == 0
    commands = [
        ("new", "alice", "--out", tmp_path / "new"),
        ("node", "alice", "--out", tmp_path / "node"),
        ("paillier", "ring", "--out", tmp_path / "paillier", "--bits", 2048, "--arrangement", "shared"),
        ("ckks", "ring", "--out", tmp_path / "ckks"),
    ]
    for command in commands:
        assert secagg("keys", *command).returncode == 0
    make_deployment(tmp_path / "deployment", 1)
    make_tls(tmp_path / "tls")
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in commands:
        again = secagg("keys", *command)
        assert (again.returncode, "never" in again.stderr) == (2, True)
    with pytest.raises(Misuse, match="never"):
        make_deployment(tmp_path / "deployment", 1)
    with pytest.raises(Misuse, match="never"):
        make_tls(tmp_path / "tls")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == made


@pytest.mark.parametrize("left", ["alice.key", "alice.pub", "alice.auth", "alice.auth.pub", "ca.pem"])
def test_one_file_that_is_left_is_enough_to_refuse(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("kept")
    makers = [lambda: make_tls(tmp_path)] if left == "ca.pem" else []
    makers += [lambda: make_node_key("alice", tmp_path)] if "auth" in left else []
    for make in makers or [lambda: make_identity("alice", tmp_path)]:
        with pytest.raises(Misuse, match=f"{left} exists"):
            make()
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_a_roster_is_replaced_by_a_later_one_of_its_federation_only(tmp_path: Path) -> None:
    for name in ("authority", "server", "alice"):
        assert secagg("keys", "new", name, "--out", tmp_path).returncode == 0
    members = [f"alice:client:{tmp_path / 'alice.pub'}", f"server:server:{tmp_path / 'server.pub'}"]
    fixed = [word for m in members for word in ("--member", m)]
    fixed += ["--authority", str(tmp_path / "authority.key"), "--out", str(tmp_path / "roster.json")]

    def sign(federation: str, serial: int) -> Result:
        return secagg("keys", "roster", federation, *fixed, "--serial", serial)

    assert sign("demo", 5).returncode == 0
    for serial in (2, 5):
        refused = sign("demo", serial)
        assert (refused.returncode, "--serial 6" in refused.stderr) == (2, True)
    assert sign("other", 6).returncode == 2
    assert SignedRoster.load(tmp_path / "roster.json").roster.serial == 5
    assert sign("demo", 6).returncode == 0
    (tmp_path / "roster.json").write_text("mine")
    assert sign("demo", 7).returncode == 1
    assert (tmp_path / "roster.json").read_text() == "mine"


def test_a_deployment_has_everything_and_keeps_secrets_private(tmp_path: Path) -> None:
    make_deployment(tmp_path / "d", 2)
    secret = [p for p in (tmp_path / "d").rglob("*") if p.suffix in (".key", ".auth")]
    assert len(secret) == 1 + 1 + 1 + 2 + 2
    assert {p.stat().st_mode & 0o777 for p in secret} == {0o600}
    assert all((tmp_path / "d" / "tls" / name).is_file() for name in ("ca.pem", "server.pem"))


def test_a_path_of_64_characters_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Identity.generate("server")
    with RunRecord.open(tmp_path / FILE_NAME, signer) as record:
        head = record.append({"round": 1})
    monkeypatch.chdir(tmp_path)
    Path("k" * 64).write_text(signer.public.hex())
    assert secagg("verify", tmp_path, "--public-key", "k" * 64, "--head", head).returncode == 0
