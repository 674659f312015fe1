"""The files of a run, without a federation: which are written, with which modes, and what is gone on from."""

import io
import json
import math
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl.round.result import RoundResult, Trip
from fl.round.run_files import (
    CHECKPOINT,
    METRICS,
    STATEMENT,
    KeptRun,
    RunFiles,
    encode,
    last_entry,
    line_of,
    load,
    npz,
    read_npz,
    result_from_json,
)
from protocols.errors import RecordError, SecAggError
from protocols.guarantee import Guarantee
from protocols.identity import Identity
from protocols.record import FILE_NAME, RunRecord, check_files, verify_record
from protocols.statement import PrivacyEvent

PRICE = Guarantee("client", "zero-out", "server", math.inf, 1e-5, "rdp", ("client-dp",))
TRIP = Trip("input", 3.0, 1.0, 0.5, 0.25, 3, 2, 100, 200)
MODEL = "model.bin"


def run(rounds: int, **changes: object) -> KeptRun:
    history = [
        RoundResult(n, ("a", "b"), ("a",), guarantees=(PRICE,), trips=(TRIP,)) for n in range(1, rounds + 1)
    ]
    events = (PrivacyEvent("Gaussian", {"noise_multiplier": 2.0}, "client", "zero-out"),)
    kept = KeptRun(
        history, {"w": np.arange(3.0)}, {"v": np.ones(2)}, "FedAvg", {"seed": 1}, events=events, session=7
    )
    entry = {"round": rounds, "of": 5}
    return replace(kept, entry=entry, statement={"epsilon": "infinite"}, **changes)  # type: ignore[arg-type]


def files(folder: Path, signer: Identity | None = None, **more: int) -> RunFiles:
    return RunFiles(folder, signer, MODEL, lambda kept: kept.model["w"].tobytes(), **more)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_run_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    kept = run(2, layers={"noise": {"spent": 3, "known/4": np.arange(2)}, "other": {"n": 1}})
    made = files(tmp_path / "deep" / "run")
    made.begin(replace(kept, history=[]))
    made.save(replace(kept, history=kept.history[:1], entry={"round": 1}))
    made.save(kept)
    made.close()
    found = load(made.folder)
    assert found is not None
    assert found.history == kept.history
    assert (found.kind, found.made_with, found.session) == ("FedAvg", {"seed": 1}, 7)
    assert (found.entry, found.statement) == (kept.entry, kept.statement)
    assert found.model["w"].tolist() == [0, 1, 2]
    assert found.strategy["v"].tolist() == [1, 1]
    assert found.layers["noise"]["known/4"].tolist() == [0, 1]
    assert (found.layers["noise"]["spent"], found.layers["other"]) == (3, {"n": 1})
    assert found.events == kept.events != ()
    assert load(tmp_path) is None
    assert encode(kept) != encode(kept)  # bytes that nobody can try secrets against
    assert encode(run(1)) == encode(run(1))


def test_every_file_is_named_in_a_signed_entry_and_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    signer, kept = Identity.generate("server"), run(1)
    made = files(tmp_path, signer)
    made.begin(replace(kept, history=[]))
    assert made.record.last is None  # round 1 gets the first entry
    assert made.save(kept) == made.record.head
    made.close()
    verdict = verify_record(tmp_path / FILE_NAME, signer.public)
    assert (verdict.level, verdict.entries[0].body["round"]) == ("signed", 1)
    assert set(check_files(verdict, tmp_path)) == {CHECKPOINT, MODEL, METRICS, STATEMENT}
    assert last_entry(tmp_path) is not None
    text = (tmp_path / STATEMENT).read_text()
    assert (json.loads(text), text[-2:]) == (kept.statement, "}\n")
    assert [mode(tmp_path / name) for name in (CHECKPOINT, MODEL, METRICS, STATEMENT)] == [0o644] * 4
    secret = files(tmp_path / "secret")
    secret.hold(run(1, layers={"noise": {"seed": np.arange(2)}}))
    assert mode(tmp_path / "secret" / CHECKPOINT) == 0o600
    assert not (tmp_path / "secret" / METRICS).exists()


def test_prices_without_bound_are_kept_as_json_has_them() -> None:
    with zipfile.ZipFile(io.BytesIO(encode(run(1)))) as archive:
        assert b"Infinity" not in archive.read("__facts__.npy")
    line = line_of(replace(run(1).history[0], metrics={"odd": [1.0, math.nan, {"x": math.inf}]}))  # type: ignore[dict-item]
    assert line["odd"] == [1.0, None, {"x": None}]
    json.dumps(line, allow_nan=False)
    assert (line["trips"][0]["waiting"], "waited" in line) == (1.75, False)
    assert line_of(replace(run(1).history[0], waited=2.5))["waited"] == 2.5


def test_the_state_before_round_1_gets_an_entry_where_that_is_asked(tmp_path: Path) -> None:
    made = files(tmp_path, first=0)
    made.begin(replace(run(0), entry={"round": 0}))
    assert made.record.last is not None
    assert made.record.last.body["round"] == 0
    assert set(made.record.last.body["files"]) == {CHECKPOINT, STATEMENT}  # no round, no line, no model


def test_what_a_killed_process_did_not_write_is_written_and_nothing_else_is_taken(tmp_path: Path) -> None:
    made, kept = files(tmp_path), run(3)
    made.begin(replace(kept, history=[]))
    for n in (1, 2):
        made.save(replace(kept, history=kept.history[:n], entry={"round": n}))
    made.hold(replace(kept, entry={"round": 3}))  # killed right after the checkpoint
    made.catch_up(kept)
    assert made.record.length == 3
    assert made.record.last is not None
    assert made.record.last.body["round"] == 3
    assert len((tmp_path / METRICS).read_text().splitlines()) == 3
    (tmp_path / METRICS).unlink()
    head = made.catch_up(kept)  # nothing is missing but what follows from the checkpoint
    assert (made.record.length, head) == (3, made.record.head)
    assert len((tmp_path / METRICS).read_text().splitlines()) == 3
    for history in (kept.history[:2], kept.history + kept.history[:2]):
        with pytest.raises(RecordError, match=rf"holds 3 rounds and the checkpoint beside it {len(history)}"):
            made.catch_up(replace(kept, history=history))
    with pytest.raises(RecordError, match="holds 3 rounds"):
        made.begin(replace(kept, history=[]))
    with pytest.raises(RecordError, match="holds nothing and the checkpoint beside it 3"):
        files(tmp_path / "other").catch_up(kept)
    made.hold(other := replace(kept, kind="other"))
    with pytest.raises(RecordError, match=CHECKPOINT):  # not the file that the entry names
        made.catch_up(other)


def test_rounds_without_a_total_leave_no_model(tmp_path: Path) -> None:
    made, kept = files(tmp_path), run(1)
    abandoned = replace(kept.history[0], abandoned="too few")
    made.save(replace(kept, history=[abandoned]))
    assert not (tmp_path / MODEL).exists()


def test_a_file_of_arrays_holds_any_name_and_nothing_pickled(tmp_path: Path) -> None:
    data = npz({"file": np.arange(2), "a/b": np.zeros((0, 3), np.float32)})
    (tmp_path / "x.npz").write_bytes(data)
    found = read_npz(tmp_path / "x.npz")
    assert (found["file"].tolist(), found["a/b"].shape, found["a/b"].dtype) == ([0, 1], (0, 3), np.float32)
    with pytest.raises(ValueError, match="pickle"):
        npz({"x": np.array([{}], object)})
    np.savez(tmp_path / "y.npz", x=np.array([{}], object))
    with pytest.raises(SecAggError, match="is not a checkpoint"):
        read_npz(tmp_path / "y.npz")


def test_what_a_later_version_says_of_a_round_is_passed_over() -> None:
    whole = {"number": 1, "asked": ["a"], "survivors": [], "guarantees": [], "trips": [], "later": 1}
    assert result_from_json(whole) == RoundResult(1, ("a",))
    with pytest.raises(KeyError):
        result_from_json({name: value for name, value in whole.items() if name != "trips"})


def test_the_last_whole_entry_of_a_record(tmp_path: Path) -> None:
    assert last_entry(tmp_path) is None
    record = RunRecord.open(tmp_path / FILE_NAME)
    record.append({"round": 1})
    record.append({"round": 2, "abandoned": "too few stayed"})
    record.close()
    found = last_entry(tmp_path)
    assert found is not None
    assert found["body"] == {"round": 2, "abandoned": "too few stayed"}
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"cut')
    assert last_entry(tmp_path) == found
    (tmp_path / FILE_NAME).write_bytes(b"[1]\n")
    assert last_entry(tmp_path) is None
