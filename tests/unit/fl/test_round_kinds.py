"""Rounds of every kind, with toys and without torch: several sums, other bases, no model at all, nobody chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp import ClientDP
from fl.account import Account
from fl.engines.memory import MemoryEngine
from fl.round import (
    Broadcast,
    Count,
    contribution_of,
    open_round,
    play,
    reference_of,
)
from fl.round.contribution import encoded
from protocols.errors import (
    Aborted,
    BudgetExceeded,
    Misuse,
    StackError,
    TooFewSurvivors,
)
from protocols.layers import Aggregate, Block, Contribution, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent
from protocols.updates import Flat
from secagg import SecAgg, SecAggPlus

NAMES = ("a", "b", "c", "d", "e", "f")
NOTHING = reference_of({})


class Paid(PrivacyLayer):
    """Toy: remembers who was paid for."""

    name = "paid"

    def __init__(self) -> None:
        self.names: list[tuple[str, ...]] = []

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        self.names.append(survivors)
        return ()

    def planned(self, facts: RoundFacts) -> tuple[PrivacyEvent, ...]:
        return ()


def model(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full(3, value, np.float32)}


def moves(by: Mapping[str, float]) -> Any:
    """Toy work: a client moves every coordinate by its own step."""

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        flat = broadcast.reference.flat
        return contribution_of(broadcast, replace(flat, vector=flat.vector + by[own.client]), 1)

    return work


# -- several sums in one round --


def groups(stack: Stack, members: Mapping[str, tuple[str, ...]], least: int = 1) -> list[Broadcast]:
    run = RunFacts(1, len(NAMES), 3, dimension=3)
    stack.plan(run)
    return [
        open_round(stack, run, 1, clients, reference_of(model(float(i))), name=name)
        for i, (name, clients) in enumerate(members.items())
    ]


STEPS = {name: 0.1 * place for place, name in enumerate(NAMES)}


def test_two_groups_of_one_round_move_two_models() -> None:
    stack = Stack([paid := Paid(), SecAgg()], Numbers(range=2.0))
    parts = groups(stack, {"north": NAMES[:3], "south": NAMES[3:]})
    played = play(parts, MemoryEngine(stack.secure_sum, moves(STEPS)), stack, Account())
    assert [mean.survivors for mean in played.means] == [NAMES[:3], NAMES[3:]]
    assert [mean.vector[0] for mean in played.means] == pytest.approx([0.1, 0.4], abs=1e-3)
    assert paid.names == [NAMES[:3], NAMES[3:]]
    assert len({session.context for session in played.sessions}) == 2
    assert played.result.survivors == NAMES


def test_a_round_is_abandoned_before_anybody_trains_if_one_of_its_groups_is_too_small() -> None:
    stack = Stack([paid := Paid(), SecAgg()])
    trained: list[str] = []

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        trained.append(own.client)
        return moves(STEPS)(broadcast, own)

    parts = groups(stack, {"north": NAMES[:4], "south": NAMES[4:]})
    played = play(parts, MemoryEngine(stack.secure_sum, work), stack, Account())
    assert played.result.abandoned
    assert (played.means, trained, paid.names) == ((), [], [])


def test_a_group_without_a_total_abandons_the_whole_round_which_stays_paid_for() -> None:
    stack = Stack([paid := Paid(), SecAgg()])
    parts = groups(stack, {"north": NAMES[:3], "south": NAMES[3:]})

    def leave(protocol: Any, session: Any) -> Any:
        gone = [name for name in session.roster if name in ("e", "f")]
        return gone, {"advertise-keys": gone}

    engine = MemoryEngine(stack.secure_sum, moves(STEPS), departures=leave)
    played = play(parts, engine, stack, Account())
    assert played.result.abandoned
    assert played.means == ()
    assert paid.names == [NAMES[:3], ("d",)]  # everyone asked who is not known to have left


class OneRound:
    """Toy: a budget with room for the events of one sum."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def charge(self, events: Sequence[PrivacyEvent], round: int) -> None:
        self.asked.append(len(events))
        if len(events) > 1:
            raise BudgetExceeded("room for one sum")


def test_a_budget_with_room_for_one_of_two_sums_lets_nothing_leave() -> None:
    stack, payer = Stack([ClientDP(noise_multiplier=1.0), SecAgg()]), OneRound()
    engine = MemoryEngine(stack.secure_sum, moves(STEPS))
    carried: list[Any] = []
    engine.observe = carried.append
    with pytest.raises(BudgetExceeded):
        play(groups(stack, {"north": NAMES[:4], "south": NAMES[2:]}), engine, stack, payer)
    assert (payer.asked, carried) == ([2], [])


class ByName(PrivacyLayer):
    """Toy: every sum spends what its own clients are."""

    name = "by-name"

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        return (PrivacyEvent("Toy", {"clients": len(facts.clients)}, "client", "zero-out"),)


@pytest.mark.parametrize(
    ("north", "south", "parties"),
    [
        (NAMES[:3], NAMES[3:], [""]),  # a client is in one of two sums that spend alike: once
        (NAMES[:2], NAMES[2:], list(NAMES)),  # each client spends what its own sum does
        (NAMES[:4], NAMES[2:], ["", ""]),  # some are in both
    ],
)
def test_a_client_is_charged_for_the_sums_that_it_is_in(
    north: tuple[str, ...], south: tuple[str, ...], parties: list[str]
) -> None:
    stack, account = Stack([ByName()], Numbers(range=2.0)), Account()
    engine = MemoryEngine(stack.secure_sum, moves(STEPS))
    play(groups(stack, {"north": north, "south": south}), engine, stack, account)
    assert [event.party for event in account.events] == parties
    for name, sizes in (("a", {len(north)}), ("f", {len(south)})):
        own = [event for event in account.events if event.party in ("", name)]
        assert {event.facts["clients"] for event in own} == sizes


def test_several_sums_of_several_rounds_share_one_set_up() -> None:
    stack, run = Stack([SecAggPlus(setup="reuse")], Numbers(range=2.0)), RunFacts(4, 6, 6, dimension=3)
    stack.plan(run)
    reference = reference_of(model(0.0))
    for late in ((), ("e",)):  # who leaves changes what the server keeps between one sum and the next

        def leave(protocol: Any, session: Any, late: tuple[str, ...] = late) -> Any:
            return (), {protocol.stages(session)[-1].name: late if session.round % 2 else ()}

        engine = MemoryEngine(stack.secure_sum, moves(STEPS), departures=leave)
        numbers, up = list[int](), list[float]()
        for number in range(1, 5):
            parts = [open_round(stack, run, number, NAMES, reference, name=name) for name in ("one", "two")]
            played = play(parts, engine, stack, Account(), least=4)
            assert played.error is None
            assert [mean.vector[0] for mean in played.means] == pytest.approx([0.25] * 2, abs=1e-3)
            assert played.sessions[-1] == engine.session
            assert {session.min_survivors for session in played.sessions} == {
                played.sessions[0].min_survivors
            }
            up.append(played.result.bytes_up_per_client)
            numbers += [session.round for session in played.sessions]
        assert numbers == list(range(1, 9))
        assert up[1:] == pytest.approx([up[1]] * 3)
        assert up[1] < up[0], "keys were made anew"


# -- a round without any model --


def statistics(stack: Stack, blocks: tuple[Block, ...], counts: tuple[Count, ...]) -> Broadcast:
    run = RunFacts(1, 3, 3, dimension=0, blocks=blocks)
    stack.plan(run)
    return open_round(stack, run, 1, NAMES[:3], NOTHING, counts=counts)


@pytest.mark.parametrize("layers", [[], [SecAgg()]])
def test_a_round_without_a_model_sums_statistics(layers: list[Any]) -> None:
    ages = {"a": [30.0, 40.0], "b": [50.0], "c": [20.0, 20.0, 50.0]}

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        held = ages[own.client]
        nothing = Flat(np.zeros(0), np.zeros(0, np.int64), {})
        blocks = {"age": np.array([np.mean(held)])}
        counts = {"people": len(held)}
        return contribution_of(broadcast, nothing, len(held), counts=counts, blocks=blocks)

    stack = Stack(layers)
    shown = statistics(stack, (Block("age", 1, range=128.0),), (Count("people", 100),))
    (mean,) = play([shown], MemoryEngine(stack.secure_sum, work), stack, Account()).means
    assert mean.counts == {"people": 6}
    assert mean.blocks["age"] == pytest.approx([35.0], abs=0.01)
    assert mean.vector.shape == (0,)


def test_an_update_is_named_by_everything_that_was_computed_and_by_nothing_else() -> None:
    def name(age: float = 1.0, people: int = 2, number: int = 1) -> bytes:
        stack, run = Stack([]), RunFacts(9, 3, 3, dimension=0, blocks=(Block("age", 1, range=8.0),))
        shown = open_round(stack, run, number, NAMES[:3], NOTHING, counts=[Count("people", 9)])
        given = contribution_of(
            shown, NOTHING.flat, 1, counts={"people": people}, blocks={"age": np.array([age])}
        )
        return encoded(shown, given, shown.own("a"))[1]

    assert name() == name(number=2), "another round does not make it another update"
    assert len({name(), name(age=2.0), name(people=3)}) == 3


# -- counts beside noise --


def test_a_count_beside_noise_is_public_or_refused_by_name() -> None:
    stack = Stack([ClientDP(noise_multiplier=1.0, clip=1.0)])
    run = RunFacts(1, 3, 3, dimension=3)
    stack.plan(run)
    with pytest.raises(StackError, match=r"'steps' .* client-dp"):
        open_round(stack, run, 1, NAMES[:3], reference_of(model(0.0)), counts=[Count("steps", 10)])
    shown = open_round(
        stack, run, 1, NAMES[:3], reference_of(model(0.0)), counts=[Count("steps", 10, public=5)]
    )
    assert not [c for c in shown.plan.summed.coordinates if "steps" in c.name]

    def work(steps: int) -> Any:
        return lambda broadcast, own: contribution_of(
            broadcast, broadcast.reference.flat, 1, counts={"steps": steps}
        )

    (mean,) = play([shown], MemoryEngine(stack.secure_sum, work(5)), stack, Account()).means
    assert mean.counts == {"steps": 15}
    with pytest.raises(Misuse, match="publicly 5"):
        play([shown], MemoryEngine(stack.secure_sum, work(4)), stack, Account())


class NoisesEach(PrivacyLayer):
    """Toy: adds noise to every block and names an event for each."""

    name = "noises"
    takes_blocks = True

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(given, exact_coordinates=False, weight_cap=1)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        return replace(contribution, weight=1)

    def decode(self, aggregate: Aggregate, *rest: Any) -> Aggregate:
        return replace(aggregate, vector=aggregate.vector + 0.5)  # what a toy calls noise

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        names = ("update", *(block.name for block in facts.run.blocks))
        return tuple(PrivacyEvent("toy", {"block": name}, "client", "zero-out") for name in names)


def test_a_scalar_that_is_a_block_is_noised_and_charged_beside_noise() -> None:
    stack = Stack([NoisesEach(), SecAgg()])
    shown = statistics(stack, (Block("steps", 1, weighted=False, range=16.0),), ())
    nothing = shown.reference.flat

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        return contribution_of(broadcast, nothing, 1, blocks={"steps": np.array([4.0])})

    account = Account()
    (mean,) = play([shown], MemoryEngine(stack.secure_sum, work), stack, account).means
    assert mean.blocks["steps"] == pytest.approx([4.0 + 0.5 / 3], abs=1e-3)
    assert [event.facts["block"] for event in account.events] == ["update", "steps"]


def test_a_refused_round_says_nothing_of_the_sums_that_were_decoded_before() -> None:
    class RefusesSecond(PrivacyLayer):
        name = "second"
        seen = 0

        def decode(self, aggregate: Aggregate, *rest: Any) -> Aggregate:
            self.seen += 1
            if self.seen == 2:
                raise Aborted("no")
            return aggregate

    stack = Stack([RefusesSecond(), SecAgg()], Numbers(range=0.01))
    played = play(
        groups(stack, {"north": NAMES[:3], "south": NAMES[3:]}),
        MemoryEngine(stack.secure_sum, moves(STEPS)),
        stack,
        Account(),
    )
    assert played.result.abandoned == "no; 2 of its 2 sums had been opened"
    assert (played.result.clipped_share, played.result.survivors, played.means) == (None, (), ())


def test_survivors_without_examples_give_no_mean_and_abandon_the_round() -> None:
    stack, run = Stack([SecAgg()]), RunFacts(1, 3, 3, dimension=3)
    shown = open_round(stack, run, 1, NAMES[:3], reference_of(model(0.0)))
    engine = MemoryEngine(
        stack.secure_sum, lambda broadcast, own: contribution_of(broadcast, broadcast.reference.flat, 0)
    )
    played = play([shown], engine, stack, Account())
    assert (played.result.abandoned, played.means) == ("the survivors hold no examples", ())


@pytest.mark.parametrize("own", [{}, {"steps": 1, "more": 2}, {"steps": 11}])
def test_other_counts_than_declared_are_refused(own: dict[str, int]) -> None:
    stack = Stack([])
    shown = statistics(stack, (), (Count("steps", 10),))
    flat = shown.reference.flat
    with pytest.raises(Misuse, match="steps"):
        shown.plan.encode(contribution_of(shown, flat, 1, counts=own), shown.own("a"))


# -- inputs that started from different models --


# -- nobody chosen --


def test_a_secret_choice_of_nobody_releases_the_noise_that_its_price_assumes() -> None:
    stack = Stack([ClientDP(noise_multiplier=1.0, clip=1.0, amplify=True)])
    run = RunFacts(1, 5, 5, "poisson", 0.5, dimension=3)
    shown = open_round(stack, run, 1, (), reference_of(model(0.0)))
    account = Account(stack.layers)
    played = play([shown], MemoryEngine(stack.secure_sum, moves({})), stack, account)
    assert (played.result.abandoned, played.means[0].survivors) == (None, ())
    assert np.abs(played.means[0].vector).max() > 0
    assert len(account.events) == 1


def test_nobody_chosen_is_no_round_otherwise() -> None:
    for stack, least in (
        (Stack([]), 0),
        (Stack([ClientDP(noise_multiplier=1.0, clip=1.0, amplify=True)]), 3),
    ):
        run = RunFacts(1, 5, 5, "poisson", 0.5, dimension=3, least_chosen=least)
        with pytest.raises(TooFewSurvivors, match="nobody"):
            open_round(stack, run, 1, (), reference_of(model(0.0)))
