"""The suite `fl`: it runs, compares every stack with none in one run, and says what it had to leave out."""

import json
from pathlib import Path

import pytest

from benchmarks import harness, tables
from benchmarks.fl.text import Tuning
from tests.programs import ran
from tests.toys.texts import small_texts

ROOT = Path(__file__).resolve().parents[2]


def test_overhead_compares_each_stack_with_none() -> None:
    command = ["fl", "overhead", "--json", "--repeats", "1"]
    command += ["--clients", "4", "--model", "logistic", "--stack", "secagg", "--stack", "no-such-layer"]
    done = ran("benchmarks", *command, folder=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = found["figures"]["rows"]
    assert [row["stack"] for row in rows] == ["none", "secagg"]
    assert rows[0]["over_none"] == 1
    assert rows[1]["client_s"] > 0
    assert rows[1]["kib_up"] > 0
    assert found["figures"]["parameters"] == 650
    assert "No privacy layer is named" in found["figures"]["left_out"]["no-such-layer"]


def test_niid_goes_on_with_an_arm_where_it_stopped(tmp_path: Path) -> None:
    command = ["fl", "--case", "niid", "--json", "--data", "digits"]
    command += ["--examples", "300", "--epochs", "1", "--work", str(tmp_path)]
    command += ["--cell", "two classes, scaffold, 15 rounds, seed 0"]
    curves = []
    for rounds in ("1", "3"):
        done = ran("benchmarks", *command, "--rounds", rounds, folder=ROOT)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["figures"]["rows"]
        assert (row["method"], row["left"], row["sizes"]) == ("scaffold", 15 - int(rounds), [30] * 10)
        curves.append(row["curve"])
    assert [len(curve) for curve in curves] == [1, 3]
    assert curves[1][0] == curves[0][0]


def test_async_says_when_each_way_has_the_accuracy_of_rounds_that_wait() -> None:
    done = ran("benchmarks", "fl", "--case", "async", "--json", "--rounds", "3", "--seeds", "1", folder=ROOT)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["figures"]["rows"]
    assert (row["waiting_rounds"], row["abandoned"], row["clipped"]) == (3, 0, 0.0)
    assert row["all_reached"]
    assert row["all_sooner"] == row["waiting_time"] / row["all_time"]


def test_a_stopped_run_of_niid_renders_how_far_it_came(tmp_path: Path) -> None:
    """By the block of the page itself: rounds done and rounds left, beside an accuracy that is not the end's."""
    row = {"arm": "x", "rounds": 3, "left": 47, "accuracy": 71.0, "best": 72.0, "over_seeds": {"seeds": 0}}
    harness.write(harness.result("fl", "niid", arguments={}, figures={"rows": [row]}, seed=0), tmp_path)
    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    specs = [line for line in page.splitlines() if line.startswith("<!-- results fl.niid")]
    (spec,) = [spec for spec in specs if "left = .left" in spec]
    shown = tables.refresh(f"{spec}\n<!-- /results -->", tmp_path)
    assert "| rounds done | left |" in shown
    assert "| x | 3 | 47 | 71.00 | 72.00 |" in shown


def test_text_tunes_over_roles_and_centrally_by_as_many_steps_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model on small texts; the second call takes the first model and the rounds that are kept."""
    monkeypatch.setattr("fl.data.text.published", lambda: small_texts(tmp_path))
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    monkeypatch.setattr("benchmarks.fl.text.ROLES", "shakespeare:length=10,least=1")
    monkeypatch.setattr("benchmarks.fl.text.BOOKS", "dickens:length=10")
    rows = []
    for _ in range(2):
        tuning = Tuning(rounds=2, epochs=1, fraction=1.0, hidden=8, seed=0, work=tmp_path / "work")
        rows.append([tuning.untuned(), tuning.federated(), tuning.central()])
    (before, over_roles, central), again = rows
    assert (before["steps"], over_roles["rounds"], central["rounds"]) == (0, 2, 0)
    assert over_roles["steps"] == central["steps"] > 0
    assert over_roles["bits"] < before["bits"]
    assert central["bits"] < before["bits"]
    assert [row["bits"] for row in again] == [row["bits"] for row in (before, over_roles, central)]
    assert over_roles["bytes_up"] > 0
    assert over_roles["sample"].startswith("O, ")
