"""Files that version 1 wrote are read for ever, or refused by name: stored state, roster, run record."""

import json
from pathlib import Path

import pytest

from protocols.errors import PeerError, RecordError, StoreError
from protocols.identity import SignedRoster
from protocols.record import verify_record
from protocols.store import FileStore

HERE = Path(__file__).parent / "formats"
KEYS = dict(line.split() for line in (HERE / "keys1.txt").read_text().splitlines())


def stored(folder: Path, change: bytes = b"") -> FileStore:
    for name in ("state", "state.key", "state.anchor"):
        data = bytes.fromhex((HERE / f"store1-{name}.hex").read_text())
        if change and name == "state":
            data = change + data[len(change) :]
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return FileStore(folder / "state", "alice")


def test_a_state_of_version_1_is_read(tmp_path: Path) -> None:
    with stored(tmp_path).transaction() as t:
        assert t.get("session/1") == b"kept by version 1"
        assert t.marked("answered/1")
        assert t.counter("round") == 7


def test_a_state_of_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a state file of format 1"):
        stored(tmp_path, b"SASTORE\x02").get("session/1")


def test_a_roster_of_version_1_is_read_and_another_refused() -> None:
    text = (HERE / "roster1.json").read_text()
    roster = SignedRoster.from_json(text).verified(bytes.fromhex(KEYS["authority"]))
    assert [(m.name, m.role, m.transport) for m in roster.members] == [
        ("server", "server", ""),
        ("site-1", "client", "ec-00"),
    ]
    with pytest.raises(PeerError, match="secagg-roster/1"):
        SignedRoster.from_json(json.dumps({**json.loads(text), "format": "secagg-roster/2"}))


def test_a_record_of_version_1_is_read_and_another_refused(tmp_path: Path) -> None:
    data = (HERE / "record1.jsonl").read_bytes()
    verdict = verify_record(HERE / "record1.jsonl", bytes.fromhex(KEYS["server"]), KEYS["head"])
    assert verdict.level == "verified"
    assert verdict.entries[1].body == {"round": 1, "survivors": 3}
    (tmp_path / "r").write_bytes(data.replace(b"secagg-record/1", b"secagg-record/2"))
    with pytest.raises(RecordError, match="secagg-record/1"):
        verify_record(tmp_path / "r")
