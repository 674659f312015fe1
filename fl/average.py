"""SecureAverage: one call in place of the average that a user's own loop takes. No training here.

What does not belong here: `Federation`, which owns the loop too.
"""

import secrets
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fl import arguments
from fl.account import Account
from fl.engines.memory import Drop, MemoryEngine
from fl.registry import layers_of
from fl.round import (
    Broadcast,
    Mean,
    Reference,
    RoundResult,
    Tree,
    Work,
    contribution_of,
    moved,
    open_round,
    play,
    reference_of,
    statement_of,
)
from fl.round.remarks import Speaker
from fl.run_options import RunOptions
from fl.tensors import flatten_state, to_state, to_tree
from fl.tensors.trained import require_kept, rules_of_state
from protocols.errors import BudgetExceeded, Misuse, StackError, require
from protocols.guarantee import only_epsilon
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.policy import Policy
from protocols.session import Session
from protocols.simulate import Outcome
from protocols.stack import Numbers, Stack
from protocols.statement import Protection, Statement, weakest
from protocols.store import MemoryStore
from protocols.summation import SecureSum
from protocols.updates import Flat, schema_of


class SecureAverage:
    """The weighted average of state dicts, each client's own hidden behind privacy layers. Calling it takes one
    average.

    Layers and the run:

    - privacy: layers in the order in which a client applies them; at most one secure sum, last (default: none).
    - rounds: calls planned, >= 1, for layers that calibrate noise (default: 1).
    - policy: a `protocols.Policy`, what every client insists on (default: the secure sum's).
    - ledger: a `dp.Ledger`, charged before anything is summed (default: None, an account in memory).
    - delta: of the privacy account, in (0, 1) (default: None, the layers').

    From floats to integers:

    - bits: per value, 2 to 32 (default: 16).
    - range: public bound on each coordinate's difference to the reference, > 0 (default: None, from layers or
      reference).
    - weight_cap: public cap on a client's weight, >= 1 (default: 10,000).

    What is averaged:

    - parameters: "all" (default) or patterns of names ("head.*"); the rest must be the reference's, and stays.
    - buffers: running statistics: "sum" (default), or "local" (they stay the reference's).
    - integers: integer tensors: "keep" (the reference's; default), "sum" or "refuse".

    Each call is a round of its own: how many survivors a layer demands, and each client's share of the noise, follow
    from the clients that the call names. With fewer survivors than a layer or the secure sum demands the call is
    abandoned. After a call, an abandoned one too, these say what it did: `survivors`, `outcome` (seconds, bytes),
    `clipped_share`, `statement`, `epsilon`.

    Raises Misuse for a value of another type or range, StackError for layers that do not fit each other or must own
    the training loop.

        average = SecureAverage([SecAgg()])
        start = {"w": torch.zeros(3)}
        sent = {name: {"w": torch.ones(3)} for name in "abcd"}
        state = average(sent, weights={"a": 10, "b": 20, "c": 10, "d": 5}, reference=start)
        state["w"], average.survivors
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
        parameters: str | Sequence[str] = "all",
        buffers: str = "sum",
    ) -> None:
        self.options = RunOptions(
            bits=bits,
            range=range,
            weight_cap=weight_cap,
            integers=integers,
            parameters=parameters,  # type: ignore[arg-type]  # a list becomes a tuple
            buffers=buffers,
            delta=delta,
        )
        self.stack = Stack(layers_of(privacy), self.options.numbers)
        for layer in self.stack.layers:
            if layer.needs_local():
                raise StackError(
                    f"{type(layer).__name__} must own the local training: use Federation instead of SecureAverage"
                )
        self.rounds, self.policy = arguments.checked("rounds", rounds), arguments.checked("policy", policy)
        self.account = Account(
            self.stack.layers, self.options.delta, arguments.ledger(ledger), run=secrets.token_hex(8)
        )
        self.account.check(self.stack.kinds(RunFacts(self.rounds, 1, 1)))
        self.calls = 0
        self.survivors: tuple[str, ...] = ()
        self.outcome: Outcome | None = None
        self.clipped_share: float | None = None
        self._stores: defaultdict[str, MemoryStore] = defaultdict(MemoryStore)
        self._protection: Protection | None = None
        self._run: RunFacts | None = None
        self._history: list[RoundResult] = []
        self._speaker = Speaker()

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

        Raises Misuse (naming client and tensor) for NaN (which a layer of client-level DP counts as zero instead),
        another shape, or a weight that is no integer from 1 to the cap;
        TooFewSurvivors if too many left; BudgetExceeded before anything is released.
        """
        if not isinstance(updates, Mapping) or not updates:
            raise Misuse(
                "updates: expected a mapping of client -> state dict, or None for one that left, got "
                f"{type(updates).__name__ if not isinstance(updates, Mapping) else 'none'}"
            )
        names = tuple(str(name) for name in updates)
        require(len(set(names)) == len(names), "distinct names of clients", names, "updates")
        by_name = dict(zip(names, updates.values(), strict=True))
        counts = self._weights(names, weights)
        paid = len(self.account.rounds)
        if self.account.calibrated and paid >= self.rounds:
            raise BudgetExceeded(
                f"{paid} calls were paid for of the {self.rounds} that the noise was calibrated for: "
                "pass SecureAverage the number of calls as rounds=..., or give the layer a noise_multiplier"
            )
        start = self._reference(reference)
        present = {name: state for name, state in by_name.items() if state is not None}
        broadcast = self._open(names, start, weighted=weights is not None)
        for name, state in present.items():
            self._flat(name, state, start)  # a bad one is refused before anything is paid for

        def contribute(broadcast: Broadcast, own: RoundFacts) -> Contribution:
            return contribution_of(
                broadcast, self._flat(own.client, present[own.client], start), counts[own.client]
            )

        tree = self._play(broadcast, contribute, [name for name in names if name not in present])
        return to_state(tree, start.schema, reference)

    def _flat(self, name: str, state: Mapping[str, Any], start: Reference) -> Flat:
        try:
            flat = flatten_state(state, start.schema, not self.stack.counts_broken_as_zero)
            require_kept(flat, start)
            return flat
        except Misuse as error:
            raise Misuse(f"client {name!r}: {error}") from None

    def _reference(self, state: Mapping[str, Any]) -> Reference:
        tree, labels = to_tree(state)
        rules = rules_of_state(state, self.options.parameters, self.options.buffers)
        start = reference_of(tree, schema=schema_of(tree, self.options.integers, labels, rules))
        if start.schema.dimension == 0:
            raise Misuse("reference: holds no floating-point value: nothing to average")
        return start

    def _weights(self, names: tuple[str, ...], weights: Any) -> dict[str, int]:
        if weights is None:
            return dict.fromkeys(names, 1)
        if isinstance(weights, Mapping):
            given = {str(k): v for k, v in weights.items()}
            if unknown := sorted(given.keys() - set(names)):
                raise Misuse(f"weights: {unknown[0]!r} is none of the clients in updates, {list(names)}")
        else:
            listed = list(weights) if hasattr(weights, "__len__") else []
            require(len(listed) == len(names), f"one per client, {len(names)}", f"{weights!r}", "weights")
            given = dict(zip(names, listed, strict=True))
        cap = self.stack.numbers.weight_cap
        for name in names:
            if not _is_weight(given.get(name), cap):
                raise Misuse(
                    f"client {name!r}: expected an integer weight from 1 to the public cap {cap}, got "
                    f"{given.get(name)!r}; pass numbers of examples, or raise weight_cap"
                )
        return {name: int(given[name]) for name in names}

    def _open(self, names: tuple[str, ...], start: Reference, *, weighted: bool) -> Broadcast:
        self.calls += 1
        run = RunFacts(
            self.rounds, len(names), len(names), dimension=start.schema.dimension, delta=self.options.delta
        )
        if self._run is None:
            self.stack.plan(run)
            self._run = run  # only now: what one call cannot plan, the next must
            for said in self.stack.outlook(run):
                warnings.warn(said, stacklevel=4)
        return open_round(self.stack if weighted else self._unweighted(), run, self.calls, names, start)

    def _unweighted(self) -> Stack:
        numbers = self.stack.numbers
        return Stack([*self.stack.layers, self.stack.secure_sum], Numbers(numbers.bits, numbers.range, 1))

    def _play(self, broadcast: Broadcast, work: Work, left: Sequence[str]) -> Tree:
        """Return the average of one call. Raises what abandoned it."""
        engine = MemoryEngine(
            self.stack.secure_sum, work, departures=partial(_leaving, left), policy=self.policy
        )
        engine.stores = self._stores
        trees: list[Tree] = []

        def take(means: tuple[Mean, ...]) -> None:
            trees.append(moved(broadcast.reference, means[0].vector, means[0].counters))

        played = play([broadcast], engine, self.stack, self.account, take=take)
        if played.protection is not None:
            self._protection = weakest(played.protection, self._protection)
        self.outcome, self.survivors = engine.outcome, played.result.survivors
        self.clipped_share = played.result.clipped_share
        self._history.append(played.result)
        self._speaker.hear(played.result)
        if played.error is not None:
            raise played.error
        return trees[0]

    @property
    def epsilon(self) -> float | None:
        """The price of all calls so far, None without DP. Raises Misuse where there are several guarantees."""
        return only_epsilon(self.account.guarantees())

    @property
    def statement(self) -> Statement:
        """What the calls so far protected. Raises Misuse before a first call began."""
        if self._protection is None:
            raise Misuse("expected a first average before its statement")
        noted = MemoryEngine.notes, self._history, self._run
        return statement_of(self.stack, self._protection, self.account, *noted)


def _leaving(left: Sequence[str], protocol: SecureSum, session: Session) -> tuple[Sequence[str], Drop]:
    """The clients that left send nothing, from the first stage on."""
    return left, {protocol.stages(session)[0].name: left}


def _is_weight(weight: Any, cap: int) -> bool:
    """Whole numbers of any type count, 3.0 among them; True does not."""
    try:
        return not isinstance(weight, str | bool) and bool(1 <= weight <= cap) and int(weight) == weight
    except (TypeError, ValueError):
        return False
