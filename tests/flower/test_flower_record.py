"""The run record as clients and auditors see it: edits, cuts and a rewritten chain, through `secagg verify`."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from fl.cli import invoke
from fl.credentials import read_public
from fl.flower.arrays import arrays_of
from fl.flower.files import MODEL
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round.run_files import CHECKPOINT, METRICS, STATEMENT
from protocols.identity import Identity
from protocols.record import FILE_NAME, RunRecord, verify_record
from secagg import SecAggPlus
from tests.flower.direct import fedavg, model, rostered


def layers() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def verify(*arguments: object) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = invoke(["verify", *(str(word) for word in arguments)])
    return code, out.getvalue()


def assert_fails_by_name(verdict: tuple[int, str], name: str) -> None:
    assert verdict[0] == 1
    assert name in verdict[1]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    grid, arguments = rostered(folder, 4, privacy_mod(layers()))
    PrivateStrategy(fedavg(4), layers(), **arguments, poll=0.01).start(grid, arrays_of(model()), num_rounds=3)
    return folder


def test_every_edit_and_every_cut_fails_with_key_and_kept_head(recorded: Path) -> None:
    run, site = recorded / "run", recorded / "keys" / "site-2"
    key = ("--public-key", recorded / "keys" / "server" / "server.pub")
    head = ("--head", site / "kept-head.txt")
    assert verify(run, *key, *head)[0] == 0
    code, said = verify(run)
    assert (code, "internally consistent only" in said) == (0, True)
    record = run / FILE_NAME
    whole = record.read_bytes()
    lines = whole.splitlines(keepends=True)
    try:
        for cut in range(1, len(lines)):
            record.write_bytes(b"".join(lines[:cut]))
            assert verify(run, *key, *head)[0] == 1
        for place in range(0, len(whole), 41):
            edited = bytearray(whole)
            edited[place] ^= 1
            record.write_bytes(edited)
            assert verify(run, *key, *head)[0] == 1
        record.write_bytes(b"".join([lines[0], *lines[2:]]))
        assert verify(run, *key, *head)[0] == 1
        record.write_bytes(whole)
        for name in (CHECKPOINT, MODEL, METRICS, STATEMENT):
            saved = (run / name).read_bytes()
            (run / name).write_bytes(saved + b"\0")
            assert_fails_by_name(verify(run, *key, *head), name)
            (run / name).unlink()
            assert_fails_by_name(verify(run, *key, *head), name)
            (run / name).write_bytes(saved)
    finally:
        record.write_bytes(whole)
    assert verify(run, *key, *head)[0] == 0


def test_a_server_that_rewrites_its_own_record_is_told_by_the_heads_kept_before(
    recorded: Path, tmp_path: Path
) -> None:
    """The server signs a new chain and hands out its last head; what was kept earlier does not fit any more."""
    site = recorded / "keys" / "site-3"
    signer = Identity.load(recorded / "keys" / "server" / "server.key")
    original = verify_record(recorded / "run" / FILE_NAME, signer.public)
    with RunRecord.open(tmp_path / FILE_NAME, signer) as forged:
        for entry in original.entries:
            body = {key: value for key, value in entry.body.items() if key != "files"}
            newest = forged.append({**body, "survivors": 99} if entry.index == 1 else body)
    key = ("--public-key", signer.public.hex())
    assert verify(tmp_path, *key, "--head", newest)[0] == 0
    kept = (site / "kept-heads.txt").read_text()
    assert kept.split() == [entry.head for entry in original.entries]
    heads = tmp_path / "kept-heads.txt"
    heads.write_text(kept + newest + "\n")
    code, said = verify(tmp_path, *key, "--head", heads)
    assert (code, "cut short or replaced" in said) == (1, True)


def test_a_file_of_heads_verifies_the_record_that_they_are_of(recorded: Path, tmp_path: Path) -> None:
    key = ("--public-key", recorded / "keys" / "server" / "server.pub")
    kept = recorded / "keys" / "site-1" / "kept-heads.txt"
    code, said = verify(recorded / "run", *key, "--head", kept)
    assert (code, "verified" in said) == (0, True)
    (tmp_path / "empty.txt").write_text("")
    assert verify(recorded / "run", *key, "--head", tmp_path / "empty.txt")[0] == 2


def test_a_key_file_whose_path_is_as_long_as_a_key_is_still_a_file(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "k" * 60 + ".pub"
    Path(name).write_bytes((recorded / "keys" / "server" / "server.pub").read_bytes())
    assert verify(recorded / "run", "--public-key", name)[0] == 0
    assert read_public(name) == Identity.load(recorded / "keys" / "server" / "server.key").public
