"""The benchmark harness: results survive a round trip, docs blocks follow results, commands speak JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import harness, machine, tables
from benchmarks.__main__ import SUITES
from benchmarks.diffs import Pair


def _result(case: str = "small", **figures: object) -> harness.Result:
    return harness.result(
        "secagg", case, arguments={"clients": 3}, figures=figures or {"seconds": 1.25}, seed=7
    )


def test_result_describes_machine_versions_and_commit() -> None:
    outcome = json.loads(_result().to_json())
    described = {"machine", "versions", "commit", "timestamp"}
    assert set(outcome) == described | {"schema", "suite", "case", "arguments", "figures", "seed"}
    assert outcome["machine"]["cores"] >= 1
    assert "numpy" in outcome["versions"]


def test_result_survives_a_file(tmp_path: Path) -> None:
    outcome = _result()
    path = harness.write(outcome, tmp_path)
    assert path.name == "secagg.small.json"
    assert harness.read(path) == outcome
    assert harness.read_all("secagg.*", tmp_path) == [outcome]


def test_other_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secagg.old.json"
    path.write_text(json.dumps({"schema": "secagg-benchmark/0"}))
    with pytest.raises(ValueError, match="secagg-benchmark/1"):
        harness.read(path)


@pytest.mark.parametrize("case", ["", "Upper", "../escape", "a b"])
def test_case_that_is_no_file_name_is_refused(case: str) -> None:
    with pytest.raises(ValueError, match="named by"):
        _result(case)


def test_nan_is_no_result() -> None:
    with pytest.raises(ValueError):
        _result(seconds=float("nan")).to_json()


def test_measure_together_counts_every_run() -> None:
    calls = {"a": 0, "b": 0}

    def work(name: str) -> None:
        calls[name] += 1

    timings = harness.measure_together({name: lambda n=name: work(n) for name in calls}, repeats=3, warmups=2)
    assert calls == {"a": 5, "b": 5}
    assert all(
        timing.repeats == 3 and timing.min_s <= timing.median_s <= timing.max_s for timing in timings.values()
    )
    with pytest.raises(ValueError, match="at least 1"):
        harness.measure(lambda: None, repeats=0)


def test_ratio_is_above_one_when_ours_is_faster() -> None:
    assert harness.ratio(harness.Timing.of([2.0, 8.0, 4.0]), 2.0) == 2.0


def test_table_block_is_filled_from_results_and_stable(tmp_path: Path) -> None:
    harness.write(_result("a", seconds=1.5), tmp_path)
    harness.write(_result("b", rows=[{"seconds": 2.0, "n": 1}, {"seconds": 3.0, "n": 2}]), tmp_path)
    marker = "<!-- results secagg.* | clients = arguments.clients | seconds = .seconds .2f -->"
    page = f"x\n{marker}\nold\n<!-- /results -->\ny"
    filled = tables.refresh(page, tmp_path)
    assert "| 3 | 1.50 |\n| 3 | 2.00 |\n| 3 | 3.00 |\n<!-- /results -->\ny" in filled
    assert "old" not in filled
    assert tables.refresh(filled, tmp_path) == filled


def test_value_block_is_filled(tmp_path: Path) -> None:
    harness.write(_result("a", seconds=1.5), tmp_path)
    page = "took <!-- value secagg.a figures.seconds .1f -->?<!-- /value --> s"
    assert tables.refresh(page, tmp_path) == page.replace("?", "1.5")


@pytest.mark.parametrize("block", ["secagg.none figures.x", "secagg.a figures.none"])
def test_missing_figure_stops_the_page(tmp_path: Path, block: str) -> None:
    harness.write(_result("a"), tmp_path)
    with pytest.raises(ValueError):
        tables.refresh(f"<!-- value {block} --><!-- /value -->", tmp_path)


def test_committed_pages_agree_with_committed_results() -> None:
    assert tables.refresh_pages(write=False) == []


def test_help_lists_every_suite_and_imports_none() -> None:
    script = (
        "import sys; sys.argv = ['benchmarks', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('benchmarks', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'tenseal', 'flwr', 'benchmarks.fl', 'benchmarks.he')\n"
        "print([m for m in sys.modules if m.startswith(heavy)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=machine.ROOT, check=True
    )
    assert all(suite in done.stdout for suite in SUITES)
    assert done.stdout.rstrip().endswith("[]")


def test_a_diff_block_shows_the_lines_that_differ_and_counts_them() -> None:
    empty = "<!-- diff examples/adapters/numpy -->\n<!-- /diff -->"
    filled = tables.refresh(empty)
    assert "\n+from fl.adapters import from_numpy\n" in filled
    assert "\n-    weights = train(weights" in filled
    assert tables.refresh(filled) == filled
    assert Pair("examples/adapters/numpy").changed == 4
    with pytest.raises(ValueError, match="no file examples/adapters/none_before"):
        tables.refresh("<!-- diff examples/adapters/none -->\n<!-- /diff -->")
