"""The suite `secagg` end to end at toy sizes: the figures the issue names are there, and true."""

from __future__ import annotations

import json
from itertools import product

import pytest

from benchmarks import harness
from benchmarks.__main__ import app
from benchmarks.secagg import splits
from benchmarks.secagg.scale import one_session, sessions
from benchmarks.secagg.work import Work, run
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from secagg import SecAggPlus
from secagg.session_rules import rules_of

FIGURES = {
    "client_mean_s",
    "server_s",
    "stages",
    "bytes_up_per_client",
    "bytes_down_per_client",
    "peak_rss_mb",
    "max_abs_error",
    "mask_gb_per_s",
}


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    with pytest.raises(SystemExit) as end:
        app(["secagg", *options, "--repeats", "1", "--json"])
    assert end.value.code == 0
    return json.loads(capsys.readouterr().out)["figures"]


@pytest.mark.parametrize("threat", ["semi-honest", "default"])
def test_one_round_reports_what_the_issue_names(capsys: pytest.CaptureFixture[str], threat: str) -> None:
    figures = measured(capsys, "--clients", "12", "--dim", "500", "--dropout", "0.1", "--threat", threat)
    assert set(figures) >= FIGURES
    assert figures["max_abs_error"] == 0
    assert figures["survivors"] == 11
    assert figures["client_mean_s"] * 12 == pytest.approx(
        sum(s["client"] for s in figures["stages"].values())
    )


def test_the_peer_does_the_same_work(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("flwr")
    options = [
        "--clients",
        "8",
        "--dim",
        "400",
        "--neighbours",
        "4",
        "--threshold",
        "3",
        "--dropout",
        "0.13",
        "--peer",
        "flower",
    ]
    figures = measured(capsys, *options)
    assert figures["peer_max_abs_error"] < 1 / 2**15
    assert figures["client_ratio"] > 0
    assert figures["server_ratio"] == pytest.approx(figures["peer_server_s"] / figures["server_s"])


def test_inputs_are_distinct_and_drawn_from_the_seed() -> None:
    work = Work(5, 100, 4, 3, 0.2, seed=3)
    vectors = [v.tolist() for v in work.vectors()]
    assert vectors == [v.tolist() for v in Work(5, 100, 4, 3, 0.2, seed=3).vectors()]
    assert len({tuple(v) for v in vectors}) == 5
    assert len(work.leaving()) == 1


def test_complete_graph_is_run_as_such() -> None:
    assert run(Work(6, 10, 5, 4, 0.0, clock="cpu")).facts["degree"] == 5


def test_sessions_on_paper_divide_the_whole() -> None:
    whole, sharded = (f(10**6, 0.1, 0.05, 1_000, 16) for f in (one_session, sessions))
    assert whole["degree"] == sharded["degree"]
    assert sharded["coordinators"] == 100
    assert sharded["ring_bits"] < whole["ring_bits"] == 36


def test_the_plans_that_were_searched_for_splits_are_the_plans_of_now() -> None:
    rows = harness.read(harness.RESULTS / "secagg.splits.json").figures["rows"]
    assert [(r["clients"], r["collusion"], r["dropout"]) for r in rows] == list(
        product(splits.CLIENTS, splits.COLLUSION, splits.DROPOUT)
    )
    for row in rows:
        protocol = SecAggPlus(
            dropout=row["dropout"], collusion=row["collusion"], threat="semi-malicious", setup="fresh"
        )
        assert row["graph"] == planned_graph(protocol, row["clients"]), row


def planned_graph(protocol: SecAggPlus, clients: int) -> str:
    try:
        session = protocol.session(
            [str(i) for i in range(clients)], 1, 1, random=SystemRandom(), simulated=True
        )
    except Misuse:
        return "no plan"
    rules = rules_of(session)
    return "complete" if rules.complete else f"{rules.degree} neighbours"
