"""Several real blocks in one contribution, each with its own clip, step and weight; arrays that a layer broadcasts."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from protocols import PlainSum, simulate
from protocols.errors import CapacityError, Misuse, StackError
from protocols.layers import Aggregate, Block, Contribution, PrivacyLayer, RoundFacts, RunFacts, Signal, Value
from protocols.roundplan import CLIPPED, RoundPlan
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent

NAMES = ("a", "b", "c")
CONTROL = Block("control", 3, weighted=False, range=0.25)
MOMENTUM = Block("momentum", 2, range=8.0)


class ClipEach(PrivacyLayer):
    """Toy: clips every block to a norm of its own, and names an event for each."""

    name = "clip-each"
    takes_blocks = True

    def __init__(self, clips: Mapping[str, float]) -> None:
        self.clips = clips

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        clip = self.clips[given.block]
        return replace(given, l2=clip, linf=clip, range=clip)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        norm = float(np.linalg.norm(contribution.vector))
        scale = min(1.0, self.clips[given.block] / norm) if norm else 1.0
        return replace(contribution, vector=contribution.vector * scale)

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        names = ("update", *(block.name for block in facts.run.blocks))
        return tuple(PrivacyEvent("toy", {"block": name}, "client", "zero-out") for name in names)


class Doubles(PrivacyLayer):
    """Toy: looks at the update alone."""

    name = "doubles"

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        return replace(contribution, vector=2 * contribution.vector)


class Shows(PrivacyLayer):
    """Toy: broadcasts an array and a number."""

    name = "shows"

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def public(self) -> Mapping[str, Value]:
        return {"array": self.array, "number": 2.0}


def planned(stack: Stack, *blocks: Block, clients: int = 3) -> RoundPlan:
    run = RunFacts(4, clients, clients, dimension=4, blocks=blocks)
    names = tuple(str(i) for i in range(clients))
    return stack.round(RoundFacts(run, 1, names, bytes(32), stack.public()), np.zeros(4))


def contributions() -> list[Contribution]:
    generator = np.random.default_rng(5)
    return [
        Contribution(
            generator.uniform(-1, 1, 4),
            weight,
            {},
            {"control": generator.uniform(-0.25, 0.25, 3), "momentum": generator.uniform(-8, 8, 2)},
        )
        for weight in (1, 5, 9)
    ]


def summed(plan: RoundPlan, given: list[Contribution], leaving: set[int] = frozenset()) -> Aggregate:  # type: ignore[assignment]
    vectors = [plan.encode(each, plan.facts) for each in given]
    outcome = simulate(PlainSum(), vectors, bound=plan.bound, drop={"input": leaving})
    return plan.decode(outcome.total, tuple(str(i) for i in outcome.survivors))


def test_each_block_has_its_own_step_and_weight() -> None:
    plan = planned(Stack([], Numbers(16, 1.0, 10)), CONTROL, MOMENTUM)
    given = contributions()
    aggregate = summed(plan, given, leaving={1})
    came = [given[0], given[2]]
    expected = sum(c.weight * c.vector for c in came) / 10
    control = sum(c.blocks["control"] for c in came) / 2  # once per client, whatever its examples
    momentum = sum(c.weight * c.blocks["momentum"] for c in came) / 10
    steps = [part.quantiser.step for part in plan.parts if part.quantiser]
    assert len(set(steps)) == 3
    for found, wanted, step in (
        (aggregate, expected, steps[0]),
        (aggregate.blocks["control"], control, steps[1]),
        (aggregate.blocks["momentum"], momentum, steps[2]),
    ):
        assert np.abs(found.vector / found.weight - wanted).max() <= step / 2 + 1e-12


def test_what_had_to_be_clipped_is_counted_by_block() -> None:
    plan = planned(Stack([], Numbers(16, 1.0, 10)), CONTROL)
    given = [Contribution(np.array([9.0, 9, 0, 0]), 1, {}, {"control": np.array([0.0, 0, 7])})]
    aggregate = summed(plan, given)
    assert plan.clipped(aggregate) == 3
    assert plan.parts[0].clipped(aggregate) == 2
    assert plan.parts[1].clipped(aggregate.blocks["control"]) == 1
    assert CLIPPED in aggregate.blocks["control"].coordinates


def test_a_layer_is_given_every_block_and_prices_each() -> None:
    stack = Stack([ClipEach({"update": 1.0, "control": 0.5})], Numbers(16, None, 10))
    plan = planned(stack, CONTROL)
    given = [Contribution(np.full(4, 3.0), 2, {}, {"control": np.full(3, 3.0)})]
    aggregate = summed(plan, given)
    assert np.linalg.norm(aggregate.vector / aggregate.weight) == pytest.approx(1.0, abs=1e-3)
    assert np.linalg.norm(aggregate.blocks["control"].vector) == pytest.approx(0.5, abs=1e-3)
    assert [e.facts["block"] for e in plan.events(("0",))] == ["update", "control"]


def test_a_layer_that_protects_the_update_alone_is_refused_beside_another_block() -> None:
    with pytest.raises(StackError, match=r"doubles protects the update alone.*control"):
        planned(Stack([Doubles()]), CONTROL)
    assert planned(Stack([Shows(np.zeros(2))]), CONTROL).dimension > 4 + 3


def test_blocks_that_are_not_the_runs_are_refused() -> None:
    plan = planned(Stack([], Numbers(16, 1.0, 10)), CONTROL)
    for blocks in ({}, {"control": np.zeros(2)}, {"control": np.zeros(3), "more": np.zeros(1)}):
        with pytest.raises(Misuse, match="block"):
            plan.encode(Contribution(np.zeros(4), 1, {}, blocks), plan.facts)
    for blocks in ((CONTROL, CONTROL), (Block("update", 2),)):
        with pytest.raises(StackError, match="distinct"):
            planned(Stack([]), *blocks)


def test_capacity_is_proved_for_every_block() -> None:
    numbers = Numbers(32, 1.0, 1 << 24)
    assert (
        planned(Stack([], numbers), Block("counted", 2, weighted=False, range=1.0)).parts[1].summed.weight_cap
        == 1
    )
    with pytest.raises(CapacityError):
        planned(Stack([], numbers), Block("heavy", 2, range=1.0), clients=200)


def test_blocks_and_arrays_are_in_the_digest() -> None:
    array = np.arange(6.0).reshape(2, 3)
    plans = [
        planned(Stack([Shows(array)]), CONTROL),
        planned(Stack([Shows(array.reshape(3, 2))]), CONTROL),
        planned(Stack([Shows(array + 1e-12)]), CONTROL),
        planned(Stack([Shows(array)]), replace(CONTROL, range=2.0)),
        planned(Stack([Shows(array)]), replace(CONTROL, name="other")),
        planned(Stack([Shows(array)]), replace(CONTROL, weighted=True)),
        planned(Stack([Shows(array)])),
    ]
    assert len({plan.digest(bytes(32)) for plan in plans}) == len(plans)
    assert planned(Stack([Shows(array.copy())]), CONTROL).digest(bytes(32)) == plans[0].digest(bytes(32))


def test_an_array_is_read_as_it_was_sent_and_is_no_number() -> None:
    from protocols.public_values import PublicValues

    array = np.arange(6.0).reshape(2, 3)
    facts = planned(Stack([Shows(array)])).facts
    sent = PublicValues.decode(PublicValues.of(facts.public).encode()).public()
    assert np.array_equal(np.asarray(sent["shows"]["array"]), array)
    assert sent["shows"]["number"] == 2.0
    assert facts.number_for("shows", "number", 0.0) == 2.0
    assert facts.number_for("other", "number", 7.0) == 7.0
    with pytest.raises(Misuse, match="array"):
        facts.number_for("shows", "array", 0.0)
