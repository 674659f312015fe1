"""The stacks that can be chosen, and the rules by which they fall away, in the order in which they speak.

What does not belong here: costs and accuracy, which `measured` and the plans say.
"""

from collections.abc import Iterator
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


def reasons(stack: Pair, case: Case) -> Iterator[str]:
    """Yield why a stack does not fit: a rule each, in the order in which they speak."""
    trust, layer, total = case.trust, stack.layer, stack.sum
    own_noise = layer in ("local-dp", "sample-dp")  # each client's update is noised before it leaves
    if case.epsilon is None and layer != "none":
        yield "you asked for no epsilon, and its noise costs accuracy"
    if case.epsilon is not None and layer == "none":
        yield "it has no differential privacy: the model and the sum may reveal what a client holds"
    if case.person == "client" and PROTECTS[layer] == "example":
        yield "it protects an example, and your person is a whole client"
    if trust != "server" and layer == "client-dp":
        yield "its noise is the server's, which reads the sum: the epsilon does not hold against it"
    if trust != "holder" and total in (CKKS, PAILLIER):
        yield "it needs a party beside the server that holds a key and does not collude with it"
    if trust not in ("server", *HIDES_FROM[total]) and not (total == PLAIN and own_noise):
        yield "the server could read single updates, and you do not trust it with them"
    if layer == "distributed-dp" and total == PLAIN:
        yield "each client adds a share of the noise only, which hides little without a secure sum"
    if case.survivors < 3 and total != PLAIN:
        yield "of fewer than three survivors each would know the others' update from the sum"
    if trust != "nobody" and total == CHECKED:
        yield "it guards against a server that lies, which you rule out, at the cost of a signed roster"
    if trust == "server" and layer != "distributed-dp" and total != PLAIN:
        yield "it hides single updates from a server that may read them"


def fallen(stack: Pair, case: Case) -> str | None:
    """Why a stack does not fit, by the first rule that says so; None where none does."""
    return next(reasons(stack, case), None)
