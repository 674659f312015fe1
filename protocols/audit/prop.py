"""What a property is, and what it finds. No property lives here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THREATS = ("none", "semi-honest", "semi-malicious", "malicious")


class Finding(AssertionError):  # it is what an audit finds, not an error of ours
    """A counterexample, as a short story: who sent what, what leaked, how to replay it."""


class NotChecked(Exception):  # a verdict, not an error
    """The property cannot be checked on this subject; the reason is the message."""


@dataclass(frozen=True)
class Property:
    """One claim.

    name: as on the command line. claim: one sentence. literature: the name the literature gives it. threat:
    the weakest threat model that promises it. level: "black" or "white", the adapter it needs. check:
    (subject, draw) -> None, raising Finding; draw is hypothesis' `data()` object. statistical: it draws no
    examples of its own; effect size, power and false-alarm rate are stated in `statistics`. most: a cap on
    the number of examples. search: an adversary that plans; it draws no examples, and runs only where it is asked for.
    """

    name: str
    claim: str
    literature: str
    threat: str
    level: str
    check: Callable[[Any, Any], None]
    statistical: bool = False
    statistics: str = ""
    most: int | None = None
    search: bool = False
