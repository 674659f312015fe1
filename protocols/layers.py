"""What a privacy layer is: four hooks, any of which it may implement. What does not belong here: any layer.

`local` wraps the local computation, `encode` works on the client's contribution, `decode` on the sum of the
survivors', `events` says what was spent. `transform` is encode's public shadow: from what is given
(`Signal`) to what the next layer takes, sensitivity carried along; a stack checks it before round 1. Layers
hold public options only; what a round needs comes in `RoundFacts`, so that a client in another process can
run the same layer from the same options.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom
from protocols.statement import PrivacyEvent
from protocols.store import Store


@dataclass(frozen=True)
class Coordinate:
    """A named block of integers appended to the vector: `size` values, each in [-bound, bound] per client."""

    name: str
    size: int
    bound: int


UPDATE = "update"
"""The name of a contribution's first block."""

Value = float | NDArray[np.float64]
"""What a layer or a strategy may broadcast under a name: a number, or an array of floats."""
Public = Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Block(Record):
    """A further real vector in every contribution, with a clip, a step and a weight of its own (a control variate).

    dimension: its length. weighted: whether it counts with the client's weight, as the update does, or once per
    client. range: a public bound on |coordinate| for the quantiser (None: a layer's clip; refused without one). clip:
    its own L2 norm, for a layer that clips contributions (None: such a layer refuses it). derived: it follows from the
    update as layers left it in training, from what was broadcast and from what was kept of such values, and from
    nothing else of a client's examples: what made the update private covers it.
    """

    name: str
    dimension: int
    weighted: bool = True
    range: float | None = None
    clip: float | None = None
    derived: bool = False


@dataclass(frozen=True)
class Signal:
    """Public description of one client's contribution at one place of the stack.

    kind: "real" (float64 vector) or "integer" (int64 vector). dimension: its length. l2, linf: bounds on
    its norms in real units that hold with probability one (None: no bound is known). weight_cap: the vector
    counts with an integer weight in [0, weight_cap]; 1 means unweighted. exact_coordinates: the weight,
    clip counts, counters and metrics may be summed without noise beside the vector; a DP layer sets it to
    False, for they would leak. coordinates: what layers appended. range: a public bound on |coordinate| for
    the quantiser (None: from the reference). step: real value of the integer 1 (integer signals). modulus:
    0 for a sum over Z, else Z_M. bound: |integer| bound per client, weight included (over Z).
    min_survivors: least clients in a total that the layers demand. block: which vector of the contribution it
    describes. clip: the norm to which a layer that makes integers clips before it rounds (None: `l2`).
    """

    kind: str
    dimension: int
    weight_cap: int
    l2: float | None = None
    linf: float | None = None
    exact_coordinates: bool = True
    coordinates: tuple[Coordinate, ...] = ()
    range: float | None = None
    step: float = 1.0
    modulus: int = 0
    bound: int = 0
    min_survivors: int = 1
    block: str = UPDATE
    clip: float | None = None


@dataclass(frozen=True, eq=False)
class Contribution:
    """One client's private contribution: vector (float64 or int64), integer weight, named coordinates, further
    blocks by name (float64); source: names the update behind a vector that leaves in several rounds, each time another
    one. Never printed.
    """

    vector: NDArray[Any] = field(repr=False)
    weight: int = field(default=1, repr=False)
    coordinates: dict[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    blocks: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    source: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The sum over survivors on its way back: vector (int64 or float64), the weight to divide by,
    coordinate totals, further blocks by name (each an Aggregate of its own).
    """

    vector: NDArray[Any]
    weight: float
    coordinates: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    blocks: dict[str, "Aggregate"] = field(default_factory=dict)


@dataclass(frozen=True)
class SumFacts:
    """A layer's place in an opened sum. given: what it took of each client. released: what was summed (integers; its l2
    is the bound after rounding, weight included). survivors: whose vectors are in it.
    """

    given: Signal
    released: Signal
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class RunFacts:
    """Public facts of the whole planned run, for calibration before round 1.

    rounds planned; population: clients in the federation; cohort: expected clients per round; sampling:
    "all", "fixed" (without replacement), "poisson" at `rate`, or other words for a choice that amplifies nothing
    (`protocols.stack`); dropout: share of a round's clients that may leave; dimension of the update; local_epochs;
    sizes: client -> its number of examples where the driver knows them (in memory), else empty: each client knows its
    own. delta: the run's default delta. blocks: what every contribution holds besides the update. least_chosen: under a
    secret choice of clients, the fewest with which a round is played, and failing: how likely it is abandoned because
    too few were chosen, or a number that the secure sum does not carry (0 and 0: every round is played, whatever the
    number). weight_cap: the largest weight that can come, where that is public (None: the stack's own cap), so that a
    sum needs no wider ring. corrupt: how many of the cohort's clients the secure sum withstands beside its server
    (`Stack` sets it).
    """

    rounds: int
    population: int
    cohort: int
    sampling: str = "all"
    rate: float = 1.0
    dropout: float = 0.0
    dimension: int = 1
    local_epochs: int = 1
    sizes: Mapping[str, int] = field(default_factory=dict)
    delta: float | None = None
    blocks: tuple[Block, ...] = ()
    least_chosen: int = 0
    failing: float = 0.0
    weight_cap: int | None = None
    corrupt: int = 0

    @property
    def expected(self) -> float:
        """Clients asked in a round, on average."""
        return self.cohort * (self.rate if self.sampling in ("poisson", "arrivals") else 1.0)


@dataclass(frozen=True)
class RoundFacts:
    """Facts of one round. Public, but for `client`, `store` and `random`, which are the acting party's own.

    number: from 1. clients: names asked, in roster order. public: layer name -> what the server broadcast
    for it this round (numbers or arrays; part of the session's context). seed: 32 public bytes fixed for this round by
    the broadcast model (for public randomness such as rotations). client: who acts ("" on the server).
    store: the party's own store, if it has one. scope: names the run in it, so that no other run reads what it keeps.
    schema: SHA-256 of the model's schema (b"" where there is no model), which binds what is kept.
    shapes: of the update's tensors, in its order (empty where no model is known yet).
    afford: for a layer whose price only the client knows, called with the round's events before it trains: raises
    PolicyRefusal for more than the client accepts. arrives: what of a client's own vector is in the sum, but for noise
    (`RoundPlan.arrives`), for whoever keeps at the client what the server has of it.
    """

    run: RunFacts
    number: int
    clients: tuple[str, ...]
    seed: bytes
    public: Public = field(default_factory=dict)
    client: str = ""
    store: Store | None = None
    random: SecureRandom = field(default_factory=SystemRandom)
    scope: str = ""
    schema: bytes = b""
    shapes: tuple[tuple[int, ...], ...] = ()
    afford: Callable[[tuple[PrivacyEvent, ...]], None] = field(default=lambda events: None, repr=False)
    arrives: Callable[[str, NDArray[np.float64]], NDArray[np.float64]] = field(
        default=lambda block, vector: vector, repr=False
    )

    @property
    def whose(self) -> str:
        """Whose log or error speaks: "client 'b', round 3"."""
        return f"client {self.client!r}, round {self.number}"

    def number_for(self, name: str, key: str, otherwise: float) -> float:
        """Return a number that was broadcast for a layer, or `otherwise`. Raises Misuse for an array."""
        value = self.public.get(name, {}).get(key, otherwise)
        if isinstance(value, np.ndarray):
            raise Misuse(f"{name}: expected {key!r} to be a number, got an array of shape {value.shape}")
        return value


@dataclass
class LocalTask:
    """What a client computes in one round, as `fl` hands it to `local` hooks.

    model, loader, optimizer, criterion: the user's torch objects (typed Any: this floor knows no torch).
    run: calls the user's train function once per local epoch with what is in this task and returns its
    metrics. A hook may replace any field before it calls `run`, and must undo nothing: a task is made anew
    each round. loss: the user's `loss(model, batch)` for strategies that have one. examples: size of the
    client's data. result: set by a hook that computes the update itself (named arrays, e.g. a sum of
    clipped gradients) instead of leaving it in the model. sent: names of the tensors that make up the update, in
    its order. noted: what a strategy's hooks leave for later ones. broken_is_zero: a layer lets what cannot be sent
    count as zero, so that a hook raises for nothing that follows the client's data.
    """

    client: str
    model: Any
    loader: Any
    optimizer: Any
    criterion: Any
    run: Callable[["LocalTask"], dict[str, float]]
    epochs: int = 1
    loss: Callable[..., Any] | None = None
    examples: int = 0
    result: dict[str, NDArray[np.generic]] | None = field(default=None, repr=False)
    device: Any = None
    sent: tuple[str, ...] = ()
    noted: dict[str, Any] = field(default_factory=dict, repr=False)
    broken_is_zero: bool = False


Compute = Callable[[LocalTask], dict[str, float]]


class PrivacyLayer:
    """Base of every layer but the secure sum. Override what the layer does; the defaults change nothing.

    name: as on the command line. owns: of {"optimizer", "criterion"}, what the user's train function must
    take as arguments because the layer replaces it. hides_sum_from_clients: what the layer claims holds only
    if no client sees the sum itself, because the server adds the noise. protects_sums_only: a single vector carries
    only a share of the noise, so that nothing holds against a server that reads vectors. charges_parties: what it
    spends is stated for each client that took part, by name. counts_broken_as_zero: it lets an update that holds NaN or
    infinity count as zero, and tells nobody but the client. keeps_state: it uses `PartyState`, so clients are told
    which rounds closed with them. one_sum: what a round opens follows earlier rounds' sum, so it may have no other.
    own_options: what every party may set for itself; other public attributes are alike on both sides (`Stack.options`).
    """

    name: ClassVar[str] = ""
    hides_sum_from_clients: ClassVar[bool] = False
    protects_sums_only: ClassVar[bool] = False
    charges_parties: ClassVar[bool] = False
    counts_broken_as_zero: ClassVar[bool] = False
    keeps_state: bool = False
    one_sum: bool = False
    own_options: ClassVar[frozenset[str]] = frozenset()
    owns: frozenset[str] = frozenset()

    @property
    def sizes_are_public(self) -> bool:
        """Whether the layer, beside its noise, declares every client's number of examples public."""
        return False

    @property
    def takes_blocks(self) -> bool:
        """True if the layer handles every block of a contribution (`Signal.block` says which one it is given) and its
        `events` price them all. By default a layer that looks at neither vector nor sum does.
        """
        kind = type(self)
        return all(
            getattr(kind, hook) is getattr(PrivacyLayer, hook) for hook in ("transform", "encode", "decode")
        )

    @property
    def secret_sampling(self) -> bool:
        """Whether the choice of clients must come from a cryptographic source and stay secret."""
        return False

    @property
    def adds_noise(self) -> bool:
        """Whether the layer bounds and noises what is sent; by default one that states what a round spends does."""
        return type(self).events is not PrivacyLayer.events

    @property
    def adversary(self) -> str:
        """Against whom its noise holds, where it adds some (`protocols.guarantee.AGAINST`)."""
        return "server"

    def against(self, claimed: str, exposed: bool) -> str:
        """Return whom an event holds against. exposed: the server sees single vectors, each under a share of noise."""
        return "clients" if exposed and self.protects_sums_only and claimed == "server" else claimed

    def needs_local(self) -> bool:
        """True if a layer is sound only where it wraps the local computation (default: it overrides `local`)."""
        return type(self).local is not PrivacyLayer.local

    def describe(self) -> str:
        """One sentence for the statement."""
        return self.name

    def kinds(self, run: RunFacts | None = None) -> tuple[PrivacyEvent, ...]:
        """The kinds of events that rounds of such a run state, with nominal numbers; run: None where only the stack is
        known (none then where they follow the run). A stack and a federation ask when they are built, so that what an
        accountant or a ledger cannot price is refused there. Raises Misuse where the layer's own accountant cannot.
        """
        return ()

    def comes(self, store: Store, scope: str, number: int) -> bool:
        """Whether the party whose store this is may come to round `number` of the run `scope`, by its own rules."""
        return True

    def may_ask(self, rows: Sequence[int], number: int) -> bool:
        """Whether the server may ask a party in round `number` that is in the totals of the rounds `rows`, rising."""
        return True

    def plan(self, run: RunFacts) -> None:
        """Calibrate for the whole planned run; called once before round 1 (and again on resume). Raises Misuse."""

    def outlook(self, run: RunFacts) -> str | None:
        """A sentence where the layer makes this run worthless (noise that drowns the update), else None."""
        return None

    def public(self) -> Mapping[str, Value]:
        """What the server broadcasts for this round (an adaptive clip norm); arrives as `facts.public[name]`."""
        return {}

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        """Return what this layer gives for what it takes. Raises StackError if it cannot take it."""
        return given

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        """Wrap or replace the local computation."""
        return compute

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        """Client: from what `given` describes to what `transform(given)` describes."""
        return contribution

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        """Server: undo `encode` on the sum, add central noise."""
        return aggregate

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        """What the round spent (or, before the round, would spend if `survivors` is what is expected)."""
        return ()

    def planned(self, facts: RoundFacts) -> tuple[PrivacyEvent, ...]:
        """What every party can tell beforehand of the round's events, for the session's digest: of all asked."""
        return self.events(facts, facts.clients)

    def state(self) -> dict[str, Any]:
        """The server-side state across rounds, as JSON values or arrays; `restore` takes it back on resume."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
