"""What a user has: the questions of `secagg choose` and their answers. What does not belong here: stacks."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from protocols.errors import Misuse, require

TRUST: Mapping[str, str] = {
    "server": "the server may read every client's update",
    "honest": "the server follows the protocol, and must not read a single update",
    "holder": "the same, and a second party that does not collude with the server can hold a key",
    "nobody": "the server may do anything, lie to each client too",
}
"""Whom the clients trust, from most to least."""
DEVICES: Mapping[str, float] = {"server": 1.0, "laptop": 1.5, "phone": 8.0}
"""How many times longer than the measured machine a client takes: assumed, not measured."""
PERSONS = ("client", "example")


def asked(default: Any, question: str) -> Any:
    """A field: its default, and the question that is asked for it."""
    return field(default=default, metadata={"help": question})


@dataclass(frozen=True)
class Case:
    """What is asked for. Raises Misuse, naming the answer, for one out of range.

    trust: a key of `TRUST`. clients >= 1 in a round, each asked in every round. parameters >= 1, as sent. link: Mbit/s
    that a client sends with. wait: seconds that a client may spend on a round beside its training. dropout: share of
    the clients that leave in a round, in [0, 1). epsilon: of the whole run, in (0, 100]; None without differential
    privacy. person: what one person is: a "client" (a phone), or an "example" of a client (a patient of a hospital).
    device: a key of `DEVICES`. rounds >= 1.
    """

    trust: str = asked("honest", "Whom do the clients trust?")
    clients: int = asked(10, "How many clients take part in a round?")
    parameters: int = asked(10_000, "How many parameters does the model send?")
    link: float = asked(10.0, "How many Mbit/s does a client send with?")
    dropout: float = asked(0.1, "Which share of the clients leaves during a round?")
    epsilon: float | None = asked(None, "Epsilon of the whole run (none: no differential privacy)?")
    person: str = asked("client", "What is one person: a client, or an example of a client?")
    device: str = asked("laptop", "What do the clients run on?")
    wait: float = asked(60.0, "How many seconds may a client spend on a round beside its training?")
    rounds: int = asked(10, "How many rounds?")

    def __post_init__(self) -> None:
        for name, known in (("trust", TRUST), ("person", PERSONS), ("device", DEVICES)):
            if getattr(self, name) not in known:
                raise Misuse(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("clients", "parameters", "rounds"):
            if type(value := getattr(self, name)) is not int or not 1 <= value <= 10**9:
                raise Misuse(f"{name}: expected a whole number from 1 to 10^9, got {value!r}")
        for name in ("link", "wait", "dropout", "epsilon"):
            value = getattr(self, name)
            if type(value) not in (int, float) and not (name == "epsilon" and value is None):
                raise Misuse(f"{name}: expected a number, got {value!r}")
        for name in ("link", "wait"):
            require(getattr(self, name) > 0, "a number above 0", getattr(self, name), name)
        require(0 <= self.dropout < 1, "a share in [0, 1)", self.dropout, "dropout")
        if self.epsilon is not None and not 0 < self.epsilon <= 100:
            raise Misuse(f"epsilon: expected a number in (0, 100], or none, got {self.epsilon}")

    @classmethod
    def questions(cls) -> "tuple[Field[Any], ...]":
        """The fields in the order in which they are asked; the help text of each is its question."""
        return fields(cls)

    @property
    def survivors(self) -> int:
        """Clients that stay, in the mean, at least one."""
        return max(1, int(self.clients * (1 - self.dropout)))
