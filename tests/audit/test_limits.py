"""An audit's own time: it ends when it was told to, says what is next, and keeps what it found when it is cut off."""

import gc
import json
import os
import signal
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl.cli import invoke
from protocols.audit import BlackBox, Status, audit, planned
from protocols.audit.limit import Hung, OutOfTime, limited
from protocols.errors import Misuse
from tests.audit.boxes import noise, somebody_stays, sound, summed
from tests.audit.test_command import own


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def slow(seconds: float, wrong: bool = False) -> BlackBox:
    def run(inputs: Any, drop: Any) -> Any:
        time.sleep(seconds)
        total = summed(inputs, drop)
        seen = [(f"client {i}", "server", noise(v, drop)) for i, v in enumerate(inputs)]
        return (total if total is None else total + wrong), seen

    return BlackBox(run, name="slow", tolerated=somebody_stays)


def test_an_audit_ends_in_its_time_and_says_what_it_did_not_get_to() -> None:
    report = audit(slow(0.1), seconds=4.0, only=["exact-sum"], examples=1000)
    assert report.properties[0].status is Status.PASSED
    assert " of 1000 examples, in the 4 s that it may take" in report.properties[0].reason
    report = audit(slow(0.1), seconds=0.15, only=["secrets-are-drawn-in-full"])
    assert report.properties[0].status is Status.NOT_CHECKED
    assert "did not end within the" in report.properties[0].reason
    assert not report.passed


def test_what_was_found_before_the_time_ran_out_is_told() -> None:
    report = audit(slow(0.1, wrong=True), seconds=4.0, only=["exact-sum"], examples=1000)
    assert report.properties[0].status is Status.FAILED
    assert "is not the sum over the survivors" in report.properties[0].reason


def test_an_audit_that_is_interrupted_keeps_its_findings() -> None:
    seen: list[str] = []

    def interrupt(prop: Any, verdict: Any) -> None:
        seen.append(prop.name)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    report = audit(slow(0, wrong=True), examples=5, on_property=interrupt)
    assert [p.status for p in report.properties[:2]] == [Status.FAILED] * 2
    assert report.cut_off[0] == planned(slow(0))[2].name
    assert set(report.cut_off).isdisjoint(p.name for p in report.properties)
    assert report.verdict == "was cut off"
    assert not report.passed
    assert f"{len(report.cut_off)} not reached" in report.closing()


def test_the_command_keeps_a_report_of_what_it_found_until_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import signal\ncalls = []\n"
        "def run(inputs, drop):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 40: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return sound(inputs, drop)\n"
        "def factory(): return BlackBox(run, tolerated=tolerated)"
    )
    kept = tmp_path / "found.json"
    assert invoke(["audit", own(tmp_path, monkeypatch, code), "--report", str(kept)]) == 1
    found = json.loads(kept.read_text())
    assert found["properties"][0]["status"] == "passed"
    assert found["cut_off"]
    printed = capsys.readouterr().out
    assert ": was cut off (black box" in printed
    assert f"not reached: {found['cut_off'][0]}" in printed


def test_progress_tells_how_far_it_is_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = own(tmp_path, monkeypatch, "def factory(): return BlackBox(sound, tolerated=tolerated)")
    only = ["--only", "randomised", "--only", "sizes-say-nothing"]
    assert invoke(["audit", reference, *only, "--limit", "100"]) == 0
    assert "checking  randomised  (1 of 2, 0 s, then sizes-say-nothing)" in capsys.readouterr().out
    assert invoke(["audit", reference, *only, "--limit", "0"]) == 2


def test_what_is_not_visible_is_named_with_what_would_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = own(tmp_path, monkeypatch, "def factory(): return BlackBox(sound, tolerated=tolerated)")
    assert invoke(["audit", reference, "--examples", "2", "--report", str(tmp_path / "seen.md")]) == 0
    printed = capsys.readouterr().out
    assert (
        "not visible: uniform-over-the-ring, views-indistinguishable\n  give BlackBox elements= and modulus="
        in printed
    )
    assert printed.splitlines()[-1].endswith(" not visible; 12 not claimed")
    assert "| uniform-over-the-ring | not-visible |" in (tmp_path / "seen.md").read_text()


def test_a_name_of_a_module_is_printed_as_it_is_and_a_path_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def factory(bound: int = 5): return BlackBox(sound, tolerated=tolerated, bound=bound)"
    reference = own(tmp_path, monkeypatch, code)
    assert invoke(["audit", f"{reference}:bound=9", "--only", "randomised"]) == 0
    assert invoke(["audit", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "\N{FACTORY}" not in printed
    assert "package.module:factory" in " ".join(printed.split())
    module = reference.partition(":")[0]
    for path in (f"{module}.py", f"./{module}.py:factory", str(tmp_path / f"{module}.py:factory:bound=3")):
        assert invoke(["audit", path]) == 2
        said = capsys.readouterr().err
        assert f"is a path, and a module is asked for: write {module}:factory" in said
        assert "privacy layer" not in said


def test_limits_nest_and_the_earlier_one_holds() -> None:
    with pytest.raises(OutOfTime, match=r"0\.2 s"):
        limited(lambda: limited(lambda: time.sleep(9), 5.0), 0.2, OutOfTime)
    with pytest.raises(Hung, match=r"0\.1 s"):
        limited(lambda: limited(lambda: time.sleep(9), 0.1), 5.0, OutOfTime)

    def many() -> None:
        while True:
            limited(lambda: time.sleep(0.03), 1.0)

    began = time.monotonic()
    with pytest.raises(OutOfTime):
        limited(many, 0.3, OutOfTime)
    assert time.monotonic() - began < 10
    with pytest.raises(Misuse, match="seconds"):
        audit(sound(), seconds=-1.0)


def test_an_alarm_that_rings_while_python_collects_garbage_is_raised_after_it() -> None:
    """What a collector's callback or a destructor raises is printed and lost, and fails whatever test runs."""

    def long(*_: Any) -> None:
        over = time.monotonic() + 0.2
        while time.monotonic() < over:
            pass

    class Held:
        def __del__(self) -> None:
            long()

    def collects() -> None:
        gc.collect()
        time.sleep(60)

    def drops() -> None:
        Held()
        time.sleep(60)

    def forgets() -> None:
        weakref.finalize(lambda: None, long)  # its object is gone at once
        time.sleep(60)

    gc.callbacks.append(long)
    try:
        with pytest.raises(Hung):
            limited(collects, 0.1)
    finally:
        gc.callbacks.remove(long)
    for call in (drops, forgets):
        with pytest.raises(Hung):
            limited(call, 0.1)
