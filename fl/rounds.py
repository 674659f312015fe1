"""One round, in public: what the server broadcasts, and what it makes of the sum. No engine, no client's
data.

An engine (in memory, Flower) gets an `Opening` from the `Coordinator`, has every client answer it
(`fl.contribution`), sums the integer vectors by the stack's SecureSum, and hands the total back to
`Coordinator.close`.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl import checks, metrics
from fl.config import Setup
from fl.loaders import check_device
from fl.seeds import derive, generator, seeded
from fl.settings import of_optimizer
from fl.tensors import flatten_state, schema_of_state, unflatten_state
from protocols.errors import Misuse
from protocols.layers import Coordinate, Public, RoundFacts, RunFacts
from protocols.randomness import SystemRandom
from protocols.roundplan import RoundPlan
from protocols.session import Session
from protocols.updates import Flat, Schema

COUNTERS, CAPPED = "counters", "weights-capped"


@dataclass(frozen=True)
class Opening:
    """What every client of a round is shown, and what it needs to answer.

    number: the round, from 1. clients: names asked. state: the broadcast state dict. schema, reference: its
    flat form. plan: the round's arithmetic. digest: what the session's context binds (32 bytes).
    """

    number: int
    clients: tuple[str, ...]
    state: dict[str, Any] = field(repr=False)
    schema: Schema = field(repr=False)
    reference: Flat = field(repr=False)
    plan: RoundPlan = field(repr=False)
    digest: bytes = field(repr=False)


@dataclass
class RoundResult:
    """What one round did. seconds: train, privacy_client, privacy_server. abandoned: why there is no total,
    else None.
    """

    number: int
    asked: tuple[str, ...]
    survivors: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    train_metrics: dict[str, float] = field(default_factory=dict)
    clipped_share: float | None = None
    weights_capped: int | None = None
    bytes_up_per_client: float = 0.0
    bytes_down_per_client: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    epsilon: float | None = None
    abandoned: str | None = None
    session: str = ""


class Coordinator:
    """The server's side of a federation: the model, the strategy, who is asked."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        with seeded(derive(setup.plan.seed, "model")):
            self.model = setup.model()
        if not hasattr(self.model, "state_dict"):
            raise Misuse(
                f"model: expected a factory of a torch module, it returned {type(self.model).__name__}"
            )
        check_device(setup.plan.device)
        self.optimizer = of_optimizer(_optimizer(setup, self.model))
        self.schema = schema_of_state(self.model.state_dict(), setup.plan.integers)
        if self.schema.dimension == 0:
            raise Misuse("the model has no floating-point parameter: nothing to train")
        self.run: RunFacts | None = None

    # -- planning --

    def cohort(self) -> int:
        """Expected clients asked per round."""
        return max(1, math.floor(self.setup.plan.fraction * len(self.setup.names) + 0.5))

    def prepare(self, rounds: int) -> RunFacts:
        """Plan the whole run: layers calibrate, composition and capacity are proved. Raises Misuse before round 1."""
        plan, setup = self.setup.plan, self.setup
        rounds = checks.whole("rounds", rounds, 1)
        if plan.min_survivors > len(setup.names) or (
            plan.sampling == "fixed" and plan.min_survivors > self.cohort()
        ):
            raise Misuse(
                f"min_survivors={plan.min_survivors}, but a round asks {self.cohort()} of {len(setup.names)} clients: "
                "no round could end"
            )
        self.run = self.planned(rounds)
        self._check_recipients(self.run.sampling == "all")
        setup.stack.plan(self.run)
        setup.stack.round(
            self._facts(1, setup.names[: self.run.cohort]), self._reference().vector, self._exact()
        )
        return self.run

    def planned(self, rounds: int) -> RunFacts:
        """Return the facts of a run of `rounds` rounds as this federation plans it; nothing is calibrated."""
        plan, setup = self.setup.plan, self.setup
        everyone = self.cohort() == len(setup.names) and plan.sampling == "fixed"
        return RunFacts(
            rounds=rounds,
            population=len(setup.names),
            cohort=len(setup.names) if plan.sampling == "poisson" else self.cohort(),
            sampling="all" if everyone else plan.sampling,
            rate=1.0 if everyone else plan.fraction,
            dropout=plan.dropout,
            dimension=self.schema.dimension,
            local_epochs=plan.local_epochs,
            sizes=setup.sizes,
            delta=plan.delta,
        )

    def _check_recipients(self, everyone: bool) -> None:
        """Who is to be given every round's sum must be a client, and asked in every round. Raises Misuse."""
        recipients = self.setup.stack.secure_sum.recipients
        if missing := [name for name in recipients if name not in self.setup.names]:
            raise Misuse(
                f"{missing[0]!r} is to be given the sum and is no client of this federation: {list(self.setup.names)}"
            )
        if recipients and not everyone:
            raise Misuse(f"{recipients[0]!r} is to be given every sum, and not every round asks every client")

    def choose(self, number: int) -> tuple[str, ...]:
        """Return who is asked in a round: by the seed, or secretly where a layer claims amplification for it."""
        names, plan, count = self.setup.names, self.setup.plan, self.cohort()
        poisson = plan.sampling == "poisson"
        if not poisson and count == len(names):
            return names
        if any(getattr(layer, "secret_sampling", False) for layer in self.setup.stack.layers):
            from dp.mechanisms.sampling import fixed_sample, poisson_sample

            random = SystemRandom()
            size = len(names)
            secret = (
                poisson_sample(random, size, plan.fraction) if poisson else fixed_sample(random, size, count)
            )
            return tuple(names[i] for i in secret)
        draws = generator(plan.seed, "sample", number).random(len(names))
        chosen = draws < plan.fraction if poisson else np.argsort(np.argsort(draws, kind="stable")) < count
        return tuple(name for name, asked in zip(names, chosen, strict=True) if asked)

    # -- a round --

    def open(self, number: int, clients: tuple[str, ...], public: Public | None = None) -> Opening:
        """Return what the round's clients are shown. public: what layers broadcast (a client: what it was told)."""
        reference = self._reference()
        facts = self._facts(number, clients)
        if public is not None:
            facts = replace(facts, public=public)
        plan = self.setup.stack.round(facts, reference.vector, self._exact())
        model_digest = self.model_digest(reference)
        state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        return Opening(number, clients, state, self.schema, reference, plan, plan.digest(model_digest))

    def model_digest(self, reference: Flat) -> bytes:
        """SHA-256 of the schema and of every value of the model, kept integers included (32 bytes)."""
        hasher = hashlib.sha256(self.schema.encode())
        hasher.update(np.ascontiguousarray(reference.vector).data)
        hasher.update(np.ascontiguousarray(reference.counters).data)
        for path in sorted(reference.kept):
            hasher.update(np.ascontiguousarray(reference.kept[path]).reshape(-1).view(np.uint8).data)
        return hasher.digest()

    def close(self, opening: Opening, total: NDArray[np.int64], survivors: tuple[str, ...]) -> RoundResult:
        """Move the model by the aggregate and return the round's facts."""
        plan = opening.plan
        aggregate = plan.decode(total, survivors)
        result = RoundResult(opening.number, opening.clients, survivors)
        names = self.setup.plan.metrics
        result.train_metrics = metrics.decode(aggregate.coordinates, names)
        clipped = plan.clipped(aggregate)
        if clipped is not None and survivors:
            result.clipped_share = clipped / (len(survivors) * self.schema.dimension)
        if CAPPED in aggregate.coordinates:
            result.weights_capped = int(aggregate.coordinates[CAPPED][0])
        if aggregate.weight > 0:
            mean = np.asarray(aggregate.vector, np.float64)[: self.schema.dimension] / aggregate.weight
            self._move(opening, self.setup.strategy.step(mean), aggregate.coordinates.get(COUNTERS))
        return result

    def _move(
        self, opening: Opening, difference: NDArray[np.float64], counters: NDArray[np.int64] | None
    ) -> None:
        reference = opening.reference
        moved = Flat(
            reference.vector + difference,
            reference.counters if counters is None else reference.counters + counters,
            reference.kept,
        )
        self.model.load_state_dict(unflatten_state(moved, self.schema, self.model.state_dict()))

    def _reference(self) -> Flat:
        return flatten_state(self.model.state_dict(), self.schema)

    def _facts(self, number: int, clients: tuple[str, ...]) -> RoundFacts:
        if self.run is None:
            raise Misuse("expected prepare(rounds) before the first round")
        # public randomness of a round (rotations) follows the broadcast model, so the server fixes it before any input
        seed = hashlib.sha256(
            b"secagg round seed\0" + self.model_digest(self._reference()) + bytes([number % 256])
        ).digest()
        return RoundFacts(self.run, number, clients, seed, self.setup.stack.public())

    def _exact(self) -> list[Coordinate]:
        cap = self.setup.stack.numbers.weight_cap
        exact = [*metrics.coordinates(self.setup.plan.metrics, cap), Coordinate(CAPPED, 1, 1)]
        if self.schema.counters:
            exact.append(Coordinate(COUNTERS, self.schema.counters, 1 << 24))
        return exact

    def evaluate(self) -> dict[str, float]:
        """Return the test metrics of the present model; empty without a test loader."""
        setup = self.setup
        if setup.test is None:
            return {}
        with seeded(derive(setup.plan.seed, "evaluate")):
            measured = setup.evaluate(self.model, setup.test, setup.criterion(), setup.plan.device)
        try:
            return {str(name): float(value) for name, value in measured.items()}
        except (AttributeError, TypeError, ValueError):
            raise Misuse(f"evaluate: expected a dict of floats, got {measured!r}") from None


def _optimizer(setup: Setup, model: Any) -> Any:
    """What the optimizer factory makes for the model. Raises Misuse for what is no optimizer."""
    made = setup.optimizer(model.parameters())
    if not all(callable(getattr(made, name, None)) for name in ("step", "zero_grad")):
        raise Misuse(
            f"optimizer: expected a function that returns an optimizer, it returned {type(made).__name__}"
        )
    return made


def own_facts(opening: Opening, client: str, store: Any = None) -> RoundFacts:
    """Return the round's facts as one client sees them: with its name and its own store."""
    return replace(opening.plan.facts, client=client, store=store)


def new_session(setup: Setup, opening: Opening, memory: bytes | None = None) -> Session:
    """Return the round's session: bound to the broadcast model and to everything else the clients are shown.

    memory: what the server keeps of earlier sessions, for a secure sum whose set-up serves many.
    """
    plan = opening.plan
    least = max(setup.plan.min_survivors, plan.summed.min_survivors)
    return setup.stack.secure_sum.session(
        opening.clients,
        plan.dimension,
        plan.bound,
        random=SystemRandom(),
        modulus=plan.summed.modulus,
        round=opening.number,
        model=opening.digest,
        min_survivors=min(least, len(opening.clients)),
        memory=memory,
    )
