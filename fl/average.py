"""SecureAverage: one call in place of the average that a user's own loop takes. No training here.

What does not belong here: `Federation`, which owns the loop too.
"""

import hashlib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fl import checks
from fl.account import Account
from fl.memory import NOTE
from fl.result import SUM_NOTE, clipped_note
from fl.rounds import COUNTERS
from fl.tensors import flatten_state, schema_of_state, unflatten_state
from protocols.errors import BudgetExceeded, Misuse, StackError
from protocols.guarantee import only_epsilon
from protocols.layers import Aggregate, Contribution, Coordinate, RoundFacts, RunFacts
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.roundplan import RoundPlan
from protocols.runtime import recall
from protocols.simulate import Outcome, simulate
from protocols.stack import Numbers, Stack
from protocols.statement import Protection, Statement
from protocols.store import MemoryStore, Store
from protocols.updates import Flat, Schema


class SecureAverage:
    """The weighted average of state dicts, with every client's own hidden behind privacy layers.

    privacy: layers in the client's order, at most one secure sum, last; layers that must own the training
    loop are refused. bits, range, weight_cap: how floats become integers; every weight is at most
    weight_cap, a public number. integers: "keep" (the reference's), "sum" or "refuse" for integer tensors.
    rounds: calls planned, for layers that calibrate noise. policy: what each client insists on. ledger,
    delta: the privacy account.

    After a call: `survivors`, `outcome` (seconds and bytes), `clipped_share`, `statement`, `epsilon`.
    """

    def __init__(
        self,
        privacy: Sequence[Any] = (),
        *,
        bits: int = 16,
        range: float | None = None,
        weight_cap: int = 10_000,
        integers: str = "keep",
        rounds: int = 1,
        policy: Policy | None = None,
        ledger: Any = None,
        delta: float | None = None,
    ) -> None:
        self.stack = Stack(privacy, checks.numbers(bits, range, weight_cap))
        for layer in self.stack.layers:
            if layer.needs_local():
                raise StackError(
                    f"{type(layer).__name__} must own the local training: use Federation instead of SecureAverage"
                )
        if integers not in ("keep", "sum", "refuse"):
            raise Misuse(f'expected integers to be "keep", "sum" or "refuse", got {integers!r}')
        self.integers, self.rounds = integers, checks.whole("rounds", rounds, 1)
        self.policy, self.delta = checks.policy(policy), checks.delta(delta)
        self.account = Account(self.stack.layers, self.delta, checks.ledger(ledger), run=secrets.token_hex(8))
        self.calls = 0
        self.survivors: tuple[str, ...] = ()
        self.outcome: Outcome | None = None
        self.clipped_share: float | None = None
        self._stores: dict[str, Store] = {"server": MemoryStore()}
        self._protection: Protection | None = None
        self._clipped_most, self._paid = 0.0, 0

    def __call__(
        self,
        updates: Mapping[str, Mapping[str, Any] | None],
        *,
        weights: Mapping[str, int] | Sequence[int] | None = None,
        reference: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the average as a state dict like `reference`.

        updates: client -> its state dict, or None if it left. weights: client -> positive integer
        (examples), or in the order of `updates`; default equal. reference: the state dict that the round
        started from; required, for what is quantised and clipped is the difference to it.

        Raises Misuse (naming client and tensor) for NaN, another shape, or a weight that is no integer from
        1 to the cap; TooFewSurvivors if too many left; BudgetExceeded before anything is released.
        """
        if not isinstance(updates, Mapping) or not updates:
            raise Misuse(
                "updates: expected a mapping of client -> state dict, or None for one that left, got "
                f"{type(updates).__name__ if not isinstance(updates, Mapping) else 'none'}"
            )
        names = tuple(str(name) for name in updates)
        if len(set(names)) < len(names):
            raise Misuse(f"updates: expected distinct names of clients, got {names}")
        by_name = dict(zip(names, updates.values(), strict=True))
        counts = self._weights(names, weights)
        if self.account.calibrated and self._paid >= self.rounds:
            raise BudgetExceeded(
                f"{self._paid} calls were paid for of the {self.rounds} that the noise was calibrated for: "
                "pass SecureAverage the number of calls as rounds=..., or give the layer a noise_multiplier"
            )
        schema = schema_of_state(reference, self.integers)
        if schema.dimension == 0:
            raise Misuse("reference: holds no floating-point value: nothing to average")
        start = flatten_state(reference, schema)
        plan, digest = self._plan(names, schema, start, weighted=weights is not None)
        vectors = {
            name: self._vector(plan, name, state, counts[name], schema, start)
            for name, state in by_name.items()
        }
        aggregate = self._sum(
            plan, digest, vectors, {name for name, state in by_name.items() if state is None}
        )
        return self._move(aggregate, schema, start, reference)

    def _weights(self, names: tuple[str, ...], weights: Any) -> dict[str, int]:
        if weights is None:
            return dict.fromkeys(names, 1)
        if isinstance(weights, Mapping):
            given = {str(k): v for k, v in weights.items()}
            if unknown := sorted(given.keys() - set(names)):
                raise Misuse(f"weights: {unknown[0]!r} is none of the clients in updates, {list(names)}")
        else:
            listed = list(weights) if hasattr(weights, "__len__") else []
            if len(listed) != len(names):
                raise Misuse(f"weights: expected one per client, {len(names)}, got {weights!r}")
            given = dict(zip(names, listed, strict=True))
        cap = self.stack.numbers.weight_cap
        for name in names:
            if not _is_weight(given.get(name), cap):
                raise Misuse(
                    f"client {name!r}: expected an integer weight from 1 to the public cap {cap}, got "
                    f"{given.get(name)!r}; pass numbers of examples, or raise weight_cap"
                )
        return {name: int(given[name]) for name in names}

    def _plan(
        self, names: tuple[str, ...], schema: Schema, start: Flat, *, weighted: bool
    ) -> tuple[RoundPlan, bytes]:
        self.calls += 1
        run = RunFacts(self.rounds, len(names), len(names), dimension=schema.dimension, delta=self.delta)
        stack = self.stack if weighted else self._unweighted()
        if self.calls == 1:
            stack.plan(run)
        model = hashlib.sha256(schema.encode() + np.ascontiguousarray(start.vector).tobytes()).digest()
        facts = RoundFacts(
            run, self.calls, names, hashlib.sha256(b"secagg average\0" + model).digest(), stack.public()
        )
        exact = [Coordinate(COUNTERS, schema.counters, 1 << 24)] if schema.counters else []
        plan = stack.round(facts, start.vector, exact)
        return plan, plan.digest(model)

    def _unweighted(self) -> Stack:
        numbers = self.stack.numbers
        return Stack([*self.stack.layers, self.stack.secure_sum], Numbers(numbers.bits, numbers.range, 1))

    def _vector(
        self, plan: RoundPlan, name: str, state: Any, weight: int, schema: Schema, start: Flat
    ) -> np.ndarray:
        if state is None:  # it left: nothing of it is ever sent
            return np.zeros(plan.dimension, np.int64)
        try:
            flat = flatten_state(state, schema)
        except Misuse as error:
            raise Misuse(f"client {name!r}: {error}") from None
        sent = {c.name for c in plan.summed.coordinates}
        coordinates = {COUNTERS: flat.counters - start.counters} if COUNTERS in sent else {}
        store = self._stores.setdefault(name, MemoryStore())
        facts = RoundFacts(
            plan.facts.run,
            plan.facts.number,
            plan.facts.clients,
            plan.facts.seed,
            plan.facts.public,
            name,
            store,
        )
        return plan.encode(Contribution(flat.vector - start.vector, weight, coordinates), facts)

    def _sum(
        self, plan: RoundPlan, digest: bytes, vectors: dict[str, np.ndarray], left: set[str]
    ) -> Aggregate:
        protocol = self.stack.secure_sum
        session = protocol.session(
            list(vectors),
            plan.dimension,
            plan.bound,
            random=SystemRandom(),
            modulus=plan.summed.modulus,
            round=self.calls,
            model=digest,
            min_survivors=min(plan.summed.min_survivors, len(vectors)),
            memory=recall(self._stores["server"], protocol),
        )
        self._protection = protocol.protection(session)
        first = protocol.stages(session)[0].name
        # paid before anything leaves a client: a sum that fails later is paid for all the same
        self.account.charge(plan.events(tuple(name for name in vectors if name not in left)), self.calls)
        self._paid += 1
        self.outcome = simulate(
            protocol,
            vectors,
            drop={first: left},
            policy=self.policy,
            stores=self._stores,
            updates={n: hashlib.sha256(session.nonce + n.encode()).digest() for n in vectors},
            session=session,
        )
        self.survivors = tuple(str(name) for name in self.outcome.survivors)
        aggregate = plan.decode(self.outcome.total, self.survivors)
        clipped = plan.clipped(aggregate)
        size = len(self.survivors) * plan.summed.dimension
        self.clipped_share = None if clipped is None else clipped / size
        if self.clipped_share:
            self._clipped_most = max(self._clipped_most, self.clipped_share)
            warnings.warn(
                f"{self.clipped_share:.2%} of the coordinates moved further from the reference than the public range "
                "and were clipped to it: the average is not exact; pass range=... to SecureAverage",
                stacklevel=3,
            )
        return aggregate

    def _move(
        self, aggregate: Aggregate, schema: Schema, start: Flat, like: Mapping[str, Any]
    ) -> dict[str, Any]:
        mean = np.asarray(aggregate.vector, np.float64)[: schema.dimension] / aggregate.weight
        counters = aggregate.coordinates.get(COUNTERS)
        summed = start.counters if counters is None else start.counters + counters
        return unflatten_state(Flat(start.vector + mean, summed, start.kept), schema, like)

    @property
    def epsilon(self) -> float | None:
        """The price of all calls so far, None without DP. Raises Misuse where there are several guarantees."""
        return only_epsilon(self.account.guarantees())

    @property
    def statement(self) -> Statement:
        """What the calls so far protected. Raises Misuse before the first call."""
        if self._protection is None:
            raise Misuse("expected a first average before its statement")
        notes = [NOTE] if self.account.events else [NOTE, SUM_NOTE]
        if self._clipped_most:
            notes.append(clipped_note(self._clipped_most))
        return self.account.statement(self.stack, self._protection, notes)


def _is_weight(weight: Any, cap: int) -> bool:
    """Whole numbers of any type count, 3.0 among them; True does not."""
    try:
        return not isinstance(weight, str | bool) and bool(1 <= weight <= cap) and int(weight) == weight
    except (TypeError, ValueError):
        return False
