"""SampleDP: example-level differential privacy inside each client's own loop.

Every client's update is private towards everybody, the server included, before it is sent. Belongs here:
calibration for the whole planned run from a public number of examples and a rate, the account and the refusal to
overspend, the exchange of the loop's objects. How a step is made private belongs to `engine` and what it
uses.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dp.accountants import accountant as make_accountant
from dp.event_json import to_fact
from dp.events import Event, Planned, Relation, Unit, repeat
from dp.layering import Ledgers, Price, PricedLayer, discrete
from dp.sample.errors import UnaccountedStep
from dp.sample.options import ASSUMED, AdaptiveClip, Clipping
from protocols.errors import BudgetExceeded, Misuse, StackError
from protocols.layers import Compute, Contribution, LocalTask, RoundFacts, RunFacts, Signal
from protocols.statement import PrivacyEvent

if TYPE_CHECKING:
    from dp.sample.audit.probe import Probed
    from dp.sample.engine import ClientEngine


@dataclass
class ClientAccount:
    """One client's own account: its size, rate, noise, steps planned for the run and for a round, steps taken. Numbers
    only; no data."""

    examples: int
    rate: float
    multiplier: float
    planned: int
    event: Event
    steps: int
    taken: int = 0
    engine: "ClientEngine | None" = field(default=None, repr=False)


NOBODY = "{name}: {client} holds no example: leave it out, or give a public number, examples=..."


class SampleDP(PricedLayer):
    """Example-level DP-SGD inside each client's own loop, through Opacus (Abadi et al., CCS 2016, Algorithm 1).
    Neighbours: one example more or less. It holds against everybody, the server included.

    What is promised, for each client by itself:

    - epsilon: price of the whole planned run at `delta`, > 0; or give `noise_multiplier` (default: None).
    - delta: in (0, 1) (default: None, the run's delta, else 1e-5).
    - noise_multiplier: the noise's standard deviation over the clip, > 0, in place of epsilon (default: None).
    - examples: a public number of examples, >= 1, that rate, steps and noise follow in place of the client's own
      (default: None, each client's own number, which is then declared public).
    - accountant: "rdp" (Renyi; default) or "pld" (privacy loss distributions), for calibration.
    - ledger: from a client's name to its own `Ledger`, as a function or a mapping, charged before its update
      leaves; None from the function for a client without one (default: None).

    A step:

    - clip: L2 norm of an example's gradient, > 0; a tuple of norms, one per parameter tensor, with
      clipping="per-layer"; or a `dp.sample.AdaptiveClip` (default: 1).
    - clipping: "flat" (default), "per-layer" or "adaptive".
    - gradients: how an example's gradient is found: "hooks" (default), "functorch" (any module), "ew" (torch's
      expanded weights) or "ghost" (least memory).
    - batch_size: expected examples of a step, >= 1 (default: None, the loader's).
    - physical_batch: the most examples in memory at once, >= 1 (default: None, the whole batch).
    - schedule: from a step's number in the run (from 0, empty batches included) to a factor > 0 of the optimizer's
      learning rates, in place of a scheduler in the loop (default: None).
    - repair: replace modules that cannot be trained privately, where parameters keep their names;
      `dp.sample.repaired(factory)` does so for a whole federation (default: False).

    Clients count equally, and no metric is sent. Before a client's first step a few examples pass through its loop,
    to prove that each row of gradients belongs to a single example.

    Raises Misuse for a value out of range and for a loop that does not take the optimizer; StackError where the
    strategy does not fit. At a client, before its update leaves: UnsupportedModule and NotPerExample for a model
    without gradients of single examples, UnaccountedStep for a loop that steps otherwise than planned,
    BudgetExceeded beyond the planned steps or the client's own ledger.

        privacy = [SampleDP(epsilon=8, delta=1e-5, clip=1.0), SecAggPlus()]
        Federation(make, loaders, privacy=privacy)   # fit(rounds=50) then costs every client epsilon 8
    """

    name = "sample-dp"
    charges_parties = True
    takes_blocks = True
    own_options = frozenset({"ledger", "gradients", "physical_batch", "repair"})

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float | None = None,
        clip: float | tuple[float, ...] | AdaptiveClip = 1.0,
        clipping: str = "flat",
        gradients: str = "hooks",
        noise_multiplier: float | None = None,
        batch_size: int | None = None,
        physical_batch: int | None = None,
        repair: bool = False,
        accountant: str = "rdp",
        ledger: Ledgers = None,
        examples: int | None = None,
        schedule: Callable[[int], float] | None = None,
    ) -> None:
        if schedule is not None and not callable(schedule):
            raise Misuse(f"schedule: expected a function of the step's number, got {schedule!r}")
        if clipping not in ("flat", "per-layer", "adaptive"):
            raise Misuse(f'expected clipping "flat", "per-layer" or "adaptive", got {clipping!r}')
        if clipping == "adaptive" and not isinstance(clip, AdaptiveClip):
            if isinstance(clip, tuple):
                raise Misuse("adaptive clipping follows one norm, got several")
            clip = AdaptiveClip(start=float(clip), least=float(clip) * 1e-3, most=float(clip) * 1e3)
        if isinstance(clip, AdaptiveClip) and clipping == "per-layer":
            raise Misuse("per-layer clipping has fixed norms")
        if batch_size is not None and batch_size < 1:
            raise Misuse(f"expected a batch size of at least 1, got {batch_size}")
        if examples is not None and examples < 1:
            raise Misuse(f"expected a public number of at least 1 example, got {examples}")
        self.clipping = Clipping(clip, clipping == "per-layer", gradients, physical_batch)
        super().__init__(Price(epsilon, delta, noise_multiplier, accountant), ledger, self.clipping.start)
        self.batch_size, self.examples, self.repair, self.schedule = batch_size, examples, repair, schedule
        self.owns = frozenset({"optimizer"})
        self.accounts: dict[str, ClientAccount] = {}
        self._scopes: dict[str, str] = {}
        self._restored: dict[str, dict[str, float]] = {}
        self._probed: Probed | None = None

    def describe(self) -> str:
        return (
            f"{self.name}: DP-SGD in clients, {self.clipping.gradients} gradients, clip {self.clipping.start:g} "
            f"per example, add-remove neighbours; holds against everybody; {self._declared()}; assumed: {ASSUMED}"
        )

    @property
    def sizes_are_public(self) -> bool:
        return self.examples is None

    def _declared(self) -> str:
        if self.examples is None:
            return "each client's number of examples is public: its rate, steps and noise follow it"
        return f"rate, steps and noise follow the public number of {self.examples} examples, no client's own"

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        for block in facts.run.blocks:
            if block.name == given.block and not block.derived:
                raise StackError(
                    f"{self.name} makes the update private in training, and the block {block.name!r} is made from a "
                    "client's examples otherwise: nothing clips or noises it"
                )
        return replace(given, weight_cap=1, exact_coordinates=False)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        return replace(contribution, weight=1, coordinates={})

    # -- the client's loop --

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def private(task: LocalTask) -> dict[str, float]:
            return self._train(compute, task, facts)

        return private

    def _train(self, compute: Compute, task: LocalTask, facts: RoundFacts) -> dict[str, float]:
        if self.repair:
            self._repair(task)
        account = self._account(task, facts)
        engine = self._engine(account, facts)  # takes back what earlier processes spent
        self._refuse_overspending(account, facts)
        facts.afford((to_fact(self._round(account), adversary="server", party=facts.client),))
        base = task.model
        given = base, task.optimizer, task.loader, task.criterion
        schedule = self._factors(account.steps, facts.number)
        attached = engine.begin(*given, passes=task.epochs, schedule=schedule)
        task.model, task.optimizer, task.criterion = attached.model, attached.optimizer, attached.criterion
        task.loader = attached.loader
        try:
            with engine.watched():
                self._probed = engine.probe(lambda: compute(task), facts.whose)
            with engine.watched(secret=True):
                metrics = compute(task)
            steps = engine.finish(facts.whose)
        except BaseException:  # whatever broke the loop, Opacus' hooks come off the model
            engine.abandon()
            raise
        task.model = base
        account.taken += steps
        self._keep(account, facts)
        self.charge(account.event, facts, steps)
        return metrics

    def _repair(self, task: LocalTask) -> None:
        from dp.sample.validation import problems, repair

        if problems(task.model):
            names = list(task.model.state_dict())
            fixed, changes = repair(task.model)
            if list(fixed.state_dict()) != names:
                listed = ", ".join(f"{c.name} ({c.before} to {c.after})" for c in changes)
                raise UnaccountedStep(
                    f"repair changes what the model's state holds: {listed}; give the federation repaired(factory) in "
                    "place of the factory, so that server and clients have one architecture"
                )
            fixed.load_state_dict(task.model.state_dict())
            _rebind(task, fixed)

    def _factors(self, steps: int, round: int) -> tuple[float, ...]:
        """The round's factors, known before it begins. Raises Misuse."""
        if self.schedule is None:
            return ()
        numbers = range((round - 1) * steps, round * steps)
        made = tuple(float(self.schedule(number)) for number in numbers)
        for number, factor in zip(numbers, made, strict=True):
            if not 0 < factor < math.inf:
                raise UnaccountedStep(
                    f"schedule: expected a finite factor > 0 for every step, got {factor} for step {number}"
                )
        return made

    def _steps(self, account: ClientAccount) -> int:
        return max(1, round(1 / account.rate))

    def _account(self, task: LocalTask, facts: RoundFacts) -> ClientAccount:
        if task.client not in self.accounts:
            batch = self.batch_size or getattr(task.loader, "batch_size", None)
            if not batch:
                raise Misuse("expected batch_size, or a loader that has one: the rate follows from it")
            examples = self.examples or len(task.loader.dataset)
            if not examples:
                raise Misuse(NOBODY.format(name=self.name, client=task.client))
            self.accounts[task.client] = self._planned(examples, int(batch), task.epochs, facts.run)
            self._scopes[task.client] = facts.scope
        if self._scopes[task.client] != facts.scope:
            raise UnaccountedStep(
                f"{self.name}: this layer has trained {task.client} in another run: make a new one; nothing was trained"
            )
        return self.accounts[task.client]

    def _planned(self, examples: int, batch: int, epochs: int, run: RunFacts) -> ClientAccount:
        steps = max(1, math.ceil(examples / batch))
        rate, planned = 1 / steps, run.rounds * epochs * steps
        once = partial(_step, rate, run.dimension + 1)
        multiplier = self.calibrated(run, lambda: self.price.multiplier(once, planned, run), rate, planned)
        event = self.step_event(multiplier, rate, examples, run)
        return ClientAccount(examples, rate, multiplier, planned, event, epochs * steps)

    @staticmethod
    def _round(account: ClientAccount) -> Event:
        """What a round spends: its planned steps, known before it trains; it takes no others."""
        return repeat(account.event, account.steps)

    def step_event(self, multiplier: float, rate: float, examples: int, run: RunFacts) -> Event:
        """One step: gradient and, with adaptive clipping, the count, together."""
        if isinstance(self.clipping.clip, AdaptiveClip):
            width = 2 * self.clipping.clip.count_std(rate * examples)
            if multiplier >= width:
                raise Misuse(
                    f"adaptive clipping needs count noise above half the noise multiplier {multiplier:.3g}: raise "
                    f"count_noise above {multiplier / 2 / (rate * examples):.3g}, or take larger batches"
                )
        return _step(rate, run.dimension + 1, multiplier)

    def _refuse_overspending(self, account: ClientAccount, facts: RoundFacts) -> None:
        after = account.taken + account.steps
        if self.price.epsilon is None or after <= account.planned:
            return
        price = (
            make_accountant(self.price.accountant).add(account.event, after).epsilon(self.price.at(facts.run))
        )
        if price > self.price.epsilon:
            raise BudgetExceeded(
                f"{account.taken} of {account.planned} planned steps are taken; {account.steps} more would bring "
                f"epsilon to {price:.3g}, beyond {self.price.epsilon:g}; nothing was trained. A layer keeps its "
                "account: make a new one for a new run, and a ledger to add runs up"
            )

    def _require_plan(self, stored: Mapping[str, float], account: ClientAccount, client: str) -> None:
        """Raises BudgetExceeded where an earlier process of this run planned otherwise: both plans' steps together cost
        more than either was calibrated for. Noise that is given may go on for more rounds.
        """
        for name, now in _plan(account).items():
            if name == "planned" and self.price.epsilon is None:
                continue
            if name in stored and not math.isclose(stored[name], now, rel_tol=1e-9):
                raise BudgetExceeded(
                    f"{client} began this run with {name} {stored[name]:.6g} of SampleDP, and it is {now:.6g} now; "
                    "nothing was trained. Keep the public number of examples, batch size, epochs and rounds of a run "
                    "that has begun"
                )

    def _engine(self, account: ClientAccount, facts: RoundFacts) -> "ClientEngine":
        from dp.sample.engine import ClientEngine

        if account.engine is None:
            engine = ClientEngine(
                self.clipping, account.multiplier, account.rate, self._steps(account), random=facts.random
            )
            engine.size(account.examples)
            engine.probed = self._probed
            stored = _stored(facts) | self._restored.get(facts.client, {})
            account.taken = max(account.taken, int(stored.get("taken", 0)))
            self._require_plan(stored, account, facts.client)
            engine.resume(account.taken, stored.get("clip"), checked=bool(stored.get("checked")))
            account.engine = engine
        return account.engine

    def _keep(self, account: ClientAccount, facts: RoundFacts) -> None:
        if facts.store is not None:
            # follows its examples: its own store alone
            checked = account.engine is not None and account.engine.checked
            facts.store.put(_place(facts), json.dumps({"checked": checked, **_kept(account)}).encode())

    # -- the account --

    def kind(self, run: RunFacts | None) -> Event:
        return _step(0.5, 1, 1.0)

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        """What each survivor spends in this round, in its own name: its planned steps, where its rate is known here;
        else what the whole plan may cost, from its first round on."""
        return tuple(
            to_fact(self._spent(name, facts.run), adversary="server", party=name) for name in survivors
        )

    def planned(self, facts: RoundFacts) -> tuple[PrivacyEvent, ...]:
        """None: they follow each client's own examples, and its own account."""
        return ()

    def _spent(self, client: str, run: RunFacts) -> Event:
        account, examples = self.accounts.get(client), self.examples or run.sizes.get(client)
        if account is None and examples and self.batch_size:
            account = self._planned(examples, self.batch_size, run.local_epochs, run)
        if account is not None:
            return self._round(account)
        if run.sizes.get(client) == 0 and self.examples is None:
            raise Misuse(NOBODY.format(name=self.name, client=client))
        if self.price.epsilon is None:
            raise Misuse(
                f"{self.name} with noise_multiplier needs batch_size and examples, or the clients' sizes, to state "
                f"what {client} spends"
            )
        common: dict[str, Any] = {"unit": Unit.EXAMPLE, "relation": Relation.ADD_REMOVE}
        return Planned(epsilon=self.price.epsilon, delta=self.price.at(run), **common)

    def epsilon(self, client: str, delta: float, accountant: str | None = None) -> float:
        """What a client has spent so far at `delta`, by its own account. Raises Misuse for a client that
        has not trained here."""
        account = self.accounts.get(client)
        if account is None:
            raise Misuse(f"{client} has not trained here")
        return (
            make_accountant(accountant or self.price.accountant)
            .add(account.event, account.taken)
            .epsilon(delta)
        )

    def state(self) -> dict[str, Any]:
        return {"clients": {name: _kept(account) for name, account in self.accounts.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._restored = {name: dict(kept) for name, kept in state.get("clients", {}).items()}


def _step(rate: float, dims: int, multiplier: float) -> Event:
    return discrete(multiplier, Unit.EXAMPLE, Relation.ADD_REMOVE, dims, rate=rate)


def _kept(account: ClientAccount) -> dict[str, float]:
    clip = None if account.engine is None else account.engine.clip
    kept = {"taken": account.taken, **_plan(account)}
    return kept | ({} if clip is None else {"clip": clip})


def _plan(account: ClientAccount) -> dict[str, float]:
    """What a client's whole run was calibrated to, together: rate, noise, steps in all and in a round."""
    return {
        "rate": account.rate,
        "multiplier": account.multiplier,
        "planned": account.planned,
        "steps": account.steps,
    }


def _stored(facts: RoundFacts) -> dict[str, float]:
    data = facts.store.get(_place(facts)) if facts.store is not None else None
    return dict(json.loads(data)) if data else {}


def _place(facts: RoundFacts) -> str:
    """Where a client's store keeps its steps of this run; another run has a plan of its own."""
    return f"{SampleDP.name}/{facts.scope}"


def _rebind(task: LocalTask, model: Any) -> None:
    """Point the optimizer at the repaired model's parameters, group by group."""
    place = {id(p): i for i, p in enumerate(task.model.parameters())}
    fresh = list(model.parameters())
    for group in task.optimizer.param_groups:
        group["params"] = [fresh[place[id(p)]] for p in group["params"]]
    task.model = model


def repaired(factory: Callable[..., Any]) -> Callable[[], Any]:
    """Wrap a model factory so that every model it gives is repaired (`dp.sample.validation.repair`): one
    architecture for all."""

    def make() -> Any:
        from dp.sample.validation import repair

        return repair(factory())[0]

    return make
