"""In a test file: `class TestMine(SecureSumAudit): protocol = factory`, and pytest runs every property."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar

from hypothesis import settings as hypothesis_settings

from protocols.audit.prop import Property
from protocols.audit.registry import PROPERTIES, find
from protocols.audit.report import Status
from protocols.audit.runner import check
from protocols.audit.subject import Subject, subject_of
from protocols.errors import Misuse


class SecureSumAudit:
    """Inherit, set `protocol` to a factory (a class, a function, or any Subject); every property becomes a
    test.

    settings: hypothesis' settings, `settings(max_examples=300)`; None takes the profile that is loaded. Its number
    of examples, phases and verbosity hold; there is no deadline and no database. (`@settings` above a class is
    refused by hypothesis itself.) examples: per property, at least 1, in the place of the settings' number.
    seed: of the examples. accept_not_checked: names of properties that may stay unchecked: they are skipped with
    their reason; any other that is not checked fails. search: let an adversary plan too (minutes).
    Raises Misuse for wrong values of these.
    """

    protocol: ClassVar[Any]
    settings: ClassVar[hypothesis_settings | None] = None
    examples: ClassVar[int | None] = None
    seed: ClassVar[int] = 0
    accept_not_checked: ClassVar[Collection[str]] = ()
    search: ClassVar[bool] = False
    _subject: ClassVar[Subject | None] = None

    @classmethod
    def subject(cls) -> Subject:
        if cls.__dict__.get("_subject") is None:
            made = getattr(cls, "protocol", None)
            if made is None:
                raise Misuse(f"{cls.__name__} has no protocol: set `protocol = factory` in the class")
            cls._subject = subject_of(made)
        assert cls._subject is not None
        return cls._subject

    @classmethod
    def rules(cls) -> hypothesis_settings:
        """The settings that hold, with the number of examples. Raises Misuse."""
        chosen = cls.settings or hypothesis_settings()
        if not isinstance(chosen, hypothesis_settings):
            raise Misuse(f"{cls.__name__}.settings: expected hypothesis.settings(...), got {chosen!r}")
        if cls.examples is None:
            return chosen
        if not isinstance(cls.examples, int) or cls.examples < 1:
            raise Misuse(f"{cls.__name__}.examples: expected at least 1 or None, got {cls.examples!r}")
        return hypothesis_settings(chosen, max_examples=cls.examples)

    @classmethod
    def accepts(cls, prop: Property) -> bool:
        """Whether a property may stay unchecked. Raises Misuse where a name of the class is no property's."""
        if isinstance(cls.accept_not_checked, str):
            raise Misuse(f"{cls.__name__}.accept_not_checked: expected names, got {cls.accept_not_checked!r}")
        return prop in [find(name) for name in cls.accept_not_checked]


def _test(prop: Property) -> Callable[[SecureSumAudit], None]:
    def test(self: SecureSumAudit) -> None:
        import pytest

        subject, rules, accepted = self.subject(), self.rules(), self.accepts(prop)
        if hidden := prop.hidden(subject):
            pytest.skip(f"not visible in a black box: {hidden}")
        if prop.search and not self.search:
            pytest.skip("not examined: set `search = True` in the class")
        verdict = check(subject, prop, rules.max_examples, self.seed, rules)
        said = f"{verdict.status.value}: {verdict.reason}"
        if verdict.status in (Status.NOT_CLAIMED, Status.NOT_VISIBLE) or (
            verdict.status is Status.NOT_CHECKED and accepted
        ):
            pytest.skip(said)
        if verdict.status is not Status.PASSED:
            pytest.fail(verdict.counterexample or f"{said}\nTo accept that, name it in accept_not_checked.")

    test.__doc__ = prop.claim
    return test


for _prop in PROPERTIES:
    setattr(SecureSumAudit, f"test_{_prop.name.replace('-', '_')}", _test(_prop))
