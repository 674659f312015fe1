"""`secagg audit`, the reports it leaves, and the class that turns properties into tests."""

import json
import shlex
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


RUN = """
import os
from protocols.audit import BlackBox

def sound(inputs, drop):
    gone = {i for who in drop.values() for i in who}
    kept = [v for i, v in enumerate(inputs) if i not in gone]
    seen = [(f"client {i}", "server", os.urandom(8 * len(v) + 2000)) for i, v in enumerate(inputs)]
    return (sum(kept) if kept else None), seen

def tolerated(clients, drop):
    return sum(map(len, drop.values())) < clients

"""


def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """Writes a module beside the tests and returns the reference of its `factory`."""
    name = f"own_{abs(hash((str(tmp_path), code)))}"
    (tmp_path / f"{name}.py").write_text(RUN + code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:factory"


@pytest.mark.parametrize(
    "code, said",
    [
        ("def factory(): raise RuntimeError('no config')", "no config"),
        ("def factory(): raise SystemExit(0)", "SystemExit"),
        ("raise SystemExit(0)", "SystemExit"),
        ("def factory(): return BlackBox(sound, threat='honest-but-curious')", "semi-honest"),
        ("def factory(): return BlackBox(lambda inputs, drop: (None, [(0, 'server', b'')]))", "contract"),
        ("def factory(): return 3", "expected a SecureSum"),
    ],
)
def test_what_gives_nothing_to_audit_is_one_sentence(
    code: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["audit", own(tmp_path, monkeypatch, code), "--examples", "2"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.splitlines()) == 1


def test_a_name_with_markup_is_printed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = own(
        tmp_path,
        monkeypatch,
        "def factory(): return BlackBox(sound, name='my [/red] [bold]sum[/bold]', tolerated=tolerated)",
    )
    assert invoke(["audit", reference, "--examples", "2"]) == 0
    assert "my [/red] [bold]sum[/bold]: passed what can be seen of it" in capsys.readouterr().out


@pytest.mark.parametrize("code, exit_code", [("tolerated=tolerated", 0), ("", 1)])
def test_what_a_protocol_prints_does_not_reach_the_json(
    code: str,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    talks = (
        "def loud(inputs, drop):\n    print('hello'); os.system('echo there'); return sound(inputs, drop)\n"
    )
    reference = own(
        tmp_path, monkeypatch, f"{talks}def factory(): print('made'); return BlackBox(loud, {code})"
    )
    arguments = ["--only", "exact-sum", "--only", "randomised", "--json", "--examples", "2"]
    assert invoke(["audit", reference, *arguments]) == exit_code
    printed = capfd.readouterr()
    assert json.loads(printed.out)["passed"] is (exit_code == 0)
    assert {"hello", "there", "made"} <= set(printed.err.splitlines())


def test_a_replay_line_is_one_line_that_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wrong = "def wrong(inputs, drop): return sum(inputs) + len(inputs) // 5, []\n"
    reference = own(
        tmp_path, monkeypatch, f"{wrong}def factory(): return BlackBox(wrong, name='my sum', clients=(3, 8))"
    )
    only = ["--only", "no-wrap-at-the-bound"]
    assert invoke(["audit", reference, *only, "--examples", "31", "--seed", "12345"]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Replay: ")]
    assert line == f"Replay: secagg audit {reference} {' '.join(only)} --examples 31 --seed 12345"
    assert invoke(shlex.split(line.removeprefix("Replay: secagg "))) == 1


def test_a_property_that_a_black_box_does_not_show_is_refused_with_what_would_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = own(tmp_path, monkeypatch, "def factory(): return BlackBox(sound)")
    assert invoke(["audit", reference, "--only", "uniform-over-the-ring"]) == 2
    assert "give BlackBox elements= and modulus=" in capsys.readouterr().err
    assert invoke(["audit", reference, "--only", "state-is-data"]) == 2
    assert "SecureSum" in capsys.readouterr().err


def test_the_time_limit_is_the_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hangs = "import time\ndef hangs(inputs, drop): time.sleep(1000)\n"
    reference = own(tmp_path, monkeypatch, f"{hangs}def factory(): return BlackBox(hangs)")
    assert invoke(["audit", reference, "--only", "exact-sum", "--timeout", "0.4"]) == 1
    assert "within 0.4 s" in capsys.readouterr().out
    assert invoke(["audit", reference, "--timeout", "0"]) == 2
    assert invoke(["audit", "secagg", "--timeout", "3"]) == 2


def test_options_of_an_own_factory_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = own(
        tmp_path, monkeypatch, "def factory(bound: int = 5): return BlackBox(sound, name=f'up to {bound}')"
    )
    assert invoke(["audit", f"{reference}:bound=9", "--only", "randomised"]) == 0
    assert "up to 9" in capsys.readouterr().out
    assert invoke(["audit", f"{reference}:bond=9", "--only", "randomised"]) == 2


def test_the_property_in_progress_is_seen_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["audit", "secagg", "--only", "exact-sum", "--examples", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["checking", "exact-sum", "(1", "of", "1,", "0", "s)"]
    assert lines[1].endswith("exact-sum: passed")


@pytest.mark.parametrize("name", ["secagg", "secagg+"])
def test_the_malicious_model_is_audited_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["exact-sum", "forged-requests-refused"]
    only = [word for one in names for word in ("--only", one)]
    assert invoke(["audit", f"{name}:threat=malicious", *only, "--examples", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["threat"] == "malicious"
    assert [p["status"] for p in result["properties"]] == ["passed", "passed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["secagg", "secagg+"])
def test_the_malicious_model_passes_whole(name: str) -> None:
    assert invoke(["audit", f"{name}:threat=malicious", "--json"]) == 0


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
    assert {p.name for p in report.properties} == {p.name for p in PROPERTIES}
    checked = {
        p.name for p in report.properties if p.status in (Status.PASSED, Status.FAILED, Status.NOT_CHECKED)
    }
    assert checked <= {p.name for p in PROPERTIES if p.level == "black"}


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
