"""A report says in one file what runs left on disk: groups, intervals, prices, text that cannot break out."""

import hashlib
import json
import math
import re
from importlib.resources import files
from pathlib import Path

import pytest

from fl.cli import invoke
from fl.report import write
from fl.report.cells import cells, upwards
from fl.report.folders import read
from protocols.errors import Misuse

RUNS = {
    "plain-0": ("--seed", "0"),
    "plain-1": ("--seed", "1"),
    "private": ("--privacy", "client-dp:epsilon=8"),
    "secret": ("--privacy", "client-dp:epsilon=8,amplify=true", "--sampling", "poisson", "--fraction", "0.8"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, options in RUNS.items():
        asked = [
            "run",
            "--data",
            "digits",
            "--model",
            "logistic",
            "--rounds",
            "2",
            "--clients",
            "5",
            *options,
        ]
        assert invoke([*asked, "--output", str(folder / name), "--json"]) == 0
    return folder


def test_runs_that_differ_in_their_seeds_alone_are_one_configuration(runs: Path) -> None:
    made = cells(read([runs]).runs)
    assert [[run.name.split("/")[1] for run in cell.runs] for cell in made] == [
        ["plain-0", "plain-1"],
        ["private"],
        ["secret"],
    ]
    values = [run.rounds[-1]["accuracy"] for run in made[0].runs]
    mean, half = made[0].mean()
    assert mean == pytest.approx(sum(values) / 2)
    # Student's t with one degree of freedom, .975 quantile: 12.706 (any table).
    assert half == pytest.approx(12.706 * abs(values[0] - values[1]) / 2, rel=1e-3)
    assert math.isnan(made[1].mean()[1])


def test_what_a_layer_withholds_is_not_shown(runs: Path) -> None:
    (secret,) = cells(read([runs / "secret"]).runs)
    (row,) = secret.facts()
    assert row["bytes_up"] is None
    assert row["seconds"] is None
    assert row["epsilon"] <= 8


def test_the_page_is_one_file_with_all_of_it(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert write([runs, Path("docs/results/fl.overhead.json")], page) == [page]
    text = page.read_text()
    assert page.stat().st_size < 3_000_000
    assert "http-equiv" in text
    wanted = ("internally consistent only", "Neighbouring relation", "not measured", "Benchmark fl overhead")
    assert all(words in text for words in wanted)
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=.(?!data:)", markup)


def test_text_from_a_run_cannot_break_out_of_its_place(runs: Path, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    copied = tmp_path / "evil"
    copied.mkdir()
    for path in (runs / "private").iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    told = json.loads((copied / "statement.json").read_text())
    told["notes"] = [evil]
    told["guarantees"][0]["adversary"] = evil
    (copied / "statement.json").write_text(json.dumps(told))
    write([copied], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert evil not in text
    assert "does not hold" in text, "the record names the digest of another statement"


def test_scripts_are_those_whose_digests_are_kept() -> None:
    vendor = files("fl.report") / "vendor"
    listed = dict(reversed(line.split()) for line in (vendor / "SHA256SUMS").read_text().splitlines())
    assert len(listed) == 3
    for name, digest in listed.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
        assert "Redistribution" in (vendor / name.replace(".min.js", ".LICENSE")).read_text()


def test_figures_are_files_that_say_what_they_are(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = write([runs], tmp_path / "r.html", figures=True)
    assert {path.name for path in written} >= {
        "r-epsilon.svg",
        "r-epsilon.png",
        "r-rounds.svg",
        "r-bytes_up.png",
    }
    assert all(path.stat().st_size > 1000 for path in written)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda folder: folder / "none", "no such file"),
        (lambda folder: folder, "expected a run's folder"),
        (lambda folder: _text(folder, "not json"), "expected JSON of a benchmark or an audit"),
        (lambda folder: _text(folder, "{}"), "python -m benchmarks"),
    ],
)
def test_what_is_no_source_is_refused_by_name(make, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Misuse, match=said):
        write([make(tmp_path)], tmp_path / "r.html")


def test_a_metric_that_no_run_has_is_refused_with_those_it_has(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="has loss, accuracy"):
        write([runs], tmp_path / "r.html", metric="bleu")


def _text(folder: Path, text: str) -> Path:
    (folder / "x.json").write_text(text)
    return folder / "x.json"


def test_a_card_shows_the_dearest_run_and_a_copy_is_no_second_one(runs: Path, tmp_path: Path) -> None:
    for name, price in (("a", 7.0), ("b", 9.5), ("copy", 7.0)):
        _changed(runs / "private", tmp_path / "s" / name, price, {"b": 0.5}.get(name))
    (cell,) = cells(read([tmp_path / "s", tmp_path / "s"]).runs)
    assert len(cell.runs) == 2
    assert [line["epsilon"] for line in cell.guarantees] == [9.5]
    assert cell.facts()[0]["epsilon"] == 9.5
    assert 0 <= cell.facts()[0]["low"] <= cell.facts()[0]["high"] <= 1, "an accuracy's interval"


def test_a_run_without_a_result_is_listed_and_the_others_are_shown(runs: Path, tmp_path: Path) -> None:
    _changed(runs / "private", tmp_path / "s" / "silent", 7.0, None)
    path = tmp_path / "s" / "silent" / "metrics.jsonl"
    path.write_text(
        path.read_text().replace('"abandoned": null', '"abandoned": "too few"') + '{"round": 3, "lo'
    )
    write([runs / "private", tmp_path / "s"], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "Runs without a result" in text
    assert "Privacy cards" in text


@pytest.mark.parametrize("metric", ["loss", "bits_per_character", "error_rate", "nll", "false_positive_rate"])
def test_less_of_these_is_better(metric: str) -> None:
    assert not upwards(metric)
    assert upwards("accuracy")


def test_a_reader_says_that_less_of_a_metric_is_better(runs: Path, tmp_path: Path) -> None:
    asked = ["report", str(runs), "--metric", "accuracy", "--output", str(tmp_path / "r.html")]
    assert invoke([*asked, "--lower-is-better"]) == 0
    assert "Less accuracy is taken to be better" in (tmp_path / "r.html").read_text()
    assert invoke(asked) == 0
    assert "More accuracy is taken to be better" in (tmp_path / "r.html").read_text()


def _changed(run: Path, to: Path, epsilon: float, accuracy: float | None) -> None:
    """A copy of a run with another price and another last accuracy."""
    to.mkdir(parents=True)
    for path in run.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    told = json.loads((to / "statement.json").read_text())
    told["guarantees"][0]["epsilon"] = epsilon
    (to / "statement.json").write_text(json.dumps(told))
    rounds = [json.loads(line) for line in (to / "metrics.jsonl").read_text().splitlines()]
    rounds[-1]["accuracy"] = rounds[-1]["accuracy"] if accuracy is None else accuracy
    (to / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rounds))
