"""Who holds the secret key, as types. No mathematics of any scheme belongs here, and no key.

The arrangement is part of a sum's type and of its statement, because it decides who can read single
updates: `Threshold` nobody alone, `KeyHolder` one party apart from the aggregator, `SharedByClients` every
client.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from protocols.agreement import quorum, tolerated
from protocols.errors import Misuse, require
from protocols.identity import Roster

MAX_HOLDERS = 100
TO_SERVER = "server"
_FOR = "keyholder-for-"
_THRESHOLD = re.compile(r"threshold-(\d+)-of-(\d+)(?:-corrupt-(\d+))?", re.ASCII)


@dataclass(frozen=True)
class Threshold:
    """No single holder of the key: any `t` of `n` decryptors open a sum together.

    - t: decryptors that open a sum, 1 to n (default: 3).
    - n: decryptors, t to 100 (default: 4).
    - dealer: names the party that makes the key, hands out the shares and forgets it. It is trusted to do so, and
      the statement says that (default: "key dealer").
    - corrupt: the most decryptors that may work with the server, 0 to t - 1. More of them need more to agree on
      what is opened: `quorum` (default: -1, the most with which t decryptors, or more than half, are enough to
      agree).

    Raises Misuse for a value out of range.

        Threshold()                  # 3 of 4: one may be away, one may be corrupt
        Threshold(2, 3)              # one may be away, none may be corrupt
        Threshold(2, 3, corrupt=1)   # one may be corrupt, all three must agree
    """

    t: int = 3
    n: int = 4
    dealer: str = "key dealer"
    corrupt: int = -1

    def __post_init__(self) -> None:
        whole = all(type(number) is int for number in (self.t, self.n))
        if not whole or not 1 <= self.t <= self.n <= MAX_HOLDERS:
            raise Misuse(f"expected 1 <= t <= n <= {MAX_HOLDERS} holders, got t={self.t!r}, n={self.n!r}")
        require(self.dealer.strip(), "the name of the dealer who makes the key", "an empty one")
        if self.corrupt == -1:
            object.__setattr__(self, "corrupt", self._usual)
        if type(self.corrupt) is not int or not 0 <= self.corrupt < self.t:
            raise Misuse(
                f"expected 0 to {self.t - 1} corrupt decryptors, got {self.corrupt!r}: {self.t} of them open everything"
            )

    @property
    def _usual(self) -> int:
        return min(self.t - 1, tolerated(self.n, max(self.t, self.n // 2 + 1)))

    @property
    def quorum(self) -> int:
        """How many decryptors must agree on the contributions before any of them decrypts."""
        return quorum(self.n, self.corrupt)

    def __str__(self) -> str:
        extra = "" if self.corrupt == self._usual else f"-corrupt-{self.corrupt}"
        return f"threshold-{self.t}-of-{self.n}{extra}"


@dataclass(frozen=True)
class KeyHolder:
    """One party apart from the aggregator holds the key; it opens aggregates only, each session once.

    - name: of that party (default: "key holder").
    - recipients: to whom it gives the opened sum: "server", which is always one, and clients by their names in the
      roster, each of whom gets it sealed from end to end (default: the server alone).

    Raises Misuse for an empty name, and for recipients that are not distinct names with "server" among them.

        CKKSSum(KeyHolder(recipients=("server", "a")))
    """

    name: str = "key holder"
    recipients: tuple[str, ...] = (TO_SERVER,)

    def __post_init__(self) -> None:
        require(self.name.strip(), "the key holder's name", "an empty one")
        object.__setattr__(self, "recipients", _recipients(self.recipients))

    @property
    def clients(self) -> tuple[str, ...]:
        """The recipients besides the server, by name."""
        return self.recipients[1:]

    def __str__(self) -> str:
        return "keyholder"


@dataclass(frozen=True)
class SharedByClients:
    """Every client holds the key: one client together with the server reads every update. Never a default.

    It takes no argument and raises nothing.

        CKKSSum(SharedByClients())
    """

    def __str__(self) -> str:
        return "shared"


def _recipients(given: object) -> tuple[str, ...]:
    """Return the recipients, the server first, clients by name: their order says nothing. Raises Misuse."""
    if isinstance(given, str) or not isinstance(given, Collection):
        raise Misuse(f"expected recipients as a tuple of names, such as ('server', 'site-1'), got {given!r}")
    names = [name for name in given if isinstance(name, str) and name.strip()]
    if len(names) < len(given) or len(set(names)) < len(names):
        raise Misuse(f"expected recipients with distinct names, none of them empty, got {given!r}")
    if TO_SERVER not in names:
        raise Misuse(
            f"expected {TO_SERVER!r} among the recipients, got {given!r}: the server decodes the sum and makes the "
            "next model of it, so a sum that is kept from the server cannot be a layer of a federation"
        )
    return (TO_SERVER, *sorted(name for name in names if name != TO_SERVER))


Arrangement = Threshold | KeyHolder | SharedByClients


def check_recipients(arrangement: Arrangement, roster: Roster | None) -> None:
    """Raises Misuse if a client that is to be given the sum is no client of the roster; without one, the session
    tells.
    """
    if isinstance(arrangement, KeyHolder) and roster is not None:
        known = [member.name for member in roster.with_role("client")]
        if missing := [name for name in arrangement.clients if name not in known]:
            raise Misuse(f"{missing[0]!r} is to be given the sum, and the roster has no such client: {known}")


def arrangement(text: str) -> Arrangement:
    """Return the arrangement that the command line names: keyholder, keyholder-for-server+NAME (clients that are
    given the sum too), shared, threshold, threshold-T-of-N or threshold-T-of-N-corrupt-C.

    Raises Misuse for any other text.
    """
    if text == "keyholder":
        return KeyHolder()
    if text.startswith(_FOR):
        return KeyHolder(recipients=tuple(text.removeprefix(_FOR).split("+")))
    if text == "shared":
        return SharedByClients()
    if text == "threshold":
        return Threshold()
    if found := _THRESHOLD.fullmatch(text):
        t, n, corrupt = found.groups()
        return Threshold(int(t), int(n), corrupt=int(corrupt or -1))
    raise Misuse(
        f"expected keyholder, {_FOR}server+NAME, shared, threshold or threshold-T-of-N[-corrupt-C], got {text!r}"
    )
