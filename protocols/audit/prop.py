"""What a property is, and what it finds. No property lives here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Finding(AssertionError):  # it is what an audit finds, not an error of ours
    """A counterexample, as a short story: who sent what, what leaked, how to replay it."""


class NotChecked(Exception):  # a verdict, not an error
    """The property cannot be checked on this subject; the reason is the message."""


class NotVisible(NotChecked):
    """A black box does not show what the property is about; the message says what its adapter would have to give."""


Check = Callable[[Any, Any], None]
"""(subject, draw) -> None, raising Finding; draw is hypothesis' `data()` object."""


@dataclass(frozen=True)
class Property:
    """One claim.

    name: as on the command line. claim: one sentence. literature: the name the literature gives it. threat: the weakest
    threat model that promises it. pieces: names of what an adapter of a black box must give, in words with a space
    between; any one of them will do ("": nothing; none at all: only a white box will do). statistics: effect size,
    power and false-alarm rate of a check that draws no examples of its own ("" for any other). most: a cap on the
    number of examples. search: an adversary that plans; it draws no examples, and runs only where it is asked for.
    """

    name: str
    claim: str
    literature: str
    threat: str
    pieces: tuple[str, ...]
    check: Check
    statistics: str = ""
    most: int | None = None
    search: bool = False

    @property
    def statistical(self) -> bool:
        """Whether it draws no examples of its own."""
        return bool(self.statistics)

    @property
    def level(self) -> str:
        """The adapter it needs: "black" where any will do, else "white"."""
        return "black" if "" in self.pieces else "white"

    def hidden(self, subject: Any) -> str:
        """Why it cannot be seen in a subject, and what would show it; "" where it can be seen."""
        if subject.level == "white" or any(set(one.split()) <= set(subject.given) for one in self.pieces):
            return ""
        wanted = [" and ".join(f"{name}=" for name in one.split()) for one in self.pieces]
        return f"give BlackBox {', or '.join(wanted)}" if wanted else WHOLE


WHOLE = "give the whole protocol, as a protocols.SecureSum"


def promised(
    threat: str, literature: str, *, pieces: tuple[str, ...] = (), outside: Check | None = None, **more: Any
) -> Callable[[Check], Property]:
    """Make a check a property: its name is the function's, its claim the first paragraph of the docstring.

    outside: how a black box is checked instead. The rest as in `Property`.
    """

    def make(check: Check) -> Property:
        def by_level(subject: Any, data: Any) -> None:
            (outside if outside and subject.level == "black" else check)(subject, data)

        claim = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        return Property(check.__name__.replace("_", "-"), claim, literature, threat, pieces, by_level, **more)

    return make
