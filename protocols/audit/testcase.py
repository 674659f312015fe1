"""In a test file: `class TestMine(SecureSumAudit): protocol = factory`, and pytest runs every property."""

from collections.abc import Callable
from typing import Any, ClassVar

from protocols.audit.prop import Property
from protocols.audit.registry import PROPERTIES
from protocols.audit.report import Status
from protocols.audit.runner import DEFAULT_EXAMPLES, check
from protocols.audit.subject import Subject, subject_of


class SecureSumAudit:
    """Inherit, set `protocol` to a factory (a class, a function, or any Subject); every property becomes a
    test.

    examples: per property; None takes hypothesis' `settings.default.max_examples`, capped at the audit's
    default. accept_not_checked: names of properties that may stay unchecked; any other is reported as
    skipped with its reason.
    """

    protocol: ClassVar[Any]
    examples: ClassVar[int | None] = None
    seed: ClassVar[int] = 0
    _subject: ClassVar[Subject | None] = None

    @classmethod
    def subject(cls) -> Subject:
        if cls.__dict__.get("_subject") is None:
            made = cls.__dict__.get("protocol", cls.protocol)
            cls._subject = subject_of(made.__func__ if isinstance(made, staticmethod) else made)
        assert cls._subject is not None
        return cls._subject


def _test(prop: Property) -> Callable[[SecureSumAudit], None]:
    def test(self: SecureSumAudit) -> None:
        import pytest
        from hypothesis import settings

        subject = self.subject()
        if prop.level == "white" and subject.level == "black":
            pytest.skip("needs a white-box adapter")
        examples = self.examples or min(settings().max_examples, DEFAULT_EXAMPLES)
        verdict = check(subject, prop, examples, self.seed)
        if verdict.status in (Status.NOT_CHECKED, Status.NOT_CLAIMED):
            pytest.skip(f"{verdict.status.value}: {verdict.reason}")
        assert verdict.status is Status.PASSED, verdict.counterexample

    test.__doc__ = prop.claim
    return test


for _prop in PROPERTIES:
    setattr(SecureSumAudit, f"test_{_prop.name.replace('-', '_')}", _test(_prop))
