"""What a property is, and what it finds. No property lives here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THREATS = ("none", "semi-honest", "semi-malicious", "malicious")


class Finding(AssertionError):  # it is what an audit finds, not an error of ours
    """A counterexample, as a short story: who sent what, what leaked, how to replay it."""


class NotChecked(Exception):  # a verdict, not an error
    """The property cannot be checked on this subject; the reason is the message."""


Check = Callable[[Any, Any], None]
"""(subject, draw) -> None, raising Finding; draw is hypothesis' `data()` object."""


@dataclass(frozen=True)
class Property:
    """One claim.

    name: as on the command line. claim: one sentence. literature: the name the literature gives it. threat: the weakest
    threat model that promises it. level: "black" or "white", the adapter it needs. statistics: effect size, power and
    false-alarm rate of a check that draws no examples of its own ("" for any other). most: a cap on the number of
    examples. search: an adversary that plans; it draws no examples, and runs only where it is asked for.
    """

    name: str
    claim: str
    literature: str
    threat: str
    level: str
    check: Check
    statistics: str = ""
    most: int | None = None
    search: bool = False

    @property
    def statistical(self) -> bool:
        """Whether it draws no examples of its own."""
        return bool(self.statistics)


def promised(
    threat: str, literature: str, *, level: str = "white", outside: Check | None = None, **more: Any
) -> Callable[[Check], Property]:
    """Make a check a property: its name is the function's, its claim the first paragraph of the docstring.

    outside: how a black box is checked instead. The rest as in `Property`.
    """

    def make(check: Check) -> Property:
        def by_level(subject: Any, data: Any) -> None:
            (outside if outside and subject.level == "black" else check)(subject, data)

        claim = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        return Property(check.__name__.replace("_", "-"), claim, literature, threat, level, by_level, **more)

    return make
