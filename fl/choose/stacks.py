"""The stacks that can be chosen, and the rules by which they fall away: one table, in the order in which they speak.

What does not belong here: costs and accuracy, which `measured` and the plans say.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fl.choose.case import Case

PLAIN, MASKS, CHECKED, CKKS, PAILLIER = (
    "none",
    "secagg+",
    "secagg+:threat=malicious",
    "ckks",
    "paillier:arrangement=keyholder",
)
LAYERS = ("none", "sample-dp", "client-dp", "distributed-dp", "local-dp")
PROTECTS = {
    "none": "",
    "sample-dp": "example",
    "client-dp": "client",
    "distributed-dp": "client",
    "local-dp": "client",
}
"""A layer's unit."""
AGAINST = {
    "sample-dp": "everybody, the server included",
    "client-dp": "other clients and the public, not the server",
    "distributed-dp": "everybody, the server with the stated colluders among the clients included",
    "local-dp": "everybody",
}
"""Whom a layer's epsilon holds against, behind a sum that the rules leave it."""
HIDES_FROM = {
    PLAIN: (),
    MASKS: ("server", "honest", "holder"),
    CHECKED: ("server", "honest", "holder", "nobody"),
    CKKS: ("holder",),
    PAILLIER: ("holder",),
}
"""For which answers to whom is trusted a secure sum keeps single updates from the server."""


@dataclass(frozen=True)
class Pair:
    """A layer of differential privacy, or "none", and a secure sum."""

    layer: str
    sum: str

    @property
    def name(self) -> str:
        """As the page and the command name it."""
        return f"{self.layer} behind {self.sum}"

    @property
    def masks(self) -> bool:
        """Whether the sum is planned by `secagg.parameters`."""
        return self.sum in (MASKS, CHECKED)

    def specs(self, case: Case, clients: int) -> list[str]:
        """The layers as the command line takes them, for a run of `clients` on one machine."""
        priced = [] if self.layer == "none" else [f"{self.layer}:epsilon={case.epsilon:g}"]
        totals = {
            PLAIN: [],
            MASKS: [f"{MASKS}:dropout={case.dropout:g}"],
            CHECKED: [f"fl.choose.rehearsal:checked:clients={clients},dropout={case.dropout:g}"],
        }
        return [*priced, *totals.get(self.sum, [self.sum])] or ["none"]


STACKS = tuple(Pair(layer, total) for layer in LAYERS for total in HIDES_FROM)


def _noise_is_not_asked_for(stack: Pair, case: Case) -> bool:
    return case.epsilon is None and stack.layer != "none"


def _no_noise(stack: Pair, case: Case) -> bool:
    return case.epsilon is not None and stack.layer == "none"


def _wrong_person(stack: Pair, case: Case) -> bool:
    return case.person == "client" and PROTECTS[stack.layer] == "example"


def _server_sees_noiseless(stack: Pair, case: Case) -> bool:
    return case.trust != "server" and stack.layer == "client-dp"


def _server_reads(stack: Pair, case: Case) -> bool:
    own_noise = stack.layer in ("local-dp", "sample-dp")  # each client's update is noised before it leaves
    return case.trust not in ("server", *HIDES_FROM[stack.sum]) and not (stack.sum == PLAIN and own_noise)


def _shares_alone(stack: Pair, case: Case) -> bool:
    return stack.layer == "distributed-dp" and stack.sum == PLAIN


def _holder_is_missing(stack: Pair, case: Case) -> bool:
    return case.trust != "holder" and stack.sum in (CKKS, PAILLIER)


def _few(stack: Pair, case: Case) -> bool:
    return case.survivors < 3 and stack.sum != PLAIN


def _more_than_needed(stack: Pair, case: Case) -> bool:
    return case.trust != "nobody" and stack.sum == CHECKED


def _hidden_for_nobody(stack: Pair, case: Case) -> bool:
    return case.trust == "server" and stack.layer != "distributed-dp" and stack.sum != PLAIN


RULES: tuple[tuple[Callable[[Pair, Case], bool], str], ...] = (
    (_noise_is_not_asked_for, "you asked for no epsilon, and its noise costs accuracy"),
    (_no_noise, "it has no differential privacy: the model and the sum may reveal what a client holds"),
    (_wrong_person, "it protects an example, and your person is a whole client"),
    (
        _server_sees_noiseless,
        "its noise is the server's, which reads the sum: the epsilon does not hold against it",
    ),
    (_holder_is_missing, "it needs a party beside the server that holds a key and does not collude with it"),
    (_server_reads, "the server could read single updates, and you do not trust it with them"),
    (_shares_alone, "each client adds a share of the noise only, which hides little without a secure sum"),
    (_few, "of fewer than three survivors each would know the others' update from the sum"),
    (
        _more_than_needed,
        "it guards against a server that lies, which you rule out, at the cost of a signed roster",
    ),
    (_hidden_for_nobody, "it hides single updates from a server that may read them"),
)
"""Whether a rule takes a stack away, and why."""


def fallen(stack: Pair, case: Case) -> str | None:
    """Why a stack does not fit, by the first rule that says so; None where none does."""
    return next((why for applies, why in RULES if applies(stack, case)), None)
