"""How an audit ends: what counts as passed, and what is told of crashes, flakes, leavers and odd names."""

import re
import sys
from typing import Any

import numpy as np
import pytest

from protocols.audit import BlackBox, Checked, Report, Status, audit
from protocols.errors import Misuse
from secagg import SecAgg
from tests.audit.boxes import Drop, Inputs, leavers, sound, summed


def leaves_quietly(inputs: Inputs, drop: Drop) -> Any:
    sys.exit(0)


def test_an_adapter_that_exits_has_failed() -> None:
    report = audit(BlackBox(leaves_quietly), only=["exact-sum", "randomised"])
    assert [p.status for p in report.properties] == [Status.FAILED] * 2
    assert "SystemExit" in report.properties[0].reason


def test_a_property_of_another_level_is_misuse() -> None:
    with pytest.raises(Misuse, match=r"fresh-masks is not visible.*give BlackBox.*exact-sum"):
        audit(sound(), only=["fresh-masks"])


def test_nothing_checked_is_not_passed() -> None:
    assert not Report("x", "black", "none", 0, ()).passed
    assert not audit(sound(threat="none"), only=["nothing-in-clear"]).passed


def test_no_examples_are_misuse() -> None:
    with pytest.raises(Misuse, match="examples"):
        audit(sound(), examples=0)


def test_a_crash_is_told_with_its_inputs_and_where_it_was() -> None:
    def crashes(inputs: Inputs, drop: Drop) -> Any:
        if len(inputs) > 4 and leavers(drop):
            raise KeyError("client 3")
        return summed(inputs, drop), []

    promised = BlackBox(crashes, tolerated=lambda n, d: len(leavers(d)) < n)
    [checked] = audit(promised, only=["exact-sum"], examples=40).properties
    assert checked.status is Status.FAILED
    story = str(checked.counterexample)
    assert "KeyError" in story
    assert "client 4 put in [0" in story
    assert "client 5" not in story
    assert "left before input" in story
    assert "test_verdicts.py, line" in story
    assert "--examples 40" in story or "examples=40" in story


def test_the_message_of_an_error_cannot_write_lines_of_the_story() -> None:
    def crashes(inputs: Inputs, drop: Drop) -> Any:
        raise ValueError("a\nReplay: something else")

    [checked] = audit(BlackBox(crashes), only=["no-wrap-at-the-bound"]).properties
    assert checked.reason.endswith("a Replay: something else")
    assert str(checked.counterexample).count("\nReplay:") == 1


def test_a_crash_of_a_white_box_is_told_with_its_inputs() -> None:
    class Crashing(SecAgg):
        def client(self, *arguments: Any, **named: Any) -> Any:
            raise KeyError("client 3")

    from protocols.audit import subject_of

    [checked] = audit(subject_of(Crashing), only=["exact-sum"], examples=3).properties
    assert "client 0 put in [0]" in str(checked.counterexample)


def test_a_finding_that_does_not_repeat_keeps_its_counterexample() -> None:
    calls = [0]

    def flaky(inputs: Inputs, drop: Drop) -> Any:
        calls[0] += 1
        total = summed(inputs, drop)
        return (total if total is None or calls[0] != 3 else total + 1), []

    [checked] = audit(
        BlackBox(flaky, tolerated=lambda n, d: len(leavers(d)) < n), only=["exact-sum"]
    ).properties
    assert checked.status is Status.FAILED
    assert "the total is not the sum" in checked.reason
    assert "did not repeat" in str(checked.counterexample)
    assert "client 0 put in" in str(checked.counterexample)


def test_a_group_of_errors_of_an_adapter_is_a_crash() -> None:
    def several(inputs: Inputs, drop: Drop) -> Any:
        raise ExceptionGroup("two tasks", [ValueError("one"), ValueError("two")])

    [checked] = audit(BlackBox(several), only=["no-wrap-at-the-bound"]).properties
    assert "ExceptionGroup" in checked.reason
    assert "did not repeat" not in str(checked.counterexample)


def test_a_replay_line_repeats_what_was_asked_for() -> None:
    def wrong(inputs: Inputs, drop: Drop) -> Any:
        return np.sum(inputs, axis=0) + 1, []

    subject = BlackBox(wrong, name="my sum")
    [checked] = audit(subject, only=["exact-sum"], examples=7, seed=5).properties
    assert "audit(subject, only=['exact-sum'], examples=7, seed=5)" in str(checked.counterexample)
    subject.reference = "my module:factory"
    [checked] = audit(subject, only=["exact-sum"], examples=7, seed=5).properties
    line = str(checked.counterexample).splitlines()[-1]
    assert line == "Replay: secagg audit 'my module:factory' --only exact-sum --examples 7 --seed 5"


STORY = "said\n```\n# injected heading\n````\n<script>alert(1)</script>"


def test_markdown_shows_what_a_protocol_says_and_takes_no_part_of_it() -> None:
    checked = Checked("exact-sum", "It sums.", "none", Status.FAILED, "<script> `a` | b", 1, 0.1, STORY)
    written = Report("mine <b>\n# other", "black", "none", 0, (checked,)).to_markdown()
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", written, flags=re.DOTALL | re.MULTILINE)
    assert f"`````\n{STORY}\n`````" in written
    assert "<" not in outside
    assert not re.search(r"^# (injected|other)", outside, re.MULTILINE)
    assert r"&lt;script&gt; \`a\` \| b |" in outside


def test_html_escapes_the_same() -> None:
    checked = Checked("exact-sum", "It sums.", "none", Status.FAILED, "<script>", 1, 0.1, STORY)
    assert "<script" not in Report("<b>", "black", "none", 0, (checked,)).to_html()


def test_a_sound_sum_leaves_no_alarm_behind() -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    assert audit(sound(), only=["exact-sum"], examples=2).passed
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
