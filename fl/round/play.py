"""The order of a round, the same in every engine: sessions, charge, sums, close; or abandoned whole.

What does not belong here: how messages travel (`engine`), what the model makes of a mean (the strategy).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl import metrics as metric
from fl.round import counts as count
from fl.round.broadcast import CAPPED, COUNTERS, EMPTY, WHERE, Broadcast
from fl.round.engine import Charge, Engine, Summed
from fl.round.hidden import SERVER, is_hidden, plays_nobody, untimed
from fl.round.result import RoundResult
from fl.round.session import new_session
from protocols.errors import Aborted, TooFewSurvivors
from protocols.layers import Aggregate
from protocols.session import Session
from protocols.stack import Stack
from protocols.statement import PrivacyEvent, Protection, weakest
from protocols.updates import Schema


class Payer(Protocol):
    """Who pays for rounds: an `fl.account.Account`, or what keeps one."""

    def charge(self, events: Sequence[PrivacyEvent], round: int) -> None:
        """Record what is about to be released, durably. If it raises (BudgetExceeded), nothing may be released."""


@dataclass(frozen=True, eq=False)
class Mean:
    """What a strategy gets of a sum. vector: the mean difference (float64 [model dimension]). weight: what was divided
    by. survivors: names. counts: sums of what clients reported, by name. blocks: the mean of each further block.
    counters: summed differences of integer arrays, None where none are summed. block_weights: what each block was
    divided by.
    """

    vector: NDArray[np.float64] = field(repr=False)
    weight: float
    survivors: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    counters: NDArray[np.int64] | None = field(default=None, repr=False)
    block_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass
class PlayedRound:
    """A round that is over. means: one per sum, none if it was abandoned. protection: None if no session was made.
    totals: the sums as the server had them. paid: the sums that were charged. error: why it was abandoned.
    """

    result: RoundResult
    means: tuple[Mean, ...] = ()
    protection: Protection | None = None
    sessions: tuple[Session, ...] = ()
    totals: tuple[Summed, ...] = field(default=(), repr=False)
    paid: list[Broadcast] = field(default_factory=list, repr=False)
    error: Aborted | None = None


def play(
    parts: Sequence[Broadcast],
    engine: Engine,
    stack: Stack,
    payer: Payer,
    least: int = 1,
    take: Callable[[tuple[Mean, ...]], None] = lambda means: None,
) -> PlayedRound:
    """Run one round of one or several sums.

    take: moves the model by the means. A round is abandoned whole, and the layers' state stays as it was, if fewer
    clients are asked than a layer or `least` demands, if a sum has no total, or if a layer refuses to decode one or
    `take` to take it (Aborted; then it has changed nothing). What was charged stays charged; where clients are chosen
    in secret, abandoned rounds are charged too, and without a secure sum a round is played even if nobody was chosen
    or stayed. All sums are charged together. Raises BudgetExceeded if the charge does; then nothing has left a client.
    The layers' state is put back for every other error too.
    """
    asked = tuple(dict.fromkeys(name for part in parts for name in part.clients))
    played = PlayedRound(RoundResult(parts[0].number, asked))
    states = [(layer, layer.state()) for layer in stack.layers]
    try:
        _sessions(played, parts, engine, stack, least)
        _sums(played, parts, engine, stack, payer)
        _close(played, parts, engine)
        take(played.means)
    except BaseException as error:
        for layer, state in states:
            layer.restore(state)
        if not isinstance(error, Aborted):
            raise
        played.means, played.error = (), error
        played.result = _abandoned(played.result, error, len(parts), len(played.totals))
        if any(is_hidden(stack, part.plan.facts.run) for part in parts):
            _charge(played, payer, parts, [()] * len(parts), 0, ())
    if stack.noisy:
        played.result = untimed(played.result)
    return played


def _abandoned(result: RoundResult, error: Aborted, sums: int, opened: int) -> RoundResult:
    """Return the round without what its sums said: it is abandoned whole. opened: of its `sums`, those with a total."""
    seen = f"; {opened} of its {sums} sums had been opened" if sums > 1 and opened else ""
    return replace(
        result,
        abandoned=error.reason + seen,
        survivors=(),
        train_metrics={},
        clipped_tensors={},
        clipped_share=None,
        weights_capped=None,
        empty_clients=None,
    )


def _sessions(
    played: PlayedRound, parts: Sequence[Broadcast], engine: Engine, stack: Stack, least: int
) -> None:
    """Make every sum's session before anybody trains."""
    protocol, made = stack.secure_sum, list[Session]()
    for part in parts:
        if not part.clients:
            continue
        number, memory = engine.session_number(part.number, len(parts)), engine.memory()
        made.append(new_session(protocol, part, least=least, number=number, memory=memory))
    if not made:
        return
    played.sessions = tuple(made)
    played.protection = weakest(*map(protocol.protection, made))
    played.result.session, played.result.session_number = made[0].context.hex(), made[0].round


def _sums(
    played: PlayedRound, parts: Sequence[Broadcast], engine: Engine, stack: Stack, payer: Payer
) -> None:
    """Pay for all sums when the first is about to begin, and play one after the other."""
    made, memory = iter(played.sessions), engine.memory()
    sessions = [next(made) if part.clients else None for part in parts]
    asked = [engine.staying(session) if session else () for session in sessions]
    for place, (part, session) in enumerate(zip(parts, sessions, strict=True)):
        charge = partial(_charge, played, payer, parts, asked, place)
        if session is None:
            total = _nothing(stack, part, charge, TooFewSurvivors("nobody was chosen"))
        else:
            current = _renewed(session, part, engine, stack, memory)
            played.sessions = tuple(current if one is session else one for one in played.sessions)
            try:
                total = engine.sum(part, current, charge)
            except TooFewSurvivors as error:
                total = _nothing(stack, part, charge, error)
            finally:
                _add_costs(played.result, engine, part)
        played.totals = (*played.totals, total)


def _renewed(session: Session, part: Broadcast, engine: Engine, stack: Stack, known: bytes | None) -> Session:
    """Return a session, made again where a sum before it changed what the server keeps for later ones."""
    if (memory := engine.memory()) == known:
        return session
    least, number = session.min_survivors, session.round
    return new_session(stack.secure_sum, part, least=least, number=number, memory=memory)


def _nothing(stack: Stack, part: Broadcast, charge: Charge, error: TooFewSurvivors) -> Summed:
    """Return a sum with nobody in it where the price assumes that such a round is played; else raise `error`."""
    if not plays_nobody(stack, part.plan.facts.run, part.plan.min_survivors):
        raise error
    charge(())
    return Summed(np.zeros(part.plan.dimension, np.int64), ())


def _charge(
    played: PlayedRound,
    payer: Payer,
    parts: Sequence[Broadcast],
    asked: Sequence[Sequence[str]],
    place: int,
    names: Sequence[str],
) -> None:
    """Pay once for all sums of a round together: where the budget has room for only some of them, nothing leaves.
    names: the clients that the sum at `place` asks, as its engine knows by now.
    """
    if played.paid:
        return
    everybody = [*asked[:place], names, *asked[place + 1 :]]
    spent = [part.plan.events(tuple(names)) for part, names in zip(parts, everybody, strict=True)]
    payer.charge(_together(parts, spent), played.result.number)
    played.paid.extend(parts)


def _together(parts: Sequence[Broadcast], spent: Sequence[Sequence[PrivacyEvent]]) -> list[PrivacyEvent]:
    """Return what a round's sums spend together. A client that is in one sum spends what that sum spends."""
    names = [name for part in parts for name in part.clients]
    if len(parts) == 1 or len(set(names)) < len(names):
        return [event for events in spent for event in events]
    if all(events == spent[0] for events in spent):
        return list(spent[0])
    return [
        replace(event, party=name)
        for part, events in zip(parts, spent, strict=True)
        for event in events
        for name in (part.clients if not event.party else (event.party,))
    ]


def _close(played: PlayedRound, parts: Sequence[Broadcast], engine: Engine) -> None:
    began = engine.clock()
    result = played.result
    means = tuple(mean_of(part, summed, result) for part, summed in zip(parts, played.totals, strict=True))
    played.means = means
    result.survivors = tuple(dict.fromkeys(name for mean in means for name in mean.survivors))
    result.seconds[SERVER] = result.seconds.get(SERVER, 0.0) + engine.clock() - began


def mean_of(part: Broadcast, summed: Summed, result: RoundResult) -> Mean:
    """Decode a sum through the layers; note what it says of the round. Raises Aborted for one without a mean."""
    plan, dimension = part.plan, part.reference.schema.dimension
    aggregate = plan.decode(summed.total, summed.survivors)
    if aggregate.weight <= 0:
        raise Aborted("the survivors hold no examples")
    _note(result, part, aggregate, len(summed.survivors))
    return Mean(
        np.asarray(aggregate.vector, np.float64)[:dimension] / aggregate.weight,
        aggregate.weight,
        summed.survivors,
        count.decode(aggregate.coordinates, part.counts, len(summed.survivors)),
        {
            name: np.asarray(block.vector, np.float64) / block.weight
            for name, block in aggregate.blocks.items()
        },
        aggregate.coordinates.get(COUNTERS),
        {name: block.weight for name, block in aggregate.blocks.items()},
    )


def _note(result: RoundResult, part: Broadcast, aggregate: Aggregate, survivors: int) -> None:
    result.train_metrics |= metric.decode(aggregate.coordinates, part.metrics)
    clipped, dimension = part.plan.clipped(aggregate), sum(p.summed.dimension for p in part.plan.parts)
    if clipped is not None and dimension:
        result.clipped_share = max(result.clipped_share or 0.0, clipped / (survivors * dimension))
    count_into(result, part.reference.schema, aggregate.coordinates)


def count_into(result: RoundResult, schema: Schema, totals: Mapping[str, NDArray[np.int64]]) -> None:
    """Add to a round's result what its exact coordinates count: capped weights, empty clients, tensors clipped."""
    if CAPPED in totals:
        result.weights_capped = (result.weights_capped or 0) + int(totals[CAPPED][0])
    if EMPTY in totals:
        result.empty_clients = (result.empty_clients or 0) + int(totals[EMPTY][0])
    for leaf, clients in zip(schema.protected, totals.get(WHERE, ()), strict=False):
        if clients:
            result.clipped_tensors[leaf.name] = result.clipped_tensors.get(leaf.name, 0) + int(clients)


def _add_costs(result: RoundResult, engine: Engine, part: Broadcast) -> None:
    costs = engine.costs
    result.bytes_up_per_client += costs.up
    result.bytes_down_per_client += costs.down + part.reference.size
    result.trips += costs.trips
    result.refusals |= costs.refusals
    result.waited = max(result.waited, costs.waited)
    for name, seconds in costs.seconds.items():
        result.seconds[name] = result.seconds.get(name, 0.0) + seconds
