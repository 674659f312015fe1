"""The rounds of a wrapped strategy: its training messages become secure sums, and their mean is one reply.

What belongs here: who is asked, the planned run, the reply. What does not: how a round goes (`fl.round`), how it is
carried (`fl.network`), Flower's strategy interface (`strategy`), files (`files`).
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl.account import Account
from fl.flower.arrays import arrays_of, config_bytes, tree_of
from fl.flower.compat import log
from fl.flower.grid_party import GridParty
from fl.made_with import Settings
from fl.network.directory import Directory
from fl.network.network_engine import NetworkEngine
from fl.network.server_state import RunState
from fl.round import (
    Broadcast,
    Mean,
    ModelLayout,
    PlayedRound,
    Reference,
    RoundResult,
    Tree,
    moved,
    open_round,
    play,
    reference_of,
)
from fl.round.broadcast import require_metrics
from fl.round.reference import like
from fl.round.remarks import Speaker
from fl.round.run_files import KeptRun
from fl.round.statement import statement_of
from protocols.errors import Aborted, Misuse, TooFewSurvivors
from protocols.identity import Identity, Roster
from protocols.layers import PrivacyLayer, RunFacts
from protocols.session import Session
from protocols.stack import Stack
from protocols.statement import Protection, Statement, weakest
from protocols.store import Store
from protocols.updates import Schema

SAMPLING_NOTE = "who takes part in a round is visible to the server, so its sampling amplifies nothing"


@dataclass
class ServerOptions:
    """What `PrivateStrategy` was given. identity: signs requests and the record; needed where there is a roster.
    min_survivors: with as many nodes Flower's strategies begin.
    """

    stack: Stack
    store: Store
    layout: ModelLayout
    roster: Roster | None = None
    identity: Identity | None = None
    min_survivors: int = 2
    poll: float = 0.1
    dropout: float = 0.0
    delta: float | None = None
    local_epochs: int = 1
    notes: tuple[str, ...] = ()


MORE_NODES = (
    "Flower's strategies begin with two connected nodes: give yours min_available_nodes=3 or more, and a simulation as "
    "many (flwr run . --federation-config 'num-supernodes=4')"
)


class ProtectedRounds:
    """One run's protected rounds. number: of the next one, as the training counts. history: of this process;
    before: of those before it.

    schema: the model's. rounds: planned. Raises Misuse for what cannot work, BudgetExceeded for what may not be spent.
    """

    def __init__(
        self,
        options: ServerOptions,
        account: Account,
        grid: Grid,
        schema: Schema,
        rounds: int,
        made_with: Settings,
        kept: KeptRun | None = None,
    ) -> None:
        self.options, self.account, self.grid = options, account, grid
        self.schema, self.rounds, self.before = schema, rounds, () if kept is None else tuple(kept.history)
        # noise that was calibrated for an epsilon holds for the rounds that were planned, and no more
        self.made_with = {**made_with, **({"rounds": rounds} if account.calibrated else {})}
        self.number = 1
        self.history: list[RoundResult] = []
        self.speaker = Speaker(lambda said: log(WARNING, "%s", said))
        known = (options.store, options.roster, options.identity, options.poll, options.layout)
        self.server = GridParty(grid, options.stack.secure_sum, *known)
        notes = (SAMPLING_NOTE, *options.notes)
        self.engine = NetworkEngine(self.server, 0.0, lambda: notes)
        self.engine.begun = self._begin
        self._run: RunFacts | None = None
        self.account.run = self.server.state.name()
        self.state = RunState(options.store, options.stack, account)
        self.protection: Protection | None = self.state.resume(kept)

    def require(self, where: str, saved: int | None) -> None:
        """Raises Misuse unless these rounds go on with the run in `where`, or begin one.

        saved: the last session number that the run's files know of; None if there are no files.
        """
        self.state.require(self.made_with, where, goes_on=saved is not None)
        if (saved or 0) > (opened := self.server.state.last_session()):
            raise Misuse(
                f"the server's state of the run in {where} was lost (it knows of session {opened}, the run of {saved}) "
                "and with it what was spent: put `state` back, or name another folder"
            )

    def play(
        self, messages: Mapping[int, Message], model: ArrayRecord, config: ConfigRecord | None, timeout: float
    ) -> Message | None:
        """Run one round; return one reply with the average, or None if it was abandoned.

        messages: the strategy's, by node id. model, config: what all of them carry. timeout: seconds per trip.
        """
        self.engine.require_new_updates()
        directory = self.server.connected()
        asked = {name: m for node, m in messages.items() if (name := directory.name_of(node)) is not None}
        reference = reference_of(like(tree_of(model), self.schema), schema=self.schema)
        self.server.config, self.engine.timeout = config, timeout
        moves: list[Tree] = []
        try:
            broadcast = self._open(directory, tuple(sorted(asked)), reference, config)
        except Aborted as error:
            played = PlayedRound(RoundResult(self.number, tuple(sorted(asked)), abandoned=error.reason))
        else:
            played = self._play(broadcast, moves.append)
        result = played.result
        self.history.append(result)
        self.speaker.hear(result)
        self.number += 1
        result.guarantees = self.account.guarantees()
        if not played.means:
            log(WARNING, "round %d is abandoned: %s; the model stays", result.number, result.abandoned)
            return None
        shown = ", ".join(f"{k} {v:.1f} s" for k, v in result.seconds.items())
        sizes = result.number, len(result.survivors), len(result.asked), shown
        log(INFO, "round %d: %d of %d in the sum, %s", *sizes)
        mean, layout = played.means[0], self.options.layout
        missing = [name for name in layout.metrics if name not in result.train_metrics]
        if missing and len(self.history) == 1:
            log(
                WARNING,
                "metrics: %r never comes: no client's app replies with it; name what it does",
                missing[0],
            )
        metrics = MetricRecord({**result.train_metrics, layout.weight: mean.weight})
        content = RecordDict({layout.arrays: arrays_of(moves[0]), "metrics": metrics})
        return Message(content, reply_to=asked[result.asked[0]])

    def _open(
        self, directory: Directory, names: tuple[str, ...], reference: Reference, config: ConfigRecord | None
    ) -> Broadcast:
        """Return what this round's nodes are shown. Raises Aborted for a round that too few can take part in."""
        if not names:
            raise TooFewSurvivors("no connected node of this round is on the roster")
        stack = self.options.stack
        run = self._plan_run(directory, names, reference)
        chosen = self._within(run, names)
        missing = [name for name in stack.secure_sum.recipients if name not in chosen]
        if missing and self.history:
            raise TooFewSurvivors(f"{missing[0]!r} is to be given the sum and is not connected")
        origin, shown = self.engine.origin(self.account.run), config_bytes(config)
        given = run, self.number, chosen, reference
        broadcast = open_round(stack, *given, metrics=origin.layout.metrics, config=shown, origin=origin)
        require_metrics(broadcast)
        return broadcast

    def _play(self, broadcast: Broadcast, give: Callable[[Tree], None]) -> PlayedRound:
        """Play the round; `give` takes the moved model. Raises Misuse for a first one that asks fewer nodes than must
        survive: none could end.
        """
        options = self.options

        def take(means: tuple[Mean, ...]) -> None:
            give(moved(broadcast.reference, means[0].vector, means[0].counters))

        try:
            played = play([broadcast], self.engine, options.stack, self.state, options.min_survivors, take)
        except Misuse as error:
            raise error if len(broadcast.clients) > 2 else Misuse(f"{error}. {MORE_NODES}") from None
        if played.error is not None and not played.sessions and self.state.run() is None:
            raise Misuse(f"no round could end: {played.error}")
        return played

    def _begin(self, run: RunFacts, session: Session) -> None:
        """Bind the run to what this session rests on, before anything of it is asked for."""
        self.protection = weakest(self.options.stack.secure_sum.protection(session), self.protection)
        self.state.begin(run, self.made_with, self.protection)

    def _plan_run(self, directory: Directory, names: tuple[str, ...], reference: Reference) -> RunFacts:
        """Return the planned run: that of the first round, kept, as long as a layer was calibrated for its cohort."""
        roster, stack = self.options.roster, self.options.stack
        population = len(roster.with_role("client")) if roster else len(directory.clients)
        if self._run is None:
            self._run = self.state.run() or RunFacts(
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
        if self._run.rounds < self.rounds:  # a run that goes on may plan more rounds
            self._run = replace(self._run, rounds=self.rounds)
            stack.plan(self._run)
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

    def farewell(self, timeout: float) -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it."""
        if not self.history:
            return ()
        return self.server.farewell(self._run, timeout)

    def statement(self) -> Statement:
        """Return what is protected so far. Raises Misuse before the first round."""
        if self.protection is None:
            raise Misuse("no round was begun yet")
        stack, run, history = self.options.stack, self._run or self.state.run(), (*self.before, *self.history)
        return statement_of(stack, self.protection, self.account, self.engine.notes, history, run)


def planning_layers(stack: Stack) -> list[str]:
    """Return the layers that plan for the whole run, its cohort included: they are not planned anew in its middle."""
    return [layer.name for layer in stack.layers if type(layer).plan is not PrivacyLayer.plan]
