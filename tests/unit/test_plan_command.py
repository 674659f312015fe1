"""`secagg plan`: one JSON object, published instances, and exit code 2 with the number to relax."""

from __future__ import annotations

import json

import pytest

from fl.cli import invoke
from secagg.parameters import Cohort, plan
from secagg.parameters.costs import costs, ring_bits
from secagg.parameters.plan import Infeasible


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object], str]:
    code = invoke(["plan", *arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_published_instance_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer, _ = run(
        capsys, "--clients", "1000", "--dropout", "0.33", "--collusion", "0.05", "--threat", "semi-honest"
    )
    assert code == 0
    assert (answer["degree"], answer["threshold"], answer["ring_bits"]) == (72, 24, 26)
    assert answer["client_mask_expansions"] == 73
    for name in ("upload_bytes", "download_bytes", "client_seconds", "server_seconds", "expansion"):
        assert answer[name] > 0


def test_hundred_million_clients(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer, _ = run(capsys, "--clients", "100000000", "--dropout", "0.1", "--collusion", "0.1")
    assert code == 0
    assert answer["threat"] == "semi-malicious"
    assert answer["window"] < answer["threshold"] < answer["degree"]
    assert 2 * answer["quorum"] > answer["committee"] > 0
    assert answer["least_survivors"] > 55_000_000


def test_infeasible_exits_with_two_and_names_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer, err = run(capsys, "--clients", "100", "--dropout", "0.6", "--collusion", "0.5")
    assert code == 2
    assert "lower dropout to" in str(answer["error"])
    assert "lower dropout to" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--clients", "0"], "clients"),
        (["--clients", "10", "--dropout", "1.5"], "dropout"),
        (["--clients", "10", "--threat", "evil"], "evil"),
        (["--clients", "10", "--bits", "1"], "bits"),
        (["--clients", "10", "--dim", "0"], "dimension"),
        (["--clients", "100", "--bits", "64"], "lower bits to 57"),
        ([], "--clients"),
    ],
)
def test_wrong_requests_exit_with_two(
    capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    code, answer, _ = run(capsys, *arguments)
    assert code == 2
    assert word in str(answer["error"])


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", "--clients", "50", "--dropout", "0.1"]) == 0
    assert "threshold" in capsys.readouterr().out


@pytest.mark.parametrize("clients, bits", [(1, 2), (128, 57), (1_000, 16), (10**8, 16), (3, 62)])
def test_ring_is_the_smallest_that_carries_the_sum(clients: int, bits: int) -> None:
    width, largest = ring_bits(clients, bits), clients * (2 ** (bits - 1) - 1)
    assert largest < 2 ** (width - 1) <= max(1, 2 * largest)


def test_advice_on_bits_works() -> None:
    with pytest.raises(Infeasible, match="lower bits to 57"):
        ring_bits(128, 60)
    assert ring_bits(128, 57) == 64


def test_vector_dominates_the_upload_at_the_papers_size() -> None:
    """16-bit inputs of 2^10 clients and 2^20 coordinates (Bonawitz et al., CCS 2017: 1.73x): less here."""
    cost = costs(plan(Cohort(2**10, 0.3, 0.05, "semi-honest")), 2**20, 16)
    assert cost.ring_bits == 26
    assert 26 / 16 < cost.expansion < 1.73


def test_trips_follow_the_threat_model() -> None:
    trips = [
        costs(plan(Cohort(500, 0.1, 0.05, kind)), 10, 16).trips
        for kind in ("semi-honest", "semi-malicious", "malicious")
    ]
    assert trips == [4, 5, 6]
