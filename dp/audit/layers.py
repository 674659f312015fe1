"""Audits of layers: a rehearsal of one stack in memory, and the measured lower bound beside the stated
epsilon.

Belongs here: driving `encode`, `decode` and `events` with made-up updates. Layers that work inside the
client's own loop (`SampleDP`, example level) are rehearsed by whoever has the loop; `audit_sum` takes their
release as well.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.accountants import accountant as make_accountant
from dp.audit.canaries import CanaryAudit, audit_sum
from dp.event_json import from_fact
from dp.events import Relation, Unit
from protocols.layers import Contribution, PrivacyLayer, RoundFacts, RunFacts
from protocols.party_state import CLOSED
from protocols.randomness import SystemRandom
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent
from protocols.store import MemoryStore
from protocols.summation import SecureSum

Vector = NDArray[np.float64]


class Rehearsal:
    """One layer before a plain sum, over rounds in which every client's update is given. For tests and
    audits only.

    clients: in every round; dims: of an update; rounds: of the planned run.
    secure_sum: behind the layer, for what the layer follows of it; it is not played. turns: groups of clients that are
    asked in turns. Every client has a store of its own, and is told which rounds closed with it.
    The sum that the layer sees is exact, reduced modulo M where the layer asks for Z_M.
    """

    def __init__(
        self,
        layer: PrivacyLayer,
        clients: int,
        dims: int,
        rounds: int = 1,
        secure_sum: SecureSum | None = None,
        turns: int = 1,
    ) -> None:
        self.names, self.turns = tuple(f"client-{i:05d}" for i in range(clients)), turns
        cyclic: dict[str, Any] = {"sampling": "cyclic", "rate": 1 / turns} if turns > 1 else {}
        self.run = RunFacts(rounds, clients, -(-clients // turns), dimension=dims, **cyclic)
        self.stores: defaultdict[str, MemoryStore] = defaultdict(MemoryStore)
        self.closed = dict.fromkeys(self.names, 0.0)
        self.stack = Stack([layer, *([secure_sum] if secure_sum else [])], Numbers(weight_cap=1))
        self.stack.plan(self.run)
        self.number = 0

    def release(self, updates: Sequence[Vector], came: int | None = None) -> Vector:
        """The next round's noised sum in real units. `came`: only the first so many clients survive (all by
        default)."""
        plan = self._round()
        total, survivors = self._total(plan, updates, came)
        return np.asarray(plan.decode(total, survivors).vector, dtype=np.float64)

    def summed(self, updates: Sequence[Vector], came: int | None = None) -> Vector:
        """The next round's sum as the server gets it, before it decodes: integers as float64."""
        plan = self._round()
        return self._total(plan, updates, came)[0][: plan.summed.dimension].astype(np.float64)

    def _total(
        self, plan: RoundPlan, updates: Sequence[Vector], came: int | None
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        survivors, given = plan.facts.clients[:came], dict(zip(self.names, updates, strict=False))
        total = np.zeros(plan.dimension, dtype=np.int64)
        for name in survivors:
            total = _reduced(total + self._encoded(plan, name, given[name]), plan.summed.modulus)
        self.closed |= dict.fromkeys(survivors, float(self.number))
        return total, survivors

    def contributions(self, updates: Sequence[Vector]) -> list[Vector]:
        """What every client alone would send in the next round, in real units: what is private by itself in
        `LocalDP`."""
        plan = self._round()
        dims = plan.summed.dimension
        return [
            self._encoded(plan, name, update)[:dims].astype(np.float64) * plan.summed.step
            for name, update in zip(self.names, updates, strict=True)
        ]

    def facts(self) -> tuple[PrivacyEvent, ...]:
        """What the layer says that one round costs, all clients surviving."""
        return self.planned(max(1, self.number))

    def planned(self, number: int) -> tuple[PrivacyEvent, ...]:
        """What the layer says that round `number` costs, all clients surviving."""
        return self._plan(number).events(self.names)

    def _round(self) -> RoundPlan:
        self.number += 1
        return self._plan(self.number)

    def _plan(self, number: int) -> RoundPlan:
        facts = RoundFacts(
            self.run,
            number,
            self.names[(number - 1) % self.turns :: self.turns],
            number.to_bytes(32, "big"),
            {**self.stack.public(), CLOSED: dict(self.closed)},
            random=SystemRandom(),
            scope="rehearsal",
        )
        return self.stack.round(facts, np.zeros(self.run.dimension))

    def _encoded(self, plan: RoundPlan, name: str, update: Vector) -> NDArray[np.int64]:
        own = replace(plan.facts, client=name, store=self.stores[name])
        return plan.encode(Contribution(np.asarray(update, dtype=np.float64)), own)


def _reduced(total: NDArray[np.int64], modulus: int) -> NDArray[np.int64]:
    """Centred modulo M; untouched over Z."""
    if not modulus:
        return total
    return np.asarray((total + modulus // 2) % modulus - modulus // 2, dtype=np.int64)


@dataclass(frozen=True)
class LayerAudit:
    """One layer's measured lower bound beside what it states for the same round, unit, relation and
    delta."""

    layer: str
    unit: Unit
    relation: Relation
    stated: float
    measured: CanaryAudit

    @property
    def sound(self) -> bool:
        """Whether the audit found nothing: the measured bound is at most the stated epsilon."""
        return not self.measured.refutes(self.stated)

    def __str__(self) -> str:
        return (
            f"{self.layer}: measured at least {self.measured.epsilon:.3f}, stated {self.stated:.3f} at delta "
            f"{self.measured.delta:g} per {self.unit}, {self.relation} neighbours "
            f"(false alarms {self.measured.alarm:g})"
        )


def audit_layer(
    layer: PrivacyLayer, *, clients: int, norm: float, delta: float = 1e-10, guesses: int | None = None
) -> LayerAudit:
    """Audit one round of a client-level layer: every client is a canary of L2 norm `norm`, in or zero by a
    fair coin.

    Where the layer's events name single parties (`LocalDP`) the adversary sees every contribution, else the
    released sum.
    """
    rehearsal = Rehearsal(layer, clients, clients)
    stated = [fact for fact in rehearsal.facts() if fact.party in ("", rehearsal.names[0])]
    alone = any(fact.party for fact in rehearsal.facts())

    def release(updates: list[Vector]) -> Vector:
        if not alone:
            return rehearsal.release(updates)
        return np.array([seen[i] for i, seen in enumerate(rehearsal.contributions(updates))])

    measured = audit_sum(release, clients, norm, delta=delta, random=SystemRandom(), guesses=guesses)
    return beside(layer, stated, measured)


def beside(layer: PrivacyLayer, stated: Sequence[PrivacyEvent], measured: CanaryAudit) -> LayerAudit:
    """What was measured beside the price of what the layer states, by RDP."""
    account = make_accountant("rdp")
    for fact in stated:
        account.add(event := from_fact(fact))
    return LayerAudit(layer.name, event.unit, event.relation, account.epsilon(measured.delta), measured)
