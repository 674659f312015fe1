"""The terms of a round: one record of everything that a client acts on; of model and configuration, the digests.

Its bytes are in the digest that every session binds, field by field as they stand: a field that is added here is bound
without another line. A node computes the terms for itself and refuses those that differ by name. What does not belong
here: the model (`reference`), what one message of a session needs besides (`fl.network.messages.Header`).
"""

import hashlib
from dataclasses import dataclass, field, fields

from fl.round.counts import Count
from fl.round.manifest import Manifest
from protocols.codec import Record
from protocols.errors import refuse, require
from protocols.layers import Block, RunFacts
from protocols.public_values import PublicValues


@dataclass(frozen=True)
class RunHeader(Record):
    """The public facts of the planned run, as `RunFacts` has them, without what a client may not be told."""

    rounds: int
    population: int
    cohort: int
    sampling: str
    rate: float
    dropout: float
    dimension: int
    local_epochs: int
    delta: float | None
    blocks: tuple[Block, ...] = ()
    least_chosen: int = 0
    weight_cap: int | None = None

    @classmethod
    def of(cls, run: RunFacts) -> "RunHeader":
        return cls(**{f.name: getattr(run, f.name) for f in fields(cls)})

    def facts(self) -> RunFacts:
        return RunFacts(**{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class ModelLayout(Record):
    """How the model and the metrics travel: names of the strategy's records and of its weight in the metrics, metrics
    that are summed inside the vector, and the rule for integer arrays.
    """

    arrays: str = "arrays"
    config: str = "config"
    weight: str = "num-examples"
    metrics: tuple[str, ...] = ()
    integers: str = "keep"


@dataclass(frozen=True)
class Origin(Record):
    """Whose round it is. federation, serial: which roster (serial 0: none). run: names the run; two runs of one
    federation have two names. layout: how the model travels.
    """

    federation: str = ""
    serial: int = 0
    run: str = ""
    layout: ModelLayout = field(default_factory=ModelLayout)

    @property
    def scope(self) -> str:
        """Names this run of this federation in a client's store (64 hexadecimal digits)."""
        named = self.federation.encode() + b"\0" + self.run.encode()
        return hashlib.sha256(b"secagg run v1\0" + named).hexdigest()


@dataclass(frozen=True, eq=False)
class RoundTerms(Record):
    """What a client acts on in a round. Public.

    number: the round's, from 1 (0: of no round). name: which of the round's sums it is. public: what layers and the
    strategy broadcast. counts: integers that every client reports. options, events: what the layers were made with and
    what they plan to spend (`Stack.options`, `RoundPlan.planned`). manifest: where clients started from different
    models. model: the reference's digest, or the manifest's; configuration: the training configuration's (empty where
    nothing is shown). Raises Misuse for a number below 0.
    """

    origin: Origin
    run: RunHeader
    number: int = 0
    name: str = ""
    public: PublicValues = field(default_factory=lambda: PublicValues({}, {}))
    counts: tuple[Count, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    manifest: Manifest | None = None
    model: bytes = b""
    configuration: bytes = b""

    def digest(self) -> bytes:
        """SHA-256 over all of it (32 bytes)."""
        return hashlib.sha256(b"secagg shown v4\0" + self.encode()).digest()

    def __post_init__(self) -> None:
        require(self.number >= 0, "a round from 0", self.number)

    def require(self, own: "RoundTerms") -> None:
        """Raises ProtocolViolation naming what these terms, which a server sent, say otherwise than a node's own, and
        for a round that was not planned.
        """
        said, expected = _parts(self), _parts(own)
        for name in (k for k in {**said, **expected} if said.get(k) != expected.get(k)):
            raise refuse(
                f"{name}: this node has {expected.get(name, 'none')}, the server says {said.get(name, 'none')}: "
                + _ALIKE.get(name, "both sides must be made with the same layers, options and rounds")
            )
        if not 1 <= self.number <= self.run.rounds:
            raise refuse(
                f"expected a round from 1 to {self.run.rounds}, which were planned, the server says {self.number}"
            )


_ALIKE = {
    "model": "every node must be sent the same one, and what of a Federation's model does not train, which each side "
    "makes for itself, must be alike",
    "configuration": "every node must be sent the same one",
}


def _parts(terms: RoundTerms) -> dict[str, object]:
    """Return what terms say, each under its own name: options by option, the run and its origin by field."""
    found: dict[str, object] = {}
    for name in (f.name for f in fields(terms)):
        value = getattr(terms, name)
        if isinstance(value, RunHeader | Origin):
            found |= {f"{name}.{f.name}": getattr(value, f.name) for f in fields(value)}
        elif isinstance(value, dict):
            found |= value
        else:
            shown = value.encode() if isinstance(value, PublicValues) else value
            found[name] = shown.hex() if isinstance(shown, bytes) else shown
    return found
