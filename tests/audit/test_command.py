"""`secagg audit`, the reports it leaves, and the class that turns properties into tests."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fl.cli import invoke
from protocols.audit import PROPERTIES, BlackBox, SecureSumAudit, Status, audit, subject_of
from protocols.errors import Misuse
from secagg import SecAgg

BROKEN = """
import numpy as np
from protocols.audit import BlackBox

def run(inputs, drop):
    gone = {i for who in drop.values() for i in who}
    kept = [v for i, v in enumerate(inputs) if i not in gone]
    total = sum(kept) if kept else None
    return total, [(f"client {i}", "server", v.tobytes()) for i, v in enumerate(inputs) if i not in gone]

def factory():
    return BlackBox(run, name="in clear")
"""


def test_json_has_the_promised_keys_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["exact-sum", "nothing-in-clear"]
    assert (
        invoke(["audit", "secagg", "--examples", "3", *(a for n in names for a in ("--only", n)), "--json"])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= {"protocol", "level", "properties", "passed"}
    assert [p["name"] for p in result["properties"]] == names
    keys = {"name", "claim", "status", "reason", "examples", "seconds", "counterexample"}
    assert all(set(p) >= keys and p["status"] == "passed" for p in result["properties"])


def test_a_users_own_protocol_is_audited_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_protocol.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    reports = [f"--report={tmp_path / name}" for name in ("evidence.md", "evidence.html", "evidence.json")]
    assert invoke(["audit", "my_protocol:factory", "--examples", "5", *reports]) == 1
    printed = capsys.readouterr().out
    assert "nothing-in-clear" in printed
    assert "in clear carries a client's value" in printed
    assert "Replay: secagg audit" in printed
    assert "a message in clear" in (tmp_path / "evidence.md").read_text()
    assert "<table>" in (tmp_path / "evidence.html").read_text()
    assert json.loads((tmp_path / "evidence.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["audit", "secgag"], "secagg"),
        (["audit", "secagg", "--only", "everything"], "no property"),
        (["audit", "client-dp:noise_multiplier=1"], "not a secure sum"),
        (["audit", "secagg", "--report", "evidence.pdf"], ".md, .html or .json"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == 2
    assert said in capsys.readouterr().err


def test_what_a_weaker_model_does_not_promise_is_not_claimed() -> None:
    from protocols import PlainSum

    report = audit(subject_of(PlainSum), examples=2)
    by_name = {p.name: p.status for p in report.properties}
    assert by_name["nothing-in-clear"] is Status.NOT_CLAIMED
    assert by_name["exact-sum"] is Status.PASSED
    assert report.passed


def test_what_was_not_checked_comes_first_and_fails_the_audit() -> None:
    from protocols.audit_hooks import Hooks

    class Silent(SecAgg):
        audit_hooks = Hooks()  # type: ignore[assignment]  # it says nothing about itself

    report = audit(subject_of(Silent), only=["exact-sum", "uniform-over-the-ring"], examples=2)
    assert report.ordered()[0].status is Status.NOT_CHECKED
    assert not report.passed


def test_a_counterexample_shrinks_and_replays() -> None:
    def wrong(inputs: list[np.ndarray], drop: Mapping[str, set[int]]) -> tuple[np.ndarray | None, list]:
        kept = [v for i, v in enumerate(inputs) if not any(i in who for who in drop.values())]
        total = np.sum(kept, axis=0) if kept else None
        if total is not None and len(kept) > 3:
            total[0] += 1
        return total, []

    reports = [audit(BlackBox(wrong, name="off by one"), only=["exact-sum"], seed=3) for _ in range(2)]
    stories = [r.properties[0].counterexample for r in reports]
    assert stories[0] == stories[1]
    assert stories[0] is not None
    assert "client 3 put in [0]" in stories[0]
    assert "client 4" not in stories[0]


def test_a_black_box_is_checked_for_what_a_black_box_shows() -> None:
    report = audit(
        subject_of(lambda: BlackBox(lambda inputs, drop: (sum(inputs), []), name="opaque")), examples=2
    )
    assert report.level == "black"
    assert {p.name for p in report.properties} == {p.name for p in PROPERTIES if p.level == "black"}


def test_what_cannot_be_audited_is_misuse() -> None:
    with pytest.raises(Misuse, match="expected a SecureSum"):
        subject_of(3)


class TestSecAggAsAUserWould(SecureSumAudit):
    protocol = SecAgg
    examples = 3


def test_the_class_has_a_test_per_property() -> None:
    tests: list[Callable[..., None]] = [
        getattr(TestSecAggAsAUserWould, f"test_{p.name.replace('-', '_')}") for p in PROPERTIES
    ]
    assert len(tests) == len(PROPERTIES)
