"""`secagg choose`: the page's scenarios against what was measured, why stacks fall away, and TOML that runs."""

import inspect
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.tradeoff.choices import PATH, written
from fl.choose import Case, choose
from fl.choose.stacks import HIDES_FROM, LAYERS, STACKS, fallen, reasons
from fl.cli import invoke
from protocols.errors import Misuse

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "choose.md").read_text()
SCENARIOS = re.findall(
    r"^### (\d+)\..*?^secagg (choose [^\n]*)$.*?^Fits: ([^\n]*)$", PAGE, re.DOTALL | re.MULTILINE
)
NAMED_IN_RESULTS = {"ckks": "ckks-keyholder", "paillier": "paillier-keyholder"}
TOLD_APART = 0.02
"""Shares of accuracy: as the page says."""


def answered(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert invoke(shlex.split(command)) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def measured(stack: str, epsilon: str) -> tuple[float, ...]:
    """Of a stack, from results alone: accuracy lost, bytes per value, seconds, trips."""
    layer, _, total = stack.partition(" behind ")
    total = total.partition(":")[0]
    (compared,) = harness.read_all("he.compare-100000x10")
    cost = next(r for r in compared.figures["rows"] if r["protocol"] == NAMED_IN_RESULTS.get(total, total))
    return 1 - accuracy(layer, epsilon), cost["upload_bytes_per_value"], cost["client_s"], cost["trips"]


def accuracy(layer: str, epsilon: str) -> float:
    """What a layer kept of the accuracy without noise: FEMNIST's writers, and the sweeps for examples."""
    if layer == "none":
        return 1.0
    (kept,) = harness.read_all("tradeoff.stacks" if layer == "sample-dp" else "dp.femnist")
    rows = kept.figures["rows"]
    found = [row for row in rows if row["layer"] == layer and row["epsilon"] == float(epsilon)]
    of = found[0].get("data")
    best = next(row["accuracy"] for row in rows if row["epsilon"] is None and row.get("data") == of)
    return float(found[0]["accuracy"] / best)


def front(stacks: list[str], epsilon: str) -> set[str]:
    """Those that no other beats: no less accuracy, as far as can be told apart, no more of any cost, less of one."""
    points = {stack: measured(stack, epsilon) for stack in stacks}

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        no_worse = one[0] <= other[0] + TOLD_APART and all(
            a <= b for a, b in zip(one[1:], other[1:], strict=True)
        )
        return no_worse and (one[0] < other[0] - TOLD_APART or one[1:] != other[1:])

    return {
        name for name, point in points.items() if not any(beats(other, point) for other in points.values())
    }


def test_of_ten_scenarios_nine_get_a_stack_on_the_measured_front(capsys: pytest.CaptureFixture[str]) -> None:
    assert [number for number, *_ in SCENARIOS] == [str(number) for number in range(1, 11)]
    right = {}
    for number, command, fits in SCENARIOS:
        told = answered(command, capsys)
        named = [choice["stack"] for choice in told["choices"]]
        assert 1 <= len(named) <= 3
        assert set(named) <= set(fits.split("; ")), f"scenario {number}: a stack that does not fit"
        epsilon = re.findall(r"--epsilon (\S+)", command)[0]
        right[number] = bool(set(named[:1]) & front(fits.split("; "), epsilon))
    assert sum(right.values()) >= 9, right


def test_every_stack_is_named_or_fell_away_with_a_reason() -> None:
    answer = choose(Case(epsilon=4.0, clients=300))
    named = {choice.stack.name for choice in answer.choices}
    assert named | set(answer.fallen) == {stack.name for stack in STACKS}
    assert not named & set(answer.fallen)
    assert len(STACKS) == len(LAYERS) * len(HIDES_FROM)


CASES = [
    Case(trust=trust, epsilon=epsilon, person=person, clients=clients)
    for trust in ("server", "honest", "holder", "nobody")
    for epsilon in (None, 4.0)
    for person in ("client", "example")
    for clients in (2, 100)
]


def test_every_rule_takes_some_stack_away() -> None:
    assert inspect.getsource(reasons).count("yield ") == 10
    assert len({fallen(stack, case) for stack in STACKS for case in CASES} - {None}) == 10


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_rule_takes_all_stacks_away(case: Case) -> None:
    assert not set.intersection(*(set(reasons(stack, case)) for stack in STACKS))


def test_no_stack_is_named_that_lets_a_server_read_what_it_must_not() -> None:
    for trust in ("honest", "holder", "nobody"):
        for epsilon in (None, 4.0):
            for choice in choose(Case(trust=trust, epsilon=epsilon, clients=200)).choices:
                told = " ".join(choice.statement)
                assert choice.stack.sum != "none" or choice.stack.layer in ("local-dp", "sample-dp")
                assert "not the server" not in told
                if trust == "nobody" and choice.stack.sum != "none":
                    assert "malicious" in told


def test_a_plan_that_is_not_safe_and_a_link_that_is_too_slow_say_so() -> None:
    many_leave = choose(Case(trust="holder", clients=100, dropout=0.6))
    assert "infeasible" in many_leave.fallen["none behind secagg+"]
    assert all(
        choice.stack.sum in ("ckks", "paillier:arrangement=keyholder") for choice in many_leave.choices
    )
    slow = choose(Case(trust="holder", clients=100, parameters=10**6, link=2.0, device="phone"))
    assert "more than 60 s" in slow.fallen["none behind paillier:arrangement=keyholder"]
    with pytest.raises(
        Misuse, match=r"no stack fits. none behind secagg\+ comes nearest: .* MB a round.*--wait \d+"
    ):
        choose(Case(clients=100, parameters=10**9, link=0.1))
    with pytest.raises(Misuse, match=r"no stack fits. none behind secagg\+: infeasible") as found:
        choose(Case(clients=100, dropout=0.9))
    assert str(found.value).count("infeasible") == 1


def test_a_stack_whose_noise_drowns_the_model_says_so() -> None:
    few, many = (choose(Case(epsilon=e, clients=n)).choices[0] for e, n in ((0.1, 10), (8.0, 2000)))
    assert "larger epsilon" in str(few.warning)
    assert many.warning is None


def test_answers_out_of_range_are_named() -> None:
    with pytest.raises(Misuse, match="trust: expected one of server"):
        Case(trust="me")
    for name, value in (
        ("clients", 100.5),
        ("clients", True),
        ("rounds", "3"),
        ("link", "fast"),
        ("epsilon", "8"),
    ):
        with pytest.raises(Misuse, match=f"{name}: expected a "):
            Case(**{name: value})  # type: ignore[arg-type]


STACK_OF = {
    choice.stack.name: choice.toml
    for trust in ("server", "honest", "holder", "nobody")
    for epsilon in (None, 8.0)
    for person in ("client", "example")
    for choice in choose(Case(trust=trust, epsilon=epsilon, person=person, clients=5)).choices
}


@pytest.mark.parametrize("stack", sorted(STACK_OF))
def test_the_toml_of_a_stack_runs(stack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "choice.toml").write_text(STACK_OF[stack])
    asked = [
        "run",
        str(tmp_path / "choice.toml"),
        "--rounds",
        "1",
        "--output",
        str(tmp_path / "run"),
        "--json",
    ]
    assert invoke(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert bool(told["guarantees"]) == (not stack.startswith("none "))


def test_it_asks_what_is_not_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("honest\n300\n1000\n10\n0.1\n8\nclient\nlaptop\n"))
    assert invoke(["choose", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Whom do the clients trust? (server, honest, holder, nobody)" in told
    assert "1. distributed-dp behind secagg+" in told
    assert "The others fell away:" in told
    assert 'privacy = [\n    "distributed-dp:epsilon=8"' in (tmp_path / "stack-1.toml").read_text()


def test_where_nobody_can_answer_it_says_which_option_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("honest\n300\n"))
    assert invoke(["choose"]) == 2
    assert "nobody is there to answer: give --parameters, or --json" in capsys.readouterr().err


def test_the_packaged_table_is_that_of_the_results() -> None:
    assert PATH.read_text() == written()
