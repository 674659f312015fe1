"""Stacks: four hooks, each shown by a toy layer; composition is checked when the stack is built."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import PlainSum, simulate
from protocols.errors import CapacityError, Misuse, StackError
from protocols.layers import (
    Aggregate,
    Compute,
    Contribution,
    Coordinate,
    LocalTask,
    PrivacyLayer,
    RoundFacts,
    RunFacts,
    Signal,
    SumFacts,
)
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent

NAMES = ("a", "b", "c")


class Doubler(PrivacyLayer):
    """encode doubles, decode halves, and one coordinate is appended."""

    name = "doubler"

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        if given.kind != "real":
            raise StackError("doubler takes real vectors")
        return replace(given, coordinates=(*given.coordinates, Coordinate("ones", 1, 1)))

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        coordinates = {**contribution.coordinates, "ones": np.array([1])}
        return Contribution(contribution.vector * 2, contribution.weight, coordinates)

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        assert int(aggregate.coordinates["ones"][0]) == len(opened.survivors)
        return Aggregate(aggregate.vector / 2, aggregate.weight, aggregate.coordinates)


class OwnIntegers(PrivacyLayer):
    """Replaces the quantiser: whole numbers in Z_16."""

    name = "own-integers"

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        if given.kind != "real":
            raise StackError("own-integers takes real vectors")
        return Signal("integer", given.dimension, 1, exact_coordinates=False, modulus=1 << 16, bound=100)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        return Contribution(np.rint(contribution.vector).astype(np.int64), 1, {})


class Secret(PrivacyLayer):
    """A DP layer's shape: no exact coordinate may be released, something is spent, the step inflates the norm."""

    name = "secret"

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(given, l2=1.0, weight_cap=1, exact_coordinates=False)

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        return (PrivacyEvent("Toy", {"survivors": len(survivors)}, "client", "zero-out"),)


class Wrapper(PrivacyLayer):
    name = "wrapper"

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def wrapped(task: LocalTask) -> dict[str, float]:
            return {**compute(task), "wrapped": 1.0}

        return wrapped


def facts(dimension: int, names: tuple[str, ...] = NAMES) -> RoundFacts:
    return RoundFacts(RunFacts(1, len(names), len(names), dimension=dimension), 1, names, bytes(32))


def plan_of(stack: Stack, dimension: int = 4, names: tuple[str, ...] = NAMES) -> RoundPlan:
    return stack.round(facts(dimension, names), np.zeros(dimension))


def through(
    stack: Stack, inputs: Mapping[str, np.ndarray], weights: Mapping[str, int]
) -> tuple[Aggregate, RoundPlan]:
    plan = plan_of(stack, len(next(iter(inputs.values()))), tuple(inputs))
    vectors = {n: plan.encode(Contribution(v, weights[n]), plan.facts) for n, v in inputs.items()}
    outcome = simulate(stack.secure_sum, vectors, bound=plan.bound, modulus=plan.summed.modulus)
    return plan.decode(outcome.total, outcome.survivors), plan


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1), st.integers(4, 24))
def test_the_weighted_mean_is_within_half_a_step_of_the_float_mean(
    n: int, d: int, seed: int, bits: int
) -> None:
    draw = np.random.default_rng(seed)
    inputs = {str(i): draw.uniform(-1, 1, d) for i in range(n)}
    weights = {name: int(draw.integers(1, 1000)) for name in inputs}
    aggregate, plan = through(Stack([PlainSum()], Numbers(bits, 1.0, 1000)), inputs, weights)
    expected = sum(weights[k] * v for k, v in inputs.items()) / sum(weights.values())
    assert plan.quantiser is not None
    assert np.abs(aggregate.vector / aggregate.weight - expected).max() <= plan.quantiser.step / 2 * (
        1 + 1e-12
    )
    assert plan.clipped(aggregate) == 0


@given(st.integers(1, 5000), st.integers(2, 20), st.integers(1, 40))
def test_clipped_coordinates_are_counted_exactly_whatever_the_dimension(d: int, bits: int, cap: int) -> None:
    inputs = {"a": np.full(d, 9.0), "b": np.zeros(d), "c": np.r_[5.0, np.zeros(d - 1)]}
    aggregate, plan = through(Stack([], Numbers(bits, 1.0, cap)), inputs, dict.fromkeys(inputs, cap))
    assert plan.clipped(aggregate) == d + 1


def test_each_layer_decodes_what_it_encoded_in_reverse_order() -> None:
    inputs = {name: np.array([0.25, -0.5, 0.125]) for name in NAMES}
    aggregate, _ = through(
        Stack([Doubler(), PlainSum()], Numbers(16, 2.0, 5)), inputs, dict.fromkeys(NAMES, 5)
    )
    assert np.allclose(aggregate.vector / aggregate.weight, inputs["a"], atol=1e-4)


def test_a_layer_may_replace_the_quantiser_and_choose_the_group() -> None:
    inputs = {name: np.array([7.0, -3.0]) for name in NAMES}
    aggregate, plan = through(Stack([OwnIntegers()]), inputs, dict.fromkeys(NAMES, 1))
    assert plan.quantiser is None
    assert plan.summed.modulus == 1 << 16
    assert aggregate.vector.tolist() == [21, -9]


def test_nothing_exact_is_sent_beside_the_vector_when_a_layer_forbids_it() -> None:
    plan = plan_of(Stack([Secret()]))
    assert plan.summed.coordinates == ()
    assert plan.dimension == 4
    assert [c.name for c in plan_of(Stack([])).summed.coordinates] == ["weight", "clipped"]


def test_sensitivity_is_carried_through_rounding() -> None:
    plan = plan_of(Stack([Secret()]), dimension=100)
    assert plan.quantiser is not None
    assert plan.summed.l2 == pytest.approx(1.0 + plan.quantiser.step * 10 / 2)
    assert plan.quantiser.range >= 1.0


def test_events_and_local_hooks_are_called() -> None:
    stack = Stack([Secret(), Wrapper()])
    events = plan_of(stack).events(("a", "b"))
    assert [(e.kind, e.facts) for e in events] == [("Toy", {"survivors": 2})]
    task = LocalTask("a", None, None, None, None, run=lambda t: {"loss": 1.0})
    assert Wrapper().local(lambda t: t.run(t), facts(1))(task) == {"loss": 1.0, "wrapped": 1.0}
    assert Wrapper().needs_local()
    assert not Doubler().needs_local()


@pytest.mark.parametrize(
    "layers, said",
    [
        ([PlainSum(), Doubler()], "as the last layer"),
        ([PlainSum(), PlainSum()], "at most one secure sum"),
        ([Doubler(), Doubler()], "each layer once"),
        (["secagg"], "expected privacy layers"),
    ],
)
def test_what_cannot_be_stacked_is_refused_when_built(layers: list[Any], said: str) -> None:
    with pytest.raises(StackError, match=said):
        Stack(layers)


def test_the_sum_that_was_given_is_the_one_that_sums() -> None:
    given = PlainSum()
    assert Stack([Doubler(), given]).secure_sum is given
    assert Stack([given]).layers == ()
    assert isinstance(Stack([Doubler()]).secure_sum, PlainSum)
    with pytest.raises(StackError, match="at most one secure sum"):
        Stack([given, given])


class Hiding(PrivacyLayer):
    """Its noise is added by the server."""

    name = "hiding"
    hides_sum_from_clients = True


class Shown(PlainSum):
    """Clients see the sum."""

    clients_learn_sum = True


def test_a_sum_that_clients_see_bears_no_layer_that_hides_it() -> None:
    for fine in ([Hiding(), PlainSum()], [Doubler(), Shown()], [Hiding()]):
        assert Stack(fine).layers
    with pytest.raises(
        StackError, match="hiding: the server adds the noise to the sum, and Shown shows clients"
    ):
        Stack([Hiding(), Shown()])


def test_the_range_of_the_numbers_reaches_the_first_layer() -> None:
    assert plan_of(Stack([Doubler()], Numbers(16, 2.5))).signals[0].range == 2.5


def test_a_layer_that_cannot_take_what_it_is_given_is_refused_before_round_one() -> None:
    with pytest.raises(StackError, match="takes real vectors"):
        Stack([OwnIntegers(), Doubler()]).plan(RunFacts(3, 3, 3, dimension=4))


def test_impossible_capacity_is_refused_before_round_one() -> None:
    with pytest.raises(CapacityError, match="weight cap"):
        Stack([], Numbers(32, 1.0, 1 << 24)).plan(RunFacts(1, 1 << 10, 1 << 10, dimension=4))


def test_a_weight_beyond_the_public_cap_is_misuse() -> None:
    plan = plan_of(Stack([], Numbers(16, 1.0, 10)))
    with pytest.raises(Misuse, match="weight from 0 to 10"):
        plan.encode(Contribution(np.zeros(4), 11), plan.facts)


def test_the_digest_binds_model_layers_and_numbers() -> None:
    digests = {
        plan_of(Stack([])).digest(bytes(32)),
        plan_of(Stack([])).digest(b"\1" * 32),
        plan_of(Stack([Doubler()])).digest(bytes(32)),
        plan_of(Stack([], Numbers(12))).digest(bytes(32)),
        plan_of(Stack([], Numbers(16, 2.0))).digest(bytes(32)),
        plan_of(Stack([], Numbers(16, None, 5))).digest(bytes(32)),
    }
    assert len(digests) == 6
