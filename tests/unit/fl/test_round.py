"""One round, whoever plays it: what is never lowered, what is abandoned whole, what the digest and the seed bind."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP
from fl import Federation, SecureAverage
from fl.dropouts import leaving
from fl.round import open_round, reference_of
from protocols import PlainSum
from protocols.errors import Aborted, Misuse, TooFewSurvivors
from protocols.layers import Aggregate, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.stack import Stack
from protocols.statement import PrivacyEvent
from secagg import SecAgg, SecAggPlus


class Demanding(PrivacyLayer):
    """Toy: wants so many survivors, and counts what it is asked to pay for."""

    name = "demanding"

    def __init__(self, least: int) -> None:
        self.least = least
        self.paid = 0

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(given, min_survivors=self.least)

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        self.paid += 1
        return ()

    def planned(self, facts: RoundFacts) -> tuple[PrivacyEvent, ...]:
        return ()


class Content(Demanding):
    """Toy: one that stands beside another."""

    name = "content"


class Refusing(PrivacyLayer):
    """Toy: moves on with every sum it decodes, and refuses the second one."""

    name = "refusing"

    def __init__(self, at: int = 2, seen: int = 0) -> None:
        self.at, self.seen = at, seen

    def decode(self, aggregate: Aggregate, *rest: Any) -> Aggregate:
        self.seen += 1
        if self.seen == self.at:
            self.at = 0
            raise Aborted("the sum is not what it should be")
        return aggregate

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def loaders(count: int) -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(count * 4, 4, generator=drawn)
    return [DataLoader(TensorDataset(part, (part.sum(1) > 0).long()), batch_size=4) for part in x.split(4)]


def federation(clients: int, privacy: list[Any], **options: Any) -> Federation:
    return Federation(lambda: torch.nn.Linear(4, 2), loaders(clients), privacy=privacy, **options)


def model(federation: Federation) -> list[list[float]]:
    return [tensor.tolist() for tensor in federation.coordinator.model.state_dict().values()]


# -- a layer's demand --


def test_secure_average_does_not_lower_what_a_layer_demands() -> None:
    layer = Demanding(4)
    seen: list[Any] = []
    average = SecureAverage([layer, SecAggPlus()])
    with pytest.raises(TooFewSurvivors, match="3 were asked, min_survivors is 4"):
        average({name: {"w": torch.ones(3)} for name in "abc"}, reference={"w": torch.zeros(3)})
    assert (layer.paid, seen, average.outcome) == (0, [], None)


def test_no_later_layer_lowers_what_an_earlier_one_demands() -> None:
    def play(*layers: PrivacyLayer) -> list[str | None]:
        run = federation(6, [*layers, SecAggPlus()], dropout=0.3, seed=2)
        return [result.abandoned for result in run.fit(4).history]

    lowered = play(Demanding(6), Content(1))
    assert lowered == play(Content(1), Demanding(6)) == play(Demanding(6))
    assert any(lowered)
    assert not any(play(Demanding(1)))


def test_a_round_that_asks_fewer_than_a_layer_demands_is_abandoned_before_anybody_trains() -> None:
    trained: list[int] = []

    def train(model: Any, loader: Any, round: int) -> None:
        trained.append(round)

    layer = Demanding(4)
    run = federation(7, [layer, SecAgg()], train=train, sampling="poisson", fraction=0.5, seed=1)
    history = run.fit(12).history
    few = [result for result in history if len(result.asked) < 4]
    assert few
    assert len(few) < len(history)
    for result in few:
        assert "min_survivors is 4" in (result.abandoned or "")
        assert result.number not in trained
    assert layer.paid == len(history) - len(few)


def test_a_layer_that_demands_more_than_any_round_asks_is_refused_before_round_1() -> None:
    with pytest.raises(Misuse, match="min_survivors=4"):
        federation(3, [Demanding(4), SecAgg()]).fit(1)


def test_a_drawn_cohort_that_the_secure_sum_cannot_serve_is_an_abandoned_round() -> None:
    history = federation(6, [SecAgg()], sampling="poisson", fraction=0.4, seed=2).fit(12).history
    assert {bool(result.abandoned) for result in history} == {True, False}
    assert all(len(result.asked) < 3 for result in history if result.abandoned)


# -- a layer that refuses to decode --


def test_a_sum_that_a_layer_refuses_abandons_the_round_whole() -> None:
    layer = Refusing()
    run = federation(3, [layer])
    models = []
    history = run.fit(4, on_round=lambda result: models.append(model(run))).history
    assert [result.abandoned for result in history] == [None, "the sum is not what it should be", None, None]
    assert models[0] == models[1] != models[2]
    assert layer.seen == 3, "the refused round left a trace in the layer"


def test_an_earlier_layers_state_is_taken_back_too() -> None:
    clip = ClientDP(noise_multiplier=1.0, clip="adaptive")
    run = federation(3, [Refusing(at=1), clip, PlainSum()])
    before = clip.state()
    assert run.fit(1).history[0].abandoned
    assert clip.state() == before


def test_secure_average_raises_what_a_layer_refuses_with() -> None:
    average = SecureAverage([Refusing(at=1)])
    given = {name: {"w": torch.ones(3)} for name in "abc"}
    with pytest.raises(Aborted, match="not what it should be"):
        average(given, reference={"w": torch.zeros(3)})
    assert average(given, reference={"w": torch.zeros(3)})["w"].tolist() == [1.0] * 3


def test_an_abandoned_call_of_secure_average_is_what_it_tells_next() -> None:
    average = SecureAverage([Refusing(at=2), ClientDP(noise_multiplier=1.0, clip=1.0, delta=1e-5)], rounds=3)
    start = {"w": torch.zeros(3)}
    average({name: {"w": torch.ones(3)} for name in "abc"}, reference=start)
    assert average.survivors == ("a", "b", "c")
    with pytest.raises(Aborted, match="not what it should be"):
        average({name: {"w": torch.ones(3)} for name in "ab"}, reference=start)
    assert average.survivors == ()
    assert "2 of 3 planned rounds are over" in str(average.statement)


def test_a_first_call_with_which_nothing_can_be_planned_leaves_the_plan_to_the_next() -> None:
    average = SecureAverage([DistributedDP(epsilon=5.0, clip=1.0), SecAgg()], rounds=2, delta=1e-5)
    start = {"w": torch.zeros(3)}
    for few in "a", "ab":
        with pytest.raises(Misuse, match="at least 3 clients"):
            average({name: {"w": torch.ones(3)} for name in few}, reference=start)
    average({name: {"w": torch.ones(3)} for name in "abcdef"}, reference=start)
    assert "1 of 2 planned rounds are over" in str(average.statement)


def test_what_a_plan_refuses_is_refused_at_every_call() -> None:
    layer = ClientDP(epsilon=5.0, delta=1e-5, correlation="banded", min_separation=2, participations=2)
    average = SecureAverage([layer, SecAgg()], rounds=3)
    for _ in range(2):
        with pytest.raises(Misuse, match="clients take part 2 rounds apart"):
            average({name: {"w": torch.ones(3)} for name in "abcdef"}, reference={"w": torch.zeros(3)})
    assert average.epsilon is None  # nothing is paid for


# -- what is bound --


def shown(tree: dict[str, np.ndarray], number: int = 1, integers: str = "keep") -> Any:
    stack, run = Stack([]), RunFacts(300, 3, 3, dimension=2)
    return open_round(stack, run, number, ("a", "b", "c"), reference_of(tree, integers))


def tree(kept: int = 0, weight: float = 1.0) -> dict[str, np.ndarray]:
    return {"w": np.array([weight, 2.0], np.float32), "batches": np.array([4, kept])}


@pytest.mark.parametrize("integers", ["keep", "sum"])
def test_the_digest_binds_every_bit_integers_included(integers: str) -> None:
    digests = {
        shown(given, integers=integers).digest
        for given in (tree(), tree(kept=1), tree(weight=np.nextafter(np.float32(1), np.float32(2))))
    }
    assert len(digests) == 3
    assert shown(tree(), integers=integers).digest in digests


def test_the_digest_binds_the_configuration_and_which_of_the_sums_it_is() -> None:
    stack, run, model = Stack([]), RunFacts(3, 3, 3, dimension=2), reference_of(tree())
    others: list[dict[str, Any]] = [
        {},
        {"config": b"lr=1"},
        {"config": b"lr=2"},
        {"name": "north"},
        {"name": "south"},
    ]
    digests = {open_round(stack, run, 1, ("a", "b", "c"), model, **other).digest for other in others}
    assert len(digests) == len(others)


def test_secure_average_binds_kept_integers() -> None:
    def digest(kept: int) -> bytes:
        average = SecureAverage([])
        state = {"w": torch.zeros(2), "n": torch.tensor(kept)}
        average({name: {"w": torch.ones(2), "n": torch.tensor(kept)} for name in "ab"}, reference=state)
        assert average.outcome is not None
        return average.outcome.session.model

    assert digest(1) == digest(1) != digest(2)


def test_rounds_that_are_256_apart_have_seeds_of_their_own() -> None:
    seeds = [shown(tree(), number).plan.facts.seed for number in (1, 257, 1)]
    assert seeds[0] == seeds[2] != seeds[1]


def test_integers_to_be_summed_are_refused_beside_noise_that_does_not_cover_them() -> None:
    with pytest.raises(Misuse, match=r'integers: "sum" .* client-dp'):
        SecureAverage([ClientDP(noise_multiplier=1.0, clip=1.0), PlainSum()], integers="sum")(
            {name: {"w": torch.ones(2), "n": torch.tensor(1)} for name in "ab"},
            reference={"w": torch.zeros(2), "n": torch.tensor(1)},
        )


def test_the_ring_follows_the_largest_size_where_sizes_are_public() -> None:
    from fl import Federation
    from secagg import SecAgg

    def make() -> torch.nn.Module:
        return torch.nn.Linear(2, 2)

    def loader(examples: int) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(examples, 2), torch.zeros(examples).long()), 8)

    sizes = {"a": 3, "b": 9, "c": 20, "d": 1}
    known = Federation(
        make, {name: loader(size) for name, size in sizes.items()}, privacy=[SecAgg()], metrics=()
    )
    unknown = Federation(
        make, lambda name, config: loader(sizes[name]), names=list(sizes), privacy=[SecAgg()], metrics=()
    )
    first, second = known.fit(1), unknown.fit(1)
    assert torch.equal(first.model.weight, second.model.weight)
    assert (known.engine.session.bound, unknown.engine.session.bound) == (20 * 32767, 10_000 * 32767)
    assert first.history[0].bytes_up_per_client < second.history[0].bytes_up_per_client
    assert first.history[0].weights_capped == 0


def test_everyone_asked_who_stayed_is_charged_in_a_round_without_enough_survivors() -> None:
    layer = Demanding(6)
    asked: list[tuple[str, ...]] = []
    layer.events = lambda facts, survivors: asked.append(survivors) or ()  # type: ignore[method-assign]
    run = federation(6, [layer, SecAgg(dropout=0.4)], dropout=0.5, seed=5)
    gone = leaving(5, 1, run.setup.names, 0.5)
    (result,) = run.fit(1).history
    assert result.abandoned
    assert asked == [tuple(name for name in run.setup.names if gone.get(name, True))]
    assert 0 < len(asked[0]) < 6
