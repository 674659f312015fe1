"""A run record fails on every edit, truncation and re-ordering, and says how much it has proved."""

import hashlib
import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.errors import Misuse, RecordError
from protocols.identity import Identity
from protocols.record import _DOMAIN, FORMAT, GENESIS, RunRecord, check_files, file_digest, verify_record

SIGNER = Identity.generate("server")


def written(path: Path, rounds: int = 4, signer: Identity | None = SIGNER) -> list[str]:
    with RunRecord.open(path, signer) as record:
        return [record.append({"round": i, "survivors": 3, "masked": ["weights"]}) for i in range(rounds)]


def test_the_verdict_says_what_was_proved(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    heads = written(path)
    assert verify_record(path).level == "internally consistent only"
    assert verify_record(path, kept_head=heads[-1]).level == "internally consistent only"
    assert verify_record(path, SIGNER.public).level == "signed"
    verdict = verify_record(path, SIGNER.public, heads[2])
    assert (verdict.level, verdict.kept_index, verdict.head) == ("verified", 2, heads[3])
    assert [e.body["round"] for e in verdict.entries] == [0, 1, 2, 3]


def test_a_truncated_record_fails_against_a_kept_head_only(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    heads = written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert verify_record(path, SIGNER.public).level == "signed"
    with pytest.raises(RecordError, match="cut short"):
        verify_record(path, SIGNER.public, heads[3])
    path.write_bytes(b"")
    with pytest.raises(RecordError, match="no entry"):
        verify_record(path)


def test_a_record_written_anew_by_another_fails(tmp_path: Path) -> None:
    heads = written(tmp_path / "true")
    written(tmp_path / "false", signer=Identity.generate("mallory"))
    with pytest.raises(RecordError, match="not signed by"):
        verify_record(tmp_path / "false", SIGNER.public)
    written(tmp_path / "bare", signer=None)
    with pytest.raises(RecordError, match="not signed"):
        verify_record(tmp_path / "bare", SIGNER.public)
    with RunRecord.open(tmp_path / "other", signer=None) as record:
        record.append({"round": 0, "survivors": 4})
    with pytest.raises(RecordError, match="replaced"):
        verify_record(tmp_path / "other", kept_head=heads[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "record.jsonl"
    if not path.exists():
        written(path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]))
    edited = tmp_path / "edited.jsonl"
    edited.write_bytes(whole[:at] + bytes([other]) + whole[at + 1 :])
    with pytest.raises(RecordError):
        verify_record(edited, SIGNER.public)


def test_a_signature_in_capitals_is_found(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    written(path)
    lines = path.read_text().splitlines(keepends=True)
    signature = json.loads(lines[-1])["signature"]
    path.write_text("".join([*lines[:-1], lines[-1].replace(signature, signature.upper())]))
    with pytest.raises(RecordError):
        verify_record(path, SIGNER.public)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 2, 3], [0, 1, 1, 2, 3], [1, 2, 3]])
def test_lines_in_another_order_are_found(tmp_path: Path, order: list[int]) -> None:
    path = tmp_path / "record.jsonl"
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(RecordError, match="follow"):
        verify_record(path)


def test_a_consistent_edit_needs_the_key(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    written(path)
    entries = [json.loads(line)["body"] for line in path.read_bytes().splitlines()]
    path.unlink()
    with RunRecord.open(path) as record:
        for body in entries:
            record.append({**body, "survivors": 99})
    assert verify_record(path).level == "internally consistent only"
    with pytest.raises(RecordError):
        verify_record(path, SIGNER.public)


def test_a_killed_writer_leaves_a_record_that_continues(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    written(path, 2)
    with path.open("ab") as file:
        file.write(b'{"body":{"rou')
    with pytest.raises(RecordError, match="unfinished"):
        verify_record(path)
    with RunRecord.open(path, SIGNER) as record:
        head = record.append({"round": 2})
    assert verify_record(path, SIGNER.public, head).kept_index == 2


def test_a_changed_record_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    written(path, 2)
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":7'))
    with pytest.raises(RecordError, match="edited"):
        RunRecord.open(path, SIGNER)
    written(tmp_path / "signed", 1)
    with pytest.raises(RecordError, match="signer"):
        RunRecord.open(tmp_path / "signed")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with RunRecord.open(tmp_path / "r") as record:
        assert record.head == GENESIS
        with pytest.raises(RecordError, match="another process"):
            RunRecord.open(tmp_path / "r")


@pytest.mark.parametrize("body", [{"loss": float("nan")}, {"key": b"bytes"}, {"x": "a" * (1 << 24)}])
def test_what_is_not_a_fact_is_refused(tmp_path: Path, body: dict[str, object]) -> None:
    with RunRecord.open(tmp_path / "r") as record:
        with pytest.raises(Misuse):
            record.append(body)
        record.append({"round": 0})
    assert len(verify_record(tmp_path / "r").entries) == 1


def _fill(path: Path) -> None:
    import resource

    with RunRecord.open(path) as record:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for i in range(100):
            record.append({"round": i, "text": "x" * 100})


def test_a_full_disk_leaves_whole_entries(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_fill, args=(tmp_path / "r",))
    process.start()
    process.join(30)
    assert process.exitcode == 1
    assert 1 <= len(verify_record(tmp_path / "r").entries) < 10


def test_the_files_of_a_run_are_compared(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    with RunRecord.open(tmp_path / "r") as record:
        record.append({"files": {"model": "0" * 64}})
        record.append({"files": {"model": file_digest(tmp_path / "model")}})
    assert check_files(verify_record(tmp_path / "r"), tmp_path) == ("model",)
    (tmp_path / "model").write_bytes(b"weightz")
    with pytest.raises(RecordError, match="changed"):
        check_files(verify_record(tmp_path / "r"), tmp_path)
    (tmp_path / "model").unlink()
    with pytest.raises(RecordError, match="not in"):
        check_files(verify_record(tmp_path / "r"), tmp_path)


def test_a_writer_tells_a_file_that_is_not_the_last_entrys(tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    model.write_bytes(b"weights")
    with RunRecord.open(tmp_path / "r") as record:
        record.require_file(model)  # nothing was said of it
        record.append({"files": {"model": file_digest(model)}})
        record.require_file(model)
    with RunRecord.open(tmp_path / "r") as record:
        record.require_file(model)
        record.require_file(other)
        model.write_bytes(b"weightz")
        with pytest.raises(RecordError, match="model is not the file of the last entry of r"):
            record.require_file(model)
        record.append({"round": 2})
        record.require_file(model)


def test_a_record_goes_on_from_its_last_head(tmp_path: Path) -> None:
    path = tmp_path / "r"
    heads = written(path, 3)
    with RunRecord.open(path, SIGNER) as record:
        assert (record.head, record.length) == (heads[-1], 3)
        record.append({"round": 3})
    assert verify_record(path, SIGNER.public, heads[0]).kept_index == 0


def test_a_record_that_another_signed_is_not_continued(tmp_path: Path) -> None:
    written(tmp_path / "r", 2, signer=Identity.generate("mallory"))
    with pytest.raises(RecordError, match="not signed by"):
        RunRecord.open(tmp_path / "r", SIGNER)


def test_everybody_may_read_a_record_and_nobody_else_write_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        written(tmp_path / "r", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o644


def test_closing_twice_closes_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunRecord.open(tmp_path / "r")
    closed: list[int] = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda handle: (closed.append(handle), close(handle)))
    record.close()
    record.close()
    assert len(closed) == 1


def chained(body: object, **other: object) -> bytes:
    """One line as a hostile writer makes it, its head right."""
    inner = {"body": body, "format": FORMAT, "index": 0, "previous": GENESIS} | other
    text = json.dumps(inner, sort_keys=True, separators=(",", ":"))
    head = hashlib.sha256(_DOMAIN + text.encode()).hexdigest()
    return (
        json.dumps(inner | {"head": head, "signature": None}, sort_keys=True, separators=(",", ":")).encode()
        + b"\n"
    )


def test_a_hostile_line_is_a_record_error(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(chained({"round": 0}))
    assert verify_record(path).level == "internally consistent only"
    bad = [
        chained({"loss": float("nan")}),
        chained({"loss": float("inf")}),
        chained(["round", 0]),
        chained({}, index=False),
        chained({}, index=0.0),
        chained({}, index=1),
        chained({}, previous="1" * 64),
        chained({}, format="other"),
        chained({}, more=1),
        chained({}).replace(b'"head":"', b'"head":7,"was":"'),
        b"[]\n",
        b"7\n",
        b"[" * 100_000 + b"\n",
    ]
    for line in bad:
        path.write_bytes(line)
        for read in (verify_record, RunRecord.open):
            with pytest.raises(RecordError, match="entry 0"):
                read(path)


def test_the_last_mention_of_each_file_counts(tmp_path: Path) -> None:
    for name in ("model", "metrics"):
        (tmp_path / name).write_bytes(name.encode())
    digests = {name: file_digest(tmp_path / name) for name in ("model", "metrics")}
    with RunRecord.open(tmp_path / "r") as record:
        record.append({"files": {"model": "0" * 64, "metrics": digests["metrics"]}})
        record.append({"files": {"model": digests["model"]}})
    assert check_files(verify_record(tmp_path / "r"), tmp_path) == ("metrics", "model")
    (tmp_path / "metrics").write_bytes(b"edited")
    with pytest.raises(RecordError, match="'metrics' is not the file"):
        check_files(verify_record(tmp_path / "r"), tmp_path)
