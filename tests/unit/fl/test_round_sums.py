"""What a round adds up over its sums: costs, what was counted, sessions; models before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from fl.account import Account
from fl.engines.memory import MemoryEngine
from fl.round import (
    Broadcast,
    Charge,
    Count,
    SumCosts,
    Summed,
    contribution_of,
    moved,
    open_round,
    play,
    reference_of,
)
from fl.round.broadcast import CAPPED, EMPTY, WHERE
from fl.round.hidden import SERVER
from fl.round.play import count_into
from fl.round.reference import exact_difference, exact_sum, like, with_values
from fl.round.result import RoundResult, Trip, require_total
from fl.round.statement import SUM_NOTE, statement_of
from protocols import PlainSum
from protocols.errors import Aborted, Misuse, NoResult
from protocols.layers import Block, Contribution, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.session import Session
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent, Protection
from protocols.updates import schema_of
from secagg import SecAggPlus

NAMES = tuple("abcdef")
TRIP = Trip("input", 3.0, 1.0, 0.5, 0.25, 3, 2, 100, 200)
RUN = RunFacts(1, 6, 3, dimension=3)


def part(
    stack: Stack, clients: tuple[str, ...], name: str = "", run: RunFacts = RUN, **more: Any
) -> Broadcast:
    return open_round(stack, run, 1, clients, reference_of({"w": np.zeros(3, np.float32)}), name=name, **more)


def weighing(weights: Mapping[str, int]) -> Any:
    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        flat = broadcast.reference.flat
        reported = {name: float(weights[own.client]) for name in broadcast.metrics}
        counts = {count.name: weights[own.client] for count in broadcast.counts}
        moved = replace(flat, vector=flat.vector + 0.5)
        return contribution_of(broadcast, moved, weights[own.client], reported, counts=counts)

    return work


class Costly(MemoryEngine):
    """Toy: every sum costs the same, and it is said for which."""

    def sum(self, part: Broadcast, session: Session, charge: Charge) -> Summed:
        total = super().sum(part, session, charge)
        waited = {"north": 5.0, "south": 4.0}[part.name]
        seconds = {"train": 1.5, SERVER: 0.25, part.name: 2.0}
        self.costs = SumCosts(10.0, 20.0, seconds, (TRIP,), {part.name: "no"}, waited)
        if part.name == "south":  # what is timed from here on is the decoding
            self.clock = partial(next, iter((7.0, 8.0)))
        return total


def test_the_costs_of_a_rounds_sums_add_up() -> None:
    stack = Stack([PlainSum()], Numbers(range=1.0))
    stack.plan(RUN)
    parts = [part(stack, NAMES[:3], "north"), part(stack, NAMES[3:], "south")]
    engine = Costly(stack.secure_sum, weighing(dict.fromkeys(NAMES, 1)))
    played = play(parts, engine, stack, Account())
    result = played.result
    assert (result.bytes_up_per_client, result.bytes_down_per_client) == (20.0, 2 * (20.0 + 12))
    assert result.trips == (TRIP, TRIP)
    assert result.refusals == {"north": "no", "south": "no"}
    assert {name: result.seconds[name] for name in ("train", "north", "south")} == {
        "train": 3.0,
        "north": 2.0,
        "south": 2.0,
    }
    assert result.seconds[SERVER] == 0.5 + 1.0  # of both sums, and of decoding them
    assert result.waited == 5.0
    assert [session.round for session in played.sessions] == [1, 2]
    assert (result.session_number, result.session) == (1, played.sessions[0].context.hex())


def test_the_second_sum_of_a_roster_uses_the_keys_of_the_first() -> None:
    stack, run = Stack([SecAggPlus(setup="reuse")], Numbers(range=1.0)), replace(RUN, cohort=6)
    stack.plan(run)
    parts = [part(stack, NAMES, name, run) for name in ("north", "south")]
    engine = MemoryEngine(stack.secure_sum, weighing(dict.fromkeys(NAMES, 1)))
    first, second = play(parts, engine, stack, Account()).sessions
    assert "advertise-keys" in {stage.name for stage in stack.secure_sum.stages(first)}
    assert "advertise-keys" not in {stage.name for stage in stack.secure_sum.stages(second)}
    assert (first.round, second.round) == (1, 2)


def test_a_mean_is_over_the_weights_and_nobodys_weight_is_no_round() -> None:
    stack = Stack([PlainSum()], Numbers(range=1.0))
    run = replace(RUN, weight_cap=9)
    stack.plan(run)
    shown = part(stack, NAMES[:3], run=run, metrics=("loss",), counts=(Count("votes", 9),))
    weights = {"a": 0, "b": 0, "c": 1}
    (mean,) = play([shown], MemoryEngine(stack.secure_sum, weighing(weights)), stack, Account()).means
    assert (mean.weight, mean.counts, mean.survivors) == (1.0, {"votes": 1}, NAMES[:3])
    assert mean.vector == pytest.approx([0.5] * 3, abs=1e-3)
    assert mean.vector.dtype == np.float64
    weights = {"a": 2, "b": 3, "c": 4}
    played = play([shown], MemoryEngine(stack.secure_sum, weighing(weights)), stack, Account())
    assert played.means[0].weight == 9.0
    assert played.result.train_metrics["loss"] == pytest.approx((4 + 9 + 16) / 9, abs=1e-2)
    nobody = dict.fromkeys("abc", 0)
    played = play([shown], MemoryEngine(stack.secure_sum, weighing(nobody)), stack, Account())
    assert (played.result.abandoned, played.means) == ("the survivors hold no examples", ())


class Secret(PrivacyLayer):
    """Toy: its price counts on a secret choice of clients."""

    name = "secret"
    secret_sampling = True


def test_a_sum_of_nobody_leaves_the_others_their_sessions() -> None:
    stack = Stack([Secret(), PlainSum()], Numbers(range=1.0))
    run = replace(RUN, sampling="poisson", rate=0.5)
    stack.plan(run)
    parts = [part(stack, (), "north", run), part(stack, NAMES[3:], "south", run)]
    engine = MemoryEngine(stack.secure_sum, weighing(dict.fromkeys(NAMES, 1)))
    played = play(parts, engine, stack, Account())
    assert [session.roster for session in played.sessions] == [NAMES[3:]]
    assert [total.survivors for total in played.totals] == [(), NAMES[3:]]


def test_what_is_counted_adds_up_over_sums() -> None:
    result = RoundResult(1, ())
    schema = schema_of({"a": np.zeros(2), "b": np.zeros(2)})
    for where in ([2, 0], [1, 3]):
        totals = {CAPPED: [1], EMPTY: [2], WHERE: where}
        count_into(result, schema, {name: np.array(block) for name, block in totals.items()})
    assert (result.weights_capped, result.empty_clients) == (2, 4)
    assert result.clipped_tensors == {"a": 3, "b": 3}
    count_into(result, schema, {})
    assert (result.weights_capped, result.empty_clients) == (2, 4)


# -- what is charged --


class Pays(PrivacyLayer):
    """Toy: spends by how many are asked, or by name."""

    name = "pays"
    secret_sampling = True

    def __init__(self, named: bool = False) -> None:
        self.named = named

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        event = PrivacyEvent(
            "Gaussian", {"noise_multiplier": float(len(facts.clients))}, "client", "zero-out"
        )
        return (event, *(replace(event, party=name) for name in facts.clients if self.named and name == "a"))

    def planned(self, facts: RoundFacts) -> tuple[PrivacyEvent, ...]:
        return ()


class Purse:
    """Toy: keeps what it is charged."""

    def __init__(self) -> None:
        self.charged: list[list[tuple[float, str]]] = []

    def charge(self, events: Sequence[PrivacyEvent], round: int) -> None:
        self.charged.append([(event.facts["noise_multiplier"], event.party) for event in events])


@pytest.mark.parametrize(
    ("named", "groups", "charged"),
    [
        (False, ("abc", "def"), [(3.0, "")]),  # whoever is in either loses what one of them spends
        (False, ("abc", "cdef"), [(3.0, ""), (4.0, "")]),  # c loses both
        (False, ("ab", "cde"), [(2.0, "a"), (2.0, "b"), (3.0, "c"), (3.0, "d"), (3.0, "e")]),
        (True, ("ab", "cd"), [(2.0, "a"), (2.0, "b"), (2.0, "a"), (2.0, "c"), (2.0, "d")]),
    ],
)
def test_what_a_rounds_sums_spend_together(
    named: bool, groups: tuple[str, str], charged: list[tuple[float, str]]
) -> None:
    stack = Stack([Pays(named), PlainSum()], Numbers(range=1.0))
    stack.plan(RUN)
    parts = [part(stack, tuple(group), group) for group in groups]
    engine, purse = MemoryEngine(stack.secure_sum, weighing(dict.fromkeys(NAMES, 1))), Purse()
    played = play(parts, engine, stack, purse)
    assert purse.charged == [charged]
    assert played.paid == parts


def test_a_round_that_is_abandoned_says_nothing_of_its_sums_and_a_secret_choice_is_paid_for() -> None:
    def refuses(means: object) -> None:
        raise Aborted("not this one")

    run = replace(RUN, sampling="poisson", rate=0.5, weight_cap=2)
    for layers, charged in (([], []), ([Pays()], [[(3.0, "")]])):
        stack, purse = Stack([*layers, PlainSum()], Numbers(range=0.25)), Purse()
        stack.plan(run)
        shown = part(stack, NAMES[:3], run=run, metrics=("loss",))
        engine = MemoryEngine(stack.secure_sum, weighing({"a": 0, "b": 1, "c": 3}))
        result = play([shown], engine, stack, purse, take=refuses).result
        assert result.abandoned == "not this one"
        assert (result.train_metrics, result.clipped_tensors, result.clipped_share) == ({}, {}, None)
        assert (result.weights_capped, result.empty_clients, result.survivors) == (None, None, ())
        assert purse.charged == charged or not layers
        whole = play([shown], engine, stack, purse).result
        assert (whole.train_metrics.keys(), whole.clipped_tensors) == ({"loss"}, {"w": 3})
        assert (whole.clipped_share, whole.weights_capped) == (1.0, 1)
    purse = Purse()
    too_few = play([shown], engine, stack, purse, least=4)
    assert "min_survivors is 4" in str(too_few.result.abandoned)
    assert purse.charged == [[(3.0, "")]]


class Two(PrivacyLayer):
    """Toy: its noise takes two."""

    name = "two"
    secret_sampling = True

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(given, min_survivors=2)


def test_a_round_of_nobody_is_none_where_a_layer_demands_somebody() -> None:
    stack, run = Stack([Two(), PlainSum()], Numbers(range=1.0)), replace(RUN, sampling="poisson", rate=0.5)
    stack.plan(run)
    engine = MemoryEngine(stack.secure_sum, weighing({}))
    played = play([part(stack, (), run=run)], engine, stack, Account())
    assert (played.result.abandoned is None, played.totals) == (False, ())


def test_sums_of_one_round_may_report_other_metrics_and_an_engine_may_time_nothing() -> None:
    stack = Stack([PlainSum()], Numbers(range=1.0))
    stack.plan(RUN)
    parts = [part(stack, NAMES[:3], metrics=("loss",)), part(stack, NAMES[3:], metrics=("accuracy",))]
    engine = Untimed(stack.secure_sum, weighing(dict.fromkeys(NAMES, 1)))
    result = play(parts, engine, stack, Account()).result
    assert result.train_metrics == pytest.approx({"loss": 1.0, "accuracy": 1.0}, abs=1e-2)
    assert result.seconds == {SERVER: 0.0}


class Untimed(MemoryEngine):
    """Toy: measures nothing, and its clock stands still."""

    def sum(self, part: Broadcast, session: Session, charge: Charge) -> Summed:
        total = super().sum(part, session, charge)
        self.costs, self.clock = SumCosts(), lambda: 7.0
        return total


def test_a_mean_holds_counters_and_blocks_with_their_own_weights() -> None:
    stack, run = (
        Stack([PlainSum()], Numbers(range=1.0)),
        RunFacts(1, 3, 3, dimension=2, blocks=(Block("control", 2, weighted=False, range=1.0),)),
    )
    stack.plan(run)
    tree = {"w": np.zeros(2, np.float32), "n": np.array([5])}
    shown = open_round(stack, run, 1, NAMES[:3], reference_of(tree, integers="sum"))

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        flat = broadcast.reference.flat
        return contribution_of(
            broadcast, replace(flat, counters=flat.counters + 2), 4, blocks={"control": np.array([0.5, 0.0])}
        )

    (mean,) = play([shown], MemoryEngine(stack.secure_sum, work), stack, Account()).means
    assert mean.counters is not None
    assert (mean.weight, mean.counters.tolist(), mean.block_weights) == (12.0, [6], {"control": 3.0})
    assert mean.blocks["control"] == pytest.approx([0.5, 0.0], abs=1e-3)


def test_one_client_alone_is_a_round_unless_more_is_asked_for() -> None:
    stack = Stack([PlainSum()], Numbers(range=1.0))
    stack.plan(RunFacts(1, 1, 1, dimension=3))
    shown = part(stack, ("a",), run=RunFacts(1, 1, 1, dimension=3))
    assert play([shown], MemoryEngine(stack.secure_sum, weighing({"a": 1})), stack, Account()).means


# -- models --


def test_a_mean_of_integers_is_rounded_and_one_of_floats_is_not() -> None:
    schema = schema_of({"n": np.zeros(2, np.int32), "u": np.zeros(1, np.uint8), "w": np.zeros(2, np.float32)})
    made = like({"n": np.array([2.6, -2.6]), "u": np.array([3]), "w": np.array([2.6, -2.6])}, schema)
    assert {name: (array.dtype.name, array.tolist()) for name, array in made.items()} == {
        "n": ("int32", [3, -3]),
        "u": ("uint8", [3]),
        "w": ("float32", [np.float32(2.6), np.float32(-2.6)]),
    }
    assert like({"u": np.array([2.6])}, schema_of({"u": np.zeros(1, np.uint8)}))["u"].tolist() == [3]
    big = np.array([2**53 + 1])
    assert like({"n": big}, schema_of({"n": np.zeros(1, np.int64)}))["n"].tolist() == [2**53 + 1]
    with pytest.raises(Misuse, match="names changed"):
        like({"n": np.zeros(2)}, schema)
    with pytest.raises(Misuse, match=r"w: expected shape \(2,\), got \(3,\)"):
        like({"w": np.zeros(3)}, schema_of({"w": np.zeros(2)}))


def test_a_model_moves_by_the_mean_and_its_counters_by_their_sum() -> None:
    tree = {"w": np.array([1.0, 2.0], np.float32), "n": np.array([5])}
    summed = reference_of(tree, integers="sum")
    after = moved(summed, np.array([0.5, -1.0]), np.array([7]))
    assert (after["w"].tolist(), after["w"].dtype, after["n"].tolist()) == ([1.5, 1.0], np.float32, [12])
    assert moved(summed, np.zeros(2))["n"].tolist() == [5]
    assert reference_of(tree).digest != summed.digest


@pytest.mark.parametrize(
    ("a", "b", "total"), [(5, -3, 2), (-5, 3, -2), (2**62, 2**62 - 1, 2**63 - 1), (0, 0, 0)]
)
def test_integers_are_added_exactly_or_not_at_all(a: int, b: int, total: int) -> None:
    first, second = np.array([a, 1]), np.array([b, -1])
    assert exact_sum(first, second).tolist() == [total, 0]
    assert exact_difference(np.array([total, 0]), second).tolist() == [a, 1]
    low = np.array([-(2**63), 1])
    with pytest.raises(Aborted, match="64 bits"):
        exact_sum(low, np.array([-1, 1]))
    with pytest.raises(Misuse, match="64 bits"):
        exact_difference(low, np.array([1, 1]))
    assert exact_difference(low, np.array([-1, 1])).tolist() == [-(2**63) + 1, 0]


def test_a_model_of_other_values_has_the_schema_and_what_does_not_travel() -> None:
    whole = reference_of({"w": np.zeros(2, np.float32), "n": np.array([5])}, integers="sum")
    base = replace(whole, fixed=frozenset({"n"}))
    made = with_values(replace(whole.flat, vector=np.array([1.0, 2.0])), base)
    assert (made.schema, made.fixed) == (whole.schema, {"n"})
    assert (made.tree["w"].tolist(), made.flat.counters.tolist()) == ([1.0, 2.0], [5])


def test_a_statement_says_what_a_sum_can_reveal_unless_it_is_priced() -> None:
    stack = Stack([PlainSum()])
    protection = Protection("none", "none", "nothing", {}, (), "", ())
    account = Account()
    assert SUM_NOTE in statement_of(stack, protection, account, ["own"]).notes
    event = PrivacyEvent("Gaussian", {"noise_multiplier": 2.0}, "client", "zero-out")
    account.charge([event], 1)
    said = statement_of(
        stack, protection, account, ["own"], [RoundResult(1, ())], replace(RUN, rounds=3)
    ).notes
    assert said[0] == "own"
    assert SUM_NOTE not in said
    assert [note for note in said if note.startswith("1 of 3 planned rounds are over")]
    for rounds in ([], [RoundResult(1, ())] * 3):
        assert statement_of(stack, protection, account, [], rounds, replace(RUN, rounds=3)).notes == ()
    sees = Stack([Foresees(), PlainSum()])
    assert (
        "3 rounds of noise" in statement_of(sees, protection, account, [], [], replace(RUN, rounds=3)).notes
    )
    assert "3 rounds of noise" not in statement_of(sees, protection, account).notes


class Foresees(PrivacyLayer):
    """Toy: says what a planned run will come to."""

    name = "foresees"

    def outlook(self, run: RunFacts) -> str:
        return f"{run.rounds} rounds of noise"


def test_a_run_without_any_total_says_what_most_parties_said_last() -> None:
    require_total([])
    lost = RoundResult(1, (), abandoned="too few")
    require_total([lost, RoundResult(2, ())])
    refused = {"a": "PolicyRefusal: no", "b": "left", "c": "PolicyRefusal: no"}
    last = RoundResult(2, (), abandoned="no total", refusals=refused)
    with pytest.raises(NoResult) as found:
        require_total([lost, last])
    said = "every round was abandoned, 2 of 2, the last: no total (2 parties: PolicyRefusal: no). The model"
    assert str(found.value).startswith(said)
