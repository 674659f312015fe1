"""Protected rounds of a wrapped strategy, from the server's side: what it must remember, record and charge.

What belongs here: one run's durable facts (numbers, ledger, record, checkpoint) and one round from the
strategy's messages to one averaged reply. What does not: trips (`trips`), Flower's strategy interface
(`strategy`).

The order of a round: its number and what it may spend are synced before the first request; the ledger is
charged before the total is decoded; the model is replaced whole; then the record says so. A round that a
kill interrupts is abandoned whole, and what it may have spent is charged when the run goes on.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl.account import Account
from fl.flower.compat import single_reply
from fl.flower.envelope import CLOSE, VERSION, Header, Request, RunHeader, pack
from fl.flower.nodes import Directory, connected
from fl.flower.rounds import (
    Reference,
    arrays_of,
    averaged,
    like,
    model_digest,
    plan_round,
    reference_of,
    tree_of,
)
from fl.flower.trips import Exchange, Summed, SumOverGrid, Trip
from fl.metrics import decode as decode_metrics
from protocols.errors import Aborted, Misuse
from protocols.identity import Identity, Roster
from protocols.kernel import Party
from protocols.layers import RunFacts
from protocols.randomness import SystemRandom
from protocols.record import GENESIS, HEAD_PURPOSE
from protocols.runtime import recall
from protocols.session import Session
from protocols.stack import RoundPlan, Stack
from protocols.statement import Event, Protection, Statement
from protocols.store import Store
from protocols.summation import SecureSum
from protocols.updates import Schema

NO_SESSION = bytes(32)
Tree = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Names:
    """The keys that the wrapped strategy uses in its records."""

    arrays: str
    config: str
    weight: str


@dataclass
class Report:
    """What one round did. strategy_round: as the strategy counts, number: as clients count (it never
    repeats).
    """

    number: int
    asked: tuple[str, ...]
    session: str = ""
    survivors: tuple[str, ...] = ()
    trips: tuple[Trip, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    clipped: int | None = None
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
    """What `PrivateStrategy` was given. identity: signs requests and the record; needed where there is a
    roster.
    """

    stack: Stack
    store: Store
    names: Names
    roster: Roster | None = None
    identity: Identity | None = None
    metrics: tuple[str, ...] = ()
    integers: str = "keep"
    min_survivors: int = 2
    poll: float = 0.1
    dropout: float = 0.0
    delta: float | None = None
    local_epochs: int = 1


class ProtectedRounds:
    """One run's protected rounds. Raises Misuse for what cannot work, BudgetExceeded for what may not be
    spent.
    """

    def __init__(self, options: ServerOptions, account: Account, rounds: int) -> None:
        self.options = options
        self.account = account
        self.rounds = rounds
        self.reports: list[Report] = []
        self.head = GENESIS
        self.schema: Schema | None = None
        self.protection: Protection | None = None
        self._run: RunFacts | None = None
        self._directory: Directory | None = None
        self._resume()

    # -- nodes --

    def directory(self, grid: Grid) -> Directory:
        """Return who is connected now."""
        directory = connected(grid, self.options.roster, self._helpers())
        for node in directory.unknown:
            log(WARNING, "node %d is not on the roster and takes no part", node)
        self._directory = directory
        return directory

    def _helpers(self) -> tuple[Party, ...]:
        """Return the helpers that a session needs; only asked where no roster says who they are."""
        protocol = self.options.stack.secure_sum
        if type(protocol).helpers is SecureSum.helpers or self.options.roster is not None:
            return ()
        return protocol.helpers(protocol.session(["a", "b", "c"], 1, 1, random=SystemRandom()))

    # -- a round --

    def play(self, grid: Grid, messages: Sequence[Message], timeout: float) -> Message | None:
        """Run one round over the nodes of `messages`; return one reply with the average, or None if it was
        abandoned.
        """
        directory = self.directory(grid)
        asked = {name: m for m in messages if (name := directory.name_of(m.metadata.dst_node_id)) is not None}
        if not asked:
            log(WARNING, "no connected node of this round is on the roster")
            return None
        names = tuple(sorted(asked))
        first = asked[names[0]]
        tree, config = self._shown(list(asked.values()))
        reference = reference_of(tree, self.options.integers)
        run = self._plan_run(directory, names, reference)
        names = names[: run.cohort]
        number = self._open()
        public = self.options.stack.public()
        plan = plan_round(self.options.stack, run, number, names, public, reference, self.options.metrics)
        session = self._session(plan, names, number, model_digest(plan, reference, config))
        self.protection = self.options.stack.secure_sum.protection(session)
        self._pending(plan.events(names), number)
        report = Report(number, names, session.context.hex())
        self.reports.append(report)
        header = self._header(session.encode(), run, public)
        content = RecordDict({self.options.names.arrays: arrays_of(tree)})
        if config is not None:
            content[self.options.names.config] = config
        try:
            summed = self._sum(grid, directory, session, header, content, timeout)
        except Aborted as error:
            self._abandon(report, error)
            return None
        return self._close(report, summed, plan, reference, first)

    def _shown(self, messages: Sequence[Message]) -> tuple[Tree, ConfigRecord | None]:
        """Return the one model and configuration that all nodes are sent. Raises Misuse if they differ."""
        keys = self.options.names
        trees = [m.content.array_records.get(keys.arrays) for m in messages]
        configs = [m.content.config_records.get(keys.config) for m in messages]
        if trees[0] is None or any(t != trees[0] for t in trees) or any(c != configs[0] for c in configs):
            raise Misuse("the strategy must send every node of a round the same model and configuration")
        tree = tree_of(trees[0])
        return (like(tree, self.schema) if self.schema else tree), configs[0]

    def _plan_run(self, directory: Directory, names: tuple[str, ...], reference: Reference) -> RunFacts:
        """Fix the planned run at its first round and keep it: layers are calibrated for it once."""
        if self._run is None:
            roster = self.options.roster
            population = len(roster.with_role("client")) if roster else len(directory.clients)
            kept = self.options.store.get("flower/run")
            if kept is not None:
                self._run = RunHeader.decode(kept).facts()
            else:
                self._run = RunFacts(
                    rounds=self.rounds,
                    population=population,
                    cohort=len(names),
                    dropout=self.options.dropout,
                    dimension=reference.schema.dimension,
                    local_epochs=self.options.local_epochs,
                    delta=self.options.delta,
                )
                self.options.store.put("flower/run", RunHeader.of(self._run).encode())
            self.options.stack.plan(self._run)
        if self._run.dimension != reference.schema.dimension:
            raise Misuse("the model is not the one that this run was planned for")
        return self._run

    def _session(self, plan: RoundPlan, names: tuple[str, ...], number: int, model: bytes) -> Session:
        least = max(self.options.min_survivors, plan.summed.min_survivors)
        return self.options.stack.secure_sum.session(
            names,
            plan.dimension,
            plan.bound,
            random=SystemRandom(),
            modulus=plan.summed.modulus,
            round=number,
            model=model,
            min_survivors=min(least, len(names)),
            memory=recall(self.options.store, self.options.stack.secure_sum),
        )

    def _sum(
        self,
        grid: Grid,
        directory: Directory,
        session: Session,
        header: Header,
        content: RecordDict,
        timeout: float,
    ) -> Summed:
        options = self.options
        driver = SumOverGrid(
            exchange=Exchange(grid, options.poll),
            directory=directory,
            protocol=options.stack.secure_sum,
            session=session,
            header=header,
            content=lambda: content,
            store=options.store,
            identity=options.identity,
            timeout=timeout,
        )
        try:
            return driver.run()
        finally:
            report = self.reports[-1]
            report.trips, report.refusals = tuple(driver.trips), dict(driver.refusals)
            for name, why in sorted(driver.refusals.items()):
                log(WARNING, "%s took no part to the end: %s", name, why)

    def _abandon(self, report: Report, error: Aborted) -> None:
        report.abandoned = error.reason
        self._settle((), report.number)
        log(WARNING, "round %d is abandoned: %s; the model stays", report.number, error.reason)

    def _close(
        self, report: Report, summed: Summed, plan: RoundPlan, reference: Reference, first: Message
    ) -> Message | None:
        total = summed.total
        report.survivors = tuple(report.asked[i] for i in total.survivors)
        report.total = _digest(total.total)
        self._settle(plan.events(report.survivors), report.number)
        aggregate = plan.decode(total.total, report.survivors)
        self._save_layers()
        report.clipped = plan.clipped(aggregate)
        report.metrics = decode_metrics(aggregate.coordinates, self.options.metrics)
        if aggregate.weight <= 0:
            report.abandoned = "the survivors hold no examples"
            return None
        mean = np.asarray(aggregate.vector, np.float64)[: reference.schema.dimension] / aggregate.weight
        tree = averaged(reference, mean)
        self.schema = reference.schema
        keys = self.options.names
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
        return single_reply(first, content)

    # -- what lasts --

    def _open(self) -> int:
        """Take the next round number, durably: clients answer a number once."""
        with self.options.store.transaction() as t:
            number = t.counter("flower/round") + 1
            t.advance("flower/round", number)
        return number

    def _pending(self, events: tuple[Event, ...], number: int) -> None:
        """Keep what the round may spend, until it is charged or abandoned without a total."""
        if events:
            body = json.dumps({"number": number, "events": [asdict(e) for e in events]})
            self.options.store.put("flower/pending", body.encode())

    def _settle(self, events: tuple[Event, ...], number: int) -> None:
        """Charge what was spent, ledger first, and forget the pending round in the same breath."""
        self.account.charge(events, number)
        kept = json.dumps([asdict(event) for event in self.account.events]).encode()
        with self.options.store.transaction() as t:
            t.delete("flower/pending")
            if self.account.events:
                t.put("flower/events", kept)

    def _resume(self) -> None:
        """Take back events and layers; charge a round that was interrupted: its total may have been seen."""
        store = self.options.store
        self.account.events = [Event(**e) for e in json.loads(store.get("flower/events") or b"[]")]
        for layer in self.options.stack.layers:
            layer.restore(json.loads(store.get(f"flower/layer/{layer.name}") or b"{}"))
        if (pending := store.get("flower/pending")) is not None:
            body = json.loads(pending)
            log(WARNING, "round %d was interrupted; what it may have spent is charged", body["number"])
            self._settle(tuple(Event(**e) for e in body["events"]), body["number"])

    def _save_layers(self) -> None:
        states = {layer.name: layer.state() for layer in self.options.stack.layers}
        with self.options.store.transaction() as t:
            for name, state in states.items():
                if state:
                    t.put(f"flower/layer/{name}", json.dumps(state).encode())

    def federation(self) -> tuple[str, int]:
        """Return the name under which clients count rounds, and the roster's serial (0 without one)."""
        roster = self.options.roster
        if roster is not None:
            return roster.federation, roster.serial
        with self.options.store.transaction() as t:
            name = t.get("flower/federation")
            if name is None:
                name = b"federation-" + os.urandom(8).hex().encode()
                t.put("flower/federation", name)
        return name.decode(), 0

    def _header(self, session: bytes, run: RunFacts, public: Mapping[str, Mapping[str, float]]) -> Header:
        federation, serial = self.federation()
        identity = self.options.identity
        known = self.head != GENESIS
        return Header(
            federation=federation,
            serial=serial,
            session=session,
            run=RunHeader.of(run),
            public={name: dict(values) for name, values in public.items()},
            metrics=self.options.metrics,
            weight_key=self.options.names.weight,
            arrays_key=self.options.names.arrays,
            integers=self.options.integers,
            head=self.head if known else "",
            head_signature=identity.sign(HEAD_PURPOSE, bytes.fromhex(self.head))
            if identity and known
            else b"",
        )

    def farewell(self, grid: Grid, timeout: float) -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it."""
        if self._run is None or self.head == GENESIS or not self.reports:
            return ()
        directory = self.directory(grid)
        header = self._header(b"", self._run, {})
        contents = {
            node: pack(
                Request(VERSION, CLOSE, NO_SESSION, CLOSE, name, "client", 0, header, 0),
                (),
                self.options.identity,
            )
            for name, node in directory.clients.items()
        }
        replies = Exchange(grid, self.options.poll).ask(contents, timeout, CLOSE)
        kept = {directory.name_of(reply.metadata.src_node_id) for reply in replies if not reply.has_error()}
        return tuple(sorted(name for name in kept if name))

    def statement(self) -> Statement:
        """Return what is protected so far. Raises Misuse before the first round."""
        if self.protection is None:
            raise Misuse("no round was begun yet")
        epsilon = self.account.price()
        events = tuple(self.account.events)
        return Statement(
            layers=tuple(layer.describe() for layer in self.options.stack.layers),
            protection=self.protection,
            events=events,
            notes=NOTES if events else (*NOTES, SUM_NOTE),
            epsilon=epsilon,
            delta=None if epsilon is None else self.account.delta,
            unit=", ".join(sorted({e.unit for e in events})) or None,
            relation=", ".join(sorted({e.relation for e in events})) or None,
            accountant=None if epsilon is None else self.account.accountant,
        )


NOTES = (
    "the client's policy binds a server application that misbehaves, not whoever can replace the client's code: "
    "pin the code at the site",
    "who takes part in a round is visible to the server, so its sampling amplifies nothing",
)
SUM_NOTE = (
    "without differential privacy the sum itself can reveal an update: "
    "crafted models, sybils and small cohorts do it"
)


def _digest(total: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(total, np.int64).data).hexdigest()


__all__ = ["Names", "ProtectedRounds", "Report", "ServerOptions"]
