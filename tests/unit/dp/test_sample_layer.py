"""SampleDP, number by number: what it plans, spends, refuses, keeps and hands to a client's loop. The steps themselves
have tests of their own; the check before training is left out here.
"""

import functools
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import SampleDP
from dp import sample as package
from dp.event_json import to_fact
from dp.events import Planned, Relation, Unit, repeat
from dp.layering import discrete
from dp.sample.engine import ClientEngine
from dp.sample.errors import UnaccountedStep
from dp.sample.layer import _rebind, repaired
from dp.sample.options import ASSUMED, AdaptiveClip, Clipping
from protocols.errors import BudgetExceeded, Misuse, StackError
from protocols.layers import Block, Contribution, LocalTask, RoundFacts, RunFacts, Signal
from tests.defects.dp.sample_models import vectors
from tests.unit.dp.test_dp_sample_rows import line, made

RUN = RunFacts(rounds=4, population=1, cohort=1, dimension=43, delta=1e-5, local_epochs=2)


class Kept:
    """A client's store."""

    def __init__(self, **places: bytes) -> None:
        self.places = dict(places)

    def get(self, place: str) -> bytes | None:
        return self.places.get(place)

    def put(self, place: str, data: bytes) -> None:
        self.places[place] = data


class Book:
    """A ledger's one call."""

    def __init__(self) -> None:
        self.charged: list[Any] = []
        self.terms = SimpleNamespace(accountant="rdp")

    def charge(self, event: Any, count: int, **named: Any) -> None:
        self.charged.append((event, count, named))


def facts(number: int = 1, client: str = "a", run: RunFacts = RUN, **more: Any) -> RoundFacts:
    return RoundFacts(run, number, ("a", "b"), bytes(32), client=client, scope="run", **more)


def passes(task: LocalTask) -> dict[str, float]:
    for _ in range(task.epochs):
        for x, y in task.loader:
            task.optimizer.zero_grad()
            task.criterion(task.model(x), y).backward()
            task.optimizer.step()
    return {"loss": 1.0}


def task(
    net: nn.Module | None = None, data: Any = None, size: int = 6, epochs: int = 2, lr: float = 0.1
) -> LocalTask:
    net = made(line) if net is None else net
    sgd = torch.optim.SGD(net.parameters(), lr=lr)
    return LocalTask(
        "a",
        net,
        DataLoader(vectors() if data is None else data, batch_size=size),
        sgd,
        nn.CrossEntropyLoss(),
        passes,
        epochs,
    )


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose check was asked for; it finds nothing."""
    seen: list[str] = []

    def probe(self: ClientEngine, run: Any, whose: str = "nobody") -> None:
        seen.append(whose)
        self.checked = True

    monkeypatch.setattr(ClientEngine, "probe", probe)
    return seen


def layer(**options: Any) -> SampleDP:
    return SampleDP(**{"noise_multiplier": 1.0} | options)


def trained(own: SampleDP, given: LocalTask, told: RoundFacts | None = None) -> dict[str, float]:
    return own.local(given.run, told or facts())(given)


def test_names_of_the_package_are_found_where_they_live() -> None:
    assert (package.SampleDP, package.ClientEngine, package.Clipping) == (SampleDP, ClientEngine, Clipping)
    with pytest.raises(AttributeError, match=r"'dp\.sample' has no attribute 'Sample'"):
        package.Sample  # noqa: B018


def test_what_is_taken_where_nothing_is_said() -> None:
    own = layer()
    assert own.clipping == Clipping(1.0, False, "hooks", None)
    assert (own.batch_size, own.examples, own.repair, own.schedule, own.ledger) == (
        None,
        None,
        False,
        None,
        None,
    )
    assert (own.price.accountant, own.owns) == ("rdp", frozenset({"optimizer"}))
    ledger: Any = {"a": Book()}
    told = layer(
        physical_batch=7, ledger=ledger, gradients="ghost", accountant="pld", examples=1, batch_size=1
    )
    assert told.clipping == Clipping(1.0, False, "ghost", 7)
    assert (told.ledger, told.price.accountant, told.examples, told.batch_size) == (ledger, "pld", 1, 1)
    assert layer(clip=(1.0, 2.0), clipping="per-layer").clipping == Clipping((1.0, 2.0), True)
    follows = AdaptiveClip(start=2.0)
    assert layer(clip=follows).clipping.clip is follows
    assert layer(clip=follows, clipping="adaptive").clipping.clip is follows
    assert layer(clip=2.0, clipping="adaptive").clipping.clip == AdaptiveClip(start=2.0, least=2e-3, most=2e3)
    assert layer(clip=2.0, clipping="adaptive").clip == 2.0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"schedule": 0.5}, "schedule: expected a function"),
        ({"clipping": "wide"}, 'expected clipping "flat", "per-layer" or "adaptive"'),
        ({"clip": (1.0, 2.0), "clipping": "adaptive"}, "adaptive clipping follows one norm"),
        ({"clip": AdaptiveClip(), "clipping": "per-layer"}, "^per-layer clipping has fixed norms$"),
        ({"batch_size": 0}, "batch size of at least 1"),
        ({"examples": 0}, "public number of at least 1"),
        ({"clip": (1.0, 2.0)}, "several clip norms"),
    ],
)
def test_options_that_contradict_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        layer(**wrong)


def test_the_layer_describes_itself() -> None:
    assert layer(clip=0.5, gradients="ghost").describe() == (
        "sample-dp: DP-SGD in clients, ghost gradients, clip 0.5 per example, add-remove neighbours; holds against "
        "everybody; each client's number of examples is public: its rate, steps and noise follow it; assumed: "
        f"{ASSUMED}"
    )
    public = layer(examples=30)
    assert (
        "rate, steps and noise follow the public number of 30 examples, no client's own;" in public.describe()
    )
    assert (layer().sizes_are_public, public.sizes_are_public) == (True, False)


def test_clients_weigh_equally_and_send_no_figure() -> None:
    own, given = layer(), Signal("real", 43, 9)
    told = own.transform(given, facts())
    assert (told.weight_cap, told.exact_coordinates, told.dimension) == (1, False, 43)
    sent = own.encode(Contribution(np.ones(3), 7, coordinates={"loss": 1.0}), told, facts())
    assert (sent.weight, sent.coordinates, sent.vector.tolist()) == (1, {}, [1.0] * 3)


def test_a_block_that_is_made_of_examples_otherwise_is_refused() -> None:
    blocks = (Block("other", 3), Block("derived", 3, derived=True))
    told = facts(run=replace(RUN, blocks=blocks))
    layer().transform(Signal("real", 43, 1), told)
    layer().transform(Signal("real", 3, 1, block="derived"), told)
    with pytest.raises(StackError, match="the block 'other' is made from a client's examples otherwise"):
        layer().transform(Signal("real", 3, 1, block="other"), told)


def test_a_round_takes_its_steps_tells_its_price_and_charges_them(checks: list[str]) -> None:
    book, asked = Book(), list[Any]()
    own = layer(ledger={"a": book})
    given = task()
    net, before = given.model, [p.detach().clone() for p in given.model.parameters()]
    store: Any = Kept()
    told = facts(store=store, afford=asked.append)
    assert trained(own, given, told) == {"loss": 1.0}
    account = own.accounts["a"]
    event = discrete(1.0, Unit.EXAMPLE, Relation.ADD_REMOVE, 44, rate=0.5)
    assert (account.examples, account.rate, account.multiplier) == (12, 0.5, 1.0)
    assert (account.planned, account.steps, account.taken, account.event) == (16, 4, 4, event)
    assert asked == [(to_fact(repeat(event, 4), adversary="server", party="a"),)]
    assert book.charged == [(event, 4, {"round": 1, "party": "a", "note": "sample-dp"})]
    assert checks == ["client 'a', round 1"]
    assert given.model is net
    assert any(not torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    plan = {"rate": 0.5, "multiplier": 1.0, "planned": 16, "steps": 4}
    assert json.loads(store.places["sample-dp/run"]) == {"checked": True, "taken": 4, **plan}
    assert own.state() == {"clients": {"a": {"taken": 4, **plan}}}
    trained(own, task(net), facts(2, store=store))
    assert (account.taken, json.loads(store.places["sample-dp/run"])["taken"]) == (8, 8)


def test_a_loop_that_seeds_torch_is_refused_in_training_alone() -> None:
    def seeds(given: LocalTask) -> dict[str, float]:
        torch.manual_seed(int(torch.initial_seed() + 1) % 2**31)
        return passes(given)

    given = task()
    given.run = seeds
    with torch.random.fork_rng(), pytest.raises(UnaccountedStep, match="seeds torch"):
        trained(layer(), given)
    assert not any(hasattr(p, "grad_sample") for p in given.model.parameters())


def test_an_adaptive_clip_is_kept_and_goes_on() -> None:
    clip = AdaptiveClip(start=1.0, count_noise=0.5)
    own, store = layer(clip=clip, noise_multiplier=0.1), Kept()
    trained(own, task(), facts(store=store))  # type: ignore[arg-type]  # stands for one
    engine = own.accounts["a"].engine
    assert engine is not None
    kept = json.loads(store.places["sample-dp/run"])
    assert kept["clip"] == engine.clip != 1.0
    again = layer(clip=clip, noise_multiplier=0.1)
    given = task()
    again._account(given, facts())
    gone_on = again._engine(again.accounts["a"], facts(store=store))  # type: ignore[arg-type]  # stands for one
    assert (gone_on.clip, gone_on.taken, gone_on.checked) == (kept["clip"], 4, True)
    assert again.accounts["a"].taken == 4
    with pytest.raises(Misuse, match=r"half the noise multiplier 6: raise count_noise above 0\.5"):
        trained(layer(clip=clip, noise_multiplier=6.0), task())
    trained(layer(clip=clip, noise_multiplier=5.9), task())


def test_what_a_state_brings_back_counts_where_it_is_more() -> None:
    own, given = layer(), task()
    own.restore({"clients": {"a": {"taken": 6, "clip": 0.5}}})
    store: Any = Kept(**{"sample-dp/run": json.dumps({"taken": 9, "checked": True}).encode()})
    own._account(given, facts())
    engine = own._engine(own.accounts["a"], facts(store=store))
    assert (engine.taken, engine.clip, engine.checked) == (6, 0.5, True)
    own.restore({})
    assert own._restored == {}
    own = layer()
    own._account(given, facts())
    own.accounts["a"].taken = 11
    assert own._engine(own.accounts["a"], facts(store=store)).taken == 11
    assert own._engine(own.accounts["a"], facts()) is own.accounts["a"].engine
    engine = own._engine(own.accounts["a"], facts())
    assert (engine.rate, engine.steps, engine.noise_multiplier, engine.expected_batch) == (0.5, 2, 1.0, 6.0)


@pytest.mark.parametrize("name", ["rate", "multiplier", "steps"])
def test_another_plan_than_the_one_that_began_is_refused(name: str) -> None:
    own = layer()
    own._account(task(), facts())
    account = own.accounts["a"]
    now = float(getattr(account, name))
    own._require_plan({name: now * (1 + 1e-12)}, account, "a")
    own._require_plan({"planned": 3.0}, account, "a")
    with pytest.raises(BudgetExceeded, match=f"^a began this run with {name} .* and it is {now:.6g} now"):
        own._require_plan({name: now * 1.5}, account, "a")


class Prices:
    """Every step costs a quarter; an accountant's name, events and delta are kept."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def add(self, event: Any, times: int) -> "Prices":
        self.event, self.times = event, times
        return self

    def epsilon(self, delta: float) -> float:
        self.asked.append((self.name, self.event, self.times, delta))
        return self.times / 4


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr("dp.sample.layer.make_accountant", Prices)
    monkeypatch.setattr(SampleDP, "calibrated", lambda *_: 1.0)
    Prices.asked.clear()
    return Prices.asked


def test_what_a_client_spent_is_told_by_its_own_account(prices: list[Any]) -> None:
    own = layer(accountant="pld")
    own._account(task(), facts())
    own.accounts["a"].taken = 6
    assert (own.epsilon("a", 1e-5), own.epsilon("a", 1e-6, "rdp")) == (1.5, 1.5)
    event = own.accounts["a"].event
    assert prices == [("pld", event, 6, 1e-5), ("rdp", event, 6, 1e-6)]
    with pytest.raises(Misuse, match="b has not trained here"):
        own.epsilon("b", 1e-5)


def test_steps_beyond_the_plan_are_refused_where_they_cost_more(prices: list[Any]) -> None:
    own = SampleDP(epsilon=4.25, delta=1e-3, accountant="pld")
    own._account(task(), facts())
    account = own.accounts["a"]
    for taken, asked in ((0, 0), (12, 0), (13, 1)):
        account.taken = taken
        own._refuse_overspending(account, facts())
        assert len(prices) == asked
    assert prices == [("pld", account.event, 17, 1e-3)]
    account.taken = 14
    told = "^14 of 16 planned steps are taken; 4 more would bring epsilon to 4.5, beyond 4.25; nothing was trained"
    with pytest.raises(BudgetExceeded, match=told):
        own._refuse_overspending(account, facts())
    with pytest.raises(BudgetExceeded, match=told):
        trained(own, task())
    with pytest.raises(BudgetExceeded, match="planned 99 of SampleDP"):
        own._require_plan({"planned": 99.0}, account, "a")
    given = layer()
    given._account(task(), facts())
    given.accounts["a"].taken = 10**6
    given._refuse_overspending(given.accounts["a"], facts())


def test_a_calibration_follows_rate_and_steps_and_counts_one_coordinate_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, int]] = []

    def multiplier(_: Any, event: Any, times: int, run: RunFacts) -> float:
        asked.append((event(2.0), times))
        return 2.0

    monkeypatch.setattr("dp.layering.Price.multiplier", multiplier)
    own = SampleDP(epsilon=4.0)
    for at, (size, epochs) in enumerate([(6, 2), (3, 1), (6, 1), (6, 2)]):
        given = task(size=size, epochs=epochs)
        given.client = str(at)
        own._account(given, facts())
    step = functools.partial(discrete, 2.0, Unit.EXAMPLE, Relation.ADD_REMOVE, 44)
    assert asked == [(step(rate=0.5), 16), (step(rate=0.25), 16), (step(rate=0.5), 8)]


def test_an_engine_draws_from_the_clients_stream_and_takes_what_others_found() -> None:
    own, told = layer(), facts()
    own._probed = SimpleNamespace()  # type: ignore[assignment]  # stands for one
    own._account(task(), told)
    engine = own._engine(own.accounts["a"], told)
    assert (engine.random is told.random, engine.probed is own._probed) == (True, True)


def test_rate_and_steps_follow_the_number_of_examples() -> None:
    for options, size, many, wanted in [
        ({}, 6, 12, (12, 0.5, 4)),
        ({}, 5, 12, (12, 1 / 3, 6)),
        ({}, 50, 12, (12, 1.0, 2)),
        ({"batch_size": 4}, 6, 12, (12, 1 / 3, 6)),
        ({"examples": 60}, 6, 12, (60, 0.1, 20)),
        ({"examples": 60}, 6, 0, (60, 0.1, 20)),
    ]:
        own = layer(**options)
        x = torch.zeros(many, 4)
        account = own._account(task(data=TensorDataset(x, x[:, 0].long()), size=size), facts())
        assert (account.examples, account.rate, account.steps) == pytest.approx(wanted)
        assert account.planned == 4 * account.steps
        assert own._steps(account) == account.steps // 2
        assert own._account(task(), facts()) is account
    with pytest.raises(Misuse, match=r"^sample-dp: a holds no example"):
        layer()._account(task(data=TensorDataset(torch.zeros(0, 4))), facts())
    given = task()
    given.loader = SimpleNamespace(dataset=[1])
    with pytest.raises(Misuse, match="expected batch_size, or a loader that has one"):
        layer()._account(given, facts())


def test_a_layer_of_another_run_is_refused() -> None:
    own = layer()
    own._account(task(), facts())
    with pytest.raises(UnaccountedStep, match=r"^sample-dp: this layer has trained a in another run"):
        own._account(task(), replace(facts(), scope="other"))


def test_a_schedule_is_asked_for_every_step_of_the_run_by_its_number() -> None:
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.5**step

    own = layer(schedule=schedule)
    assert own._factors(3, 1) == (1.0, 0.5, 0.25)
    assert own._factors(3, 3) == (0.5**6, 0.5**7, 0.5**8)
    assert asked == [0, 1, 2, 6, 7, 8]
    assert layer()._factors(3, 1) == ()
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(
            UnaccountedStep, match=f"finite factor > 0 for every step, got {wrong} for step 4"
        ):
            layer(schedule=lambda step, wrong=wrong: wrong if step == 4 else 1.0)._factors(3, 2)  # type: ignore[misc]


def test_a_schedule_multiplies_the_learning_rate() -> None:
    moved = []
    for factor in (1.0, 1e-6):
        given = task()
        before = given.model[0].weight.detach().clone()
        trained(layer(schedule=lambda step, factor=factor: factor, noise_multiplier=1e-3), given)  # type: ignore[misc]
        moved.append(float((given.model[0].weight.detach() - before).norm()))
    assert moved[1] < 1e-4 * moved[0]


def test_what_a_round_spends_is_told_of_each_client_where_it_is_known() -> None:
    step = discrete(1.0, Unit.EXAMPLE, Relation.ADD_REMOVE, 44, rate=0.2)
    known = facts(run=replace(RUN, sizes={"a": 30, "b": 30, "c": 0}))
    own = layer(batch_size=6)
    assert own.events(known, ("a", "b")) == tuple(
        to_fact(repeat(step, 10), adversary="server", party=name) for name in "ab"
    )
    assert own.planned(known) == ()
    with pytest.raises(Misuse, match=r"^sample-dp: c holds no example"):
        own.events(known, ("c",))
    public = layer(batch_size=6, examples=30)
    assert public.events(known, ("c",)) == (to_fact(repeat(step, 10), adversary="server", party="c"),)
    with pytest.raises(
        Misuse, match="needs batch_size and examples, or the clients' sizes, to state what a spends"
    ):
        layer().events(known, ("a",))
    whole = SampleDP(epsilon=4.0).events(known, ("a",))
    unit: dict[str, Any] = {"unit": Unit.EXAMPLE, "relation": Relation.ADD_REMOVE}
    assert whole == (to_fact(Planned(epsilon=4.0, delta=1e-5, **unit), adversary="server", party="a"),)
    trains = layer()
    trained(trains, task())
    half = discrete(1.0, Unit.EXAMPLE, Relation.ADD_REMOVE, 44, rate=0.5)
    assert trains.events(facts(), ("a",)) == (to_fact(repeat(half, 4), adversary="server", party="a"),)
    assert layer().kind(None) == discrete(1.0, Unit.EXAMPLE, Relation.ADD_REMOVE, 1, rate=0.5)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def remembers() -> nn.Module:
    """Under the same names before and after."""
    return nn.ModuleDict({"gru": nn.GRU(4, 3, batch_first=True), "out": nn.Linear(3, 3)})


def test_a_repair_that_changes_what_the_state_holds_is_refused_with_the_cure() -> None:
    with pytest.raises(
        UnaccountedStep, match=r"holds: 1 \(BatchNorm1d to GroupNorm\); give the federation repaired"
    ):
        trained(layer(repair=True), task(normed()))
    both = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    with pytest.raises(
        UnaccountedStep, match=r"0 \(BatchNorm1d to GroupNorm\), 1 \(BatchNorm1d to GroupNorm\);"
    ):
        layer(repair=True)._repair(task(both))
    fixed = repaired(normed)()
    assert isinstance(fixed[1], nn.GroupNorm)
    given = task()
    net = given.model
    layer(repair=True)._repair(given)
    assert given.model is net


def test_a_repaired_model_takes_the_place_of_the_tasks_own_with_its_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = nn.Sequential(nn.InstanceNorm1d(4, affine=True, track_running_stats=False), nn.Linear(4, 3))
    other = nn.Sequential(nn.InstanceNorm1d(4, affine=True), nn.Linear(4, 3))
    monkeypatch.setattr("dp.sample.validation.problems", lambda model: {"0": "it mixes"})
    monkeypatch.setattr("dp.sample.validation.repair", lambda model: (other, ()))
    given = task(net)
    layer(repair=True)._repair(given)
    assert given.model is other
    assert torch.equal(other[1].weight, net[1].weight)
    held = [id(p) for group in given.optimizer.param_groups for p in group["params"]]
    assert held == [id(p) for p in other.parameters()]


def test_an_optimizer_is_pointed_at_the_other_model_group_by_group() -> None:
    net, other = made(line), made(line)
    first, second, third, fourth = net.parameters()
    given = task(net)
    given.optimizer = torch.optim.SGD([{"params": [third, first]}, {"params": [fourth], "lr": 0.5}], lr=0.1)
    _rebind(given, other)
    places = [
        [list(map(id, other.parameters())).index(id(p)) for p in g["params"]]
        for g in given.optimizer.param_groups
    ]
    assert (places, given.model) == ([[2, 0], [3]], other)
    assert second is not None
