"""The class that turns properties into tests: whose settings hold, and what fails a test."""

from typing import Any

import pytest
from hypothesis import settings

from protocols.audit import PROPERTIES, BlackBox, SecureSumAudit
from protocols.errors import Misuse
from tests.audit.boxes import Drop, Inputs, sound, summed

FAILED = pytest.fail.Exception
SKIPPED = pytest.skip.Exception


class Counting(SecureSumAudit):
    played = 0

    @staticmethod
    def protocol() -> BlackBox:
        box = sound()
        inner = box.run

        def run(inputs: Inputs, drop: Drop) -> Any:
            Counting.played += 1
            return inner(inputs, drop)

        box.run = run
        return box

    def sum(self) -> int:
        """How many sessions one property played."""
        Counting.played = 0
        self.test_exact_sum()  # type: ignore[attr-defined]  # a test per property, set on the class
        return Counting.played


def test_settings_of_the_class_and_of_the_profile_hold() -> None:
    class Many(Counting):
        settings = settings(max_examples=120)

    class Few(Many):
        examples = 3

    settings.register_profile("sixty", max_examples=60)
    before = settings.get_current_profile_name()
    try:
        settings.load_profile("sixty")
        assert Counting().sum() == 60
        assert Many().sum() == 120
        assert Few().sum() == 3
    finally:
        settings.load_profile(before)


@pytest.mark.parametrize(
    "name, value",
    [
        ("examples", 0),
        ("examples", "3"),
        ("settings", 300),
        ("accept_not_checked", ["nothing"]),
        ("accept_not_checked", "exact-sum"),
    ],
)
def test_wrong_attributes_are_misuse(name: str, value: object) -> None:
    wrong = type("Wrong", (Counting,), {name: value})
    with pytest.raises(Misuse):
        wrong().test_exact_sum()


def test_a_class_without_a_protocol_is_misuse() -> None:
    with pytest.raises(Misuse, match="protocol = factory"):
        SecureSumAudit().test_exact_sum()  # type: ignore[attr-defined]


def silent(inputs: Inputs, drop: Drop) -> Any:
    return summed(inputs, drop), []


def test_what_was_not_checked_fails_unless_it_is_accepted() -> None:
    class Silent(SecureSumAudit):
        protocol = BlackBox(silent)
        examples = 3
        test_exact_sum: Any
        test_randomised: Any

    class Accepting(Silent):
        accept_not_checked = ("randomised",)

    with pytest.raises(FAILED, match=r"not-checked: .*\n.*accept_not_checked"):
        Silent().test_randomised()
    with pytest.raises(SKIPPED, match="not-checked"):
        Accepting().test_randomised()
    with pytest.raises(FAILED, match="tolerated="):
        Accepting().test_exact_sum()


def test_a_failure_tells_its_story() -> None:
    def wrong(inputs: Inputs, drop: Drop) -> Any:
        return sum(inputs) + 1, []

    class Wrong(SecureSumAudit):
        protocol = BlackBox(wrong)
        test_exact_sum: Any

    with pytest.raises(FAILED, match="client 0 put in"):
        Wrong().test_exact_sum()


def test_what_a_level_or_a_threat_model_does_not_have_is_skipped() -> None:
    class Plain(SecureSumAudit):
        protocol = sound(threat="none")

    for name in ("fresh-masks", "nothing-in-clear"):
        with pytest.raises(SKIPPED):
            getattr(Plain(), f"test_{name.replace('-', '_')}")()
    assert all(hasattr(Plain, f"test_{p.name.replace('-', '_')}") for p in PROPERTIES)
