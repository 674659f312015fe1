"""Protected rounds of a wrapped strategy, from the server's side: what it must remember, record and charge.

What belongs here: one run's durable facts (numbers, ledger, record, checkpoint) and one round from the strategy's
messages to one averaged reply. What does not: trips (`trips`), Flower's strategy interface (`strategy`).

The order of a round: its number and its price are synced before the first request; the model is replaced whole; then
the record says so. A round that a kill interrupts is abandoned whole, and stays paid for.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl.account import Account
from fl.flower.compat import log
from fl.flower.nodes import Directory, connected
from fl.flower.rounds import (
    CAPPED,
    COUNTERS,
    Reference,
    arrays_of,
    averaged,
    like,
    model_digest,
    plan_round,
    reference_of,
    require_summed,
    tree_of,
)
from fl.flower.run_state import RunState
from fl.flower.server_party import Layout, ServerParty
from fl.flower.server_state import LOST
from fl.flower.trips import Trip
from fl.metrics import decode as decode_metrics
from fl.settings import Settings
from protocols.errors import Aborted, Misuse
from protocols.identity import Identity, Roster
from protocols.layers import PrivacyLayer, RunFacts
from protocols.randomness import SystemRandom
from protocols.roundplan import RoundPlan
from protocols.session import Session
from protocols.stack import Stack
from protocols.statement import Protection, Statement
from protocols.store import Store
from protocols.summation import Total
from protocols.updates import Schema

Tree = dict[str, NDArray[Any]]


@dataclass
class Report:
    """What one round did. number: its session's, as clients count (it never repeats); 0 if there was none."""

    number: int
    asked: tuple[str, ...]
    session: str = ""
    survivors: tuple[str, ...] = ()
    trips: tuple[Trip, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    clipped: int | None = None
    weights_capped: int | None = None
    total: str = ""
    abandoned: str | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of all trips; of that: the slowest node's own computing, the server's, and waiting."""
        parts = {"wall": sum(t.seconds for t in self.trips), "node": sum(t.node for t in self.trips)}
        parts["server"] = sum(t.server for t in self.trips)
        parts["waiting"] = sum(t.waiting for t in self.trips)
        return parts


@dataclass
class ServerOptions:
    """What `PrivateStrategy` was given. identity: signs requests and the record; needed where there is a roster."""

    stack: Stack
    store: Store
    layout: Layout
    roster: Roster | None = None
    identity: Identity | None = None
    min_survivors: int = 2
    poll: float = 0.1
    dropout: float = 0.0
    delta: float | None = None
    local_epochs: int = 1
    notes: tuple[str, ...] = ()


class ProtectedRounds:
    """One run's protected rounds. Raises Misuse for what cannot work, BudgetExceeded for what may not be spent."""

    def __init__(self, options: ServerOptions, account: Account, rounds: int, made_with: Settings) -> None:
        self.options = options
        self.account = account
        self.rounds = rounds
        # noise that was calibrated for an epsilon holds for the rounds that were planned, and no more
        self.made_with = {**made_with, **({"rounds": rounds} if account.calibrated else {})}
        self.reports: list[Report] = []
        self.latest: Report | None = None
        known = (options.store, options.roster, options.identity, options.poll, options.layout)
        self.server = ServerParty(options.stack.secure_sum, *known)
        self.schema: Schema | None = None
        self._run: RunFacts | None = None
        self._strangers: set[int] = set()
        self.account.run = self.server.federation()[0]
        self.bound = RunState(options.store, options.stack, account)
        self.protection: Protection | None = self.bound.resume()

    def require(self, where: str, saved: int | None) -> None:
        """Raises Misuse unless these rounds go on with the run in `where`, or begin one.

        saved: the last session number that the run's files know of; None if there are no files.
        """
        self.bound.require(self.made_with, where, goes_on=saved is not None)
        if (saved or 0) > (opened := self.server.state.last_session()):
            raise Misuse(
                f"the server's state of the run in {where} was lost (it knows of session {opened}, the run of {saved}) "
                "and with it what was spent: put `state` back, or name another folder"
            )

    # -- nodes --

    def directory(self, grid: Grid) -> Directory:
        """Return who is connected now."""
        directory = connected(grid, self.options.roster, () if self.options.roster else self.server.helpers)
        for node in set(directory.unknown) - self._strangers:
            log(WARNING, "node %d is not on the roster and takes no part", node)
        self._strangers |= set(directory.unknown)
        return directory

    # -- a round --

    def play(
        self,
        grid: Grid,
        messages: Mapping[int, Message],
        model: ArrayRecord,
        config: ConfigRecord | None,
        timeout: float,
    ) -> Message | None:
        """Run one round; return one reply with the average, or None if it was abandoned.

        messages: the strategy's, by node id. model, config: what all of them carry. timeout: seconds per trip.
        """
        self.server.require_new_updates()
        directory = self.directory(grid)
        asked = {name: m for node, m in messages.items() if (name := directory.name_of(node)) is not None}
        if not asked:
            nobody = Aborted("no connected node of this round is on the roster")
            self._abandon(self._report(Report(0, ())), nobody)
            return None
        tree = self._tree(model)
        reference = reference_of(tree, self.options.layout.integers)
        run = self._plan_run(directory, tuple(asked), reference)
        names = self._within(run, tuple(sorted(asked)))
        number = self.server.state.next_session()
        public = self.options.stack.public()
        plan = plan_round(
            self.options.stack, run, number, names, public, reference, self.options.layout.metrics
        )
        require_summed(plan, reference, self.options.layout.metrics)
        session = self._try_session(plan, names, number, model_digest(plan, reference, config))
        if session is None:
            return None
        self.protection = self.options.stack.secure_sum.protection(session)
        self.bound.begin(run, self.made_with, self.protection)
        self.bound.charge(plan.events(names), number)
        report = self._report(Report(number, names, session.context.hex()))
        header = self.server.header(session.encode(), number, run, public)
        content = RecordDict({self.options.layout.arrays: arrays_of(tree)})
        if config is not None:
            content[self.options.layout.config] = config
        try:
            total = self.server.sum(grid, directory, session, header, content, timeout)
        except Aborted as error:
            self._abandon(report, error)
            return None
        finally:
            report.trips, report.refusals = self.server.trips, self.server.refusals
        return self._close(report, total, plan, reference, asked[names[0]])

    def lost(self, saved: int) -> Report | None:
        """Return the round that a kill interrupted after inputs had been asked for, as abandoned: not asked again.

        saved: the number of the last session that the run's files know of.
        """
        out = self.server.state.last_asked()
        if out is None or out.number <= saved:
            return None
        return Report(out.number, out.asked, out.session.hex(), abandoned=LOST)

    def _report(self, report: Report) -> Report:
        self.latest = report
        self.reports.append(report)
        return report

    def _tree(self, model: ArrayRecord) -> Tree:
        tree = tree_of(model)
        return like(tree, self.schema) if self.schema else tree

    def _plan_run(self, directory: Directory, names: tuple[str, ...], reference: Reference) -> RunFacts:
        """Return the planned run: that of the first round, kept, as long as a layer was calibrated for its cohort."""
        roster, stack = self.options.roster, self.options.stack
        population = len(roster.with_role("client")) if roster else len(directory.clients)
        if self._run is None:
            self._run = self.bound.run() or RunFacts(
                rounds=self.rounds,
                population=population,
                cohort=len(names),
                dropout=self.options.dropout,
                dimension=reference.schema.dimension,
                local_epochs=self.options.local_epochs,
                delta=self.options.delta,
            )
            stack.plan(self._run)
            for said in stack.outlook(self._run):
                log(WARNING, "%s", said)
        if self._run.dimension != reference.schema.dimension:
            raise Misuse("the model is not the one that this run was planned for")
        if len(names) > self._run.cohort and not planning_layers(stack):
            self._run = replace(self._run, population=population, cohort=len(names))
            stack.plan(self._run)
        return self._run

    def _within(self, run: RunFacts, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return who is asked: everybody, or by lot as many as the layers were calibrated for. Who is to be given the
        sum is always asked.
        """
        if len(names) <= run.cohort:
            return names
        always = [name for name in names if name in self.options.stack.secure_sum.recipients]
        others = [name for name in names if name not in always]
        drawn = secrets.SystemRandom().sample(others, max(0, run.cohort - len(always)))
        chosen = tuple(sorted([*always, *drawn]))
        log(
            WARNING,
            "left out of this round, by lot: %s; %s was calibrated for %d clients a round, and the strategy asks %d",
            ", ".join(name for name in names if name not in chosen),
            ", ".join(planning_layers(self.options.stack)),
            run.cohort,
            len(names),
        )
        return chosen

    def _try_session(
        self, plan: RoundPlan, names: tuple[str, ...], number: int, model: bytes
    ) -> Session | None:
        """Return the session. Later in a run, too few connected clients for one make an abandoned round: None."""
        try:
            return self._session(plan, names, number, model)
        except Misuse as error:
            if not self.reports:
                raise
            self._abandon(self._report(Report(number, names)), Aborted(str(error)))
            return None

    def _session(self, plan: RoundPlan, names: tuple[str, ...], number: int, model: bytes) -> Session:
        return self.options.stack.secure_sum.session(
            names,
            plan.dimension,
            plan.bound,
            random=SystemRandom(),
            modulus=plan.summed.modulus,
            round=number,
            model=model,
            min_survivors=max(self.options.min_survivors, plan.summed.min_survivors),
            memory=self.server.state.recall(self.options.stack.secure_sum),
        )

    def _abandon(self, report: Report, error: Aborted) -> None:
        report.abandoned = error.reason
        log(WARNING, "round %d is abandoned: %s; the model stays", report.number, report.abandoned)

    def _close(
        self, report: Report, total: Total, plan: RoundPlan, reference: Reference, first: Message
    ) -> Message | None:
        report.survivors = tuple(report.asked[i] for i in total.survivors)
        report.total = _digest(total.total)
        aggregate = plan.decode(total.total, report.survivors)
        self.bound.save_layers()
        report.clipped = plan.clipped(aggregate)
        if CAPPED in aggregate.coordinates:
            report.weights_capped = int(aggregate.coordinates[CAPPED][0])
        report.metrics = decode_metrics(aggregate.coordinates, self.options.layout.metrics)
        if aggregate.weight <= 0:
            self._abandon(report, Aborted("the survivors hold no examples"))
            return None
        mean = np.asarray(aggregate.vector, np.float64)[: reference.schema.dimension] / aggregate.weight
        tree = averaged(reference, mean, aggregate.coordinates.get(COUNTERS))
        self.schema = reference.schema
        keys = self.options.layout
        metrics: dict[str, float | int] = {**report.metrics, keys.weight: aggregate.weight}
        content = RecordDict({keys.arrays: arrays_of(tree), "metrics": MetricRecord(dict(metrics))})
        log(
            INFO,
            "round %d: %d of %d in the sum, %s",
            report.number,
            len(report.survivors),
            len(report.asked),
            ", ".join(f"{k} {v:.1f} s" for k, v in report.seconds.items()),
        )
        return Message(content, reply_to=first)

    def farewell(self, grid: Grid, timeout: float) -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it."""
        if self._run is None or not self.reports:
            return ()
        return self.server.farewell(grid, self.directory(grid), self._run, timeout)

    def statement(self) -> Statement:
        """Return what is protected so far. Raises Misuse before the first round."""
        if self.protection is None:
            raise Misuse("no round was begun yet")
        return self.bound.statement(self.protection, (*self.options.notes, *self.server.state.notes()))


def planning_layers(stack: Stack) -> list[str]:
    """Return the layers that plan for the whole run, its cohort included: they are not planned anew in its middle."""
    return [layer.name for layer in stack.layers if type(layer).plan is not PrivacyLayer.plan]


def _digest(total: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(total, np.int64).data).hexdigest()
