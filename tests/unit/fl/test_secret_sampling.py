"""Whole federations that claim amplification by a secret choice of clients: every planned round is played or charged,
what is printed is the price of what was done, and who and how many took part is told nowhere.
"""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.accountants import epsilon
from dp.event_json import from_fact
from dp.events import Failing, UnknownEvent, repeat
from fl import Federation, FedSGD, SecureAverage, checkpoint
from fl.cli.run_view import round_line, summary
from fl.dropouts import leaving_apart
from fl.registry import STRATEGIES
from fl.round.hidden import WITHHELD
from fl.round.run_files import CHECKPOINT, METRICS
from fl.run_options import RunOptions
from fl.sampling import carried
from protocols import PlainSum
from protocols.errors import BudgetExceeded, CapacityError, Misuse, SecAggError, StackError, TooFewSurvivors
from protocols.layers import RunFacts
from protocols.record import FILE_NAME, verify_record
from protocols.stack import Stack
from secagg import SecAggPlus


def federation(
    size: int, rate: float, *privacy: Any, folder: Path | None = None, **options: Any
) -> Federation:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 3, generator=generator), torch.arange(8) % 2
    layers = privacy or (ClientDP(noise_multiplier=1.0, clip=0.5, amplify=True),)
    return Federation(
        lambda: torch.nn.Linear(3, 2),
        {f"ward-{i}": DataLoader(TensorDataset(x.clone(), y), 8) for i in range(size)},
        privacy=layers,
        fraction=rate,
        output=folder,
        **{"sampling": "poisson", **options},
    )


def loss(model: Any, batch: Any) -> Any:
    x, y = batch
    return torch.nn.functional.cross_entropy(model(x), y)


def step(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def amplified(noise: float = 1.0, delta: float = 1e-5) -> ClientDP:
    return ClientDP(noise_multiplier=noise, delta=delta, clip=0.5, amplify=True)


def test_every_planned_round_is_played_and_charged_whatever_the_number_chosen() -> None:
    """Ten clients at rate .05: six rounds of ten were skipped, and 2.07 printed in place of at least 4.59."""
    rounds, run = 12, federation(10, 0.05)
    models: list[Any] = []
    result = run.fit(rounds, on_round=lambda r: models.append(run.coordinator.reference().flat.vector))
    assert [entry.abandoned for entry in result.history] == [None] * rounds
    assert all((a != b).any() for a, b in itertools.pairwise(models))
    assert len(run.account.events) == rounds
    event = from_fact(run.account.events[0])
    assert not isinstance(event, Failing)
    assert event.sample_rate == 0.05
    assert result.epsilon == epsilon([repeat(event, rounds)], 1e-5, "rdp")
    assert [line.adversary for line in result.guarantees] == ["public"]


COMPOSES = ("fedavg", "fedsgd", "fedprox", "fedavgm", "fedadagrad", "fedyogi", "fedadam", "fednova", "ifca")


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_no_file_of_a_hidden_run_tells_who_took_part(name: str, tmp_path: Path) -> None:
    """IFCA's checkpoint named the survivors of the last round."""
    made = STRATEGIES.build(f"{name}:least=0" if name == "ifca" else name)
    given = {"folder": tmp_path, "strategy": made, "loss": loss, "train": step}
    if name not in COMPOSES:
        with pytest.raises(SecAggError):
            federation(9, 0.5, amplified(), **given).fit(2)
        return
    (run := federation(9, 0.5, amplified(), **given)).fit(2)
    assert list(tmp_path.iterdir())
    for path in tmp_path.rglob("*"):
        arrays = np.load(path).values() if path.suffix == ".npz" else ()
        texts = [path.read_bytes(), *(np.nan_to_num(np.ravel(a)).astype("u1").tobytes() for a in arrays)]
        for text in texts:
            told = {text.count(name.encode()) for name in run.setup.names}
            assert len(told) == 1, f"{path.name} tells some clients from others"


@pytest.mark.parametrize("nobody", ["chosen", "stayed"])
def test_noise_on_a_sum_of_nothing_is_released_when_nobody_was_chosen_or_stayed(nobody: str) -> None:
    run = federation(6, 0.5)
    if nobody == "chosen":
        run.coordinator.choose = lambda number: ()
    else:
        run.coordinator.choose = lambda number: run.setup.names[:2]
        run.engine.departures = lambda protocol, session: (session.roster, {"input": session.roster})
    before = run.coordinator.reference().flat.vector
    result = run.fit(1)
    moved = run.coordinator.reference().flat.vector - before
    assert result.history[0].abandoned is None
    assert (moved != 0).all()
    assert len(run.account.events) == 1


@pytest.mark.parametrize(
    ("size", "rate", "privacy", "options"),
    [
        (20, 0.1, (amplified(),), {"min_survivors": 4}),
        (10, 0.05, (amplified(), SecAggPlus(dropout=0.0)), {}),
        (20, 0.5, (amplified(), SecAggPlus(dropout=0.2)), {"dropout": 0.2}),
        # nothing but a power of two was tried beyond 64
        (200, 0.55, (amplified(20.0),), {"min_survivors": 110}),
        (90, 0.95, (amplified(8.0), SecAggPlus(dropout=0.4, collusion=0.2)), {"dropout": 0.4}),
    ],
)
def test_rounds_that_would_fail_too_often_are_refused_before_round_1(
    size: int, rate: float, privacy: Any, options: Any
) -> None:
    with pytest.raises(Misuse, match=rf"of {size} clients at rate {rate}.* is abandoned.*: probability"):
        federation(size, rate, *privacy, **options).fit(3)


@pytest.mark.parametrize(("size", "fails"), [(65, True), (66, False), (70, True), (71, False)])
def test_a_number_fails_in_the_price_where_it_fails_in_a_run(size: int, fails: bool) -> None:
    """65 and 70 clients find no plan for this drop-out, 66 and 71 do: the price said that whatever is over 64 works."""
    masks, policy = SecAggPlus(dropout=0.4, collusion=0.2), SecAggPlus.default_policy
    run = federation(size, 1.0, ClientDP(noise_multiplier=1.0), masks, sampling="fixed")
    try:
        failed = run.fit(1).history[0].abandoned is not None
    except Misuse:
        failed = True
    options = RunOptions(sampling="poisson", fraction=1 - 1e-12)
    least, chance = carried(options, masks, policy, size)
    assert (chance > 0.99, failed) == (fails, fails)
    assert least <= size


def test_the_chance_of_a_failing_number_is_that_of_every_one_of_them() -> None:
    options = RunOptions(sampling="poisson", fraction=0.55, min_survivors=110)
    least, chance = carried(options, PlainSum(), None, 200)
    assert least == 110
    assert binom.cdf(109, 200, 0.55) <= chance <= binom.cdf(109, 200, 0.55) * (1 + 1e-8)
    assert carried(replace(options, min_survivors=1), PlainSum(), None, 200) == (0, 0.0)
    _, leaving = carried(replace(options, min_survivors=50, dropout=0.2), PlainSum(), None, 200)
    thinned = binom.cdf(49, 200, 0.55 * 0.8)  # chosen and stayed: one coin of both chances
    assert thinned <= leaving <= thinned * (1 + 1e-8)
    assert carried(replace(options, min_survivors=201), PlainSum(), None, 200) == (200, 1.0)


def test_as_many_as_can_be_chosen_must_fit() -> None:
    """Too many is no failure that a price counts: the plan is refused."""
    run = federation(40, 0.5, amplified(2.0), SecAggPlus(dropout=0.0))
    whole = run.setup.stack.secure_sum.session

    def small(roster: Any, dimension: int, bound: int, **named: Any) -> Any:
        if len(roster) > 30 and bound > 1:
            raise CapacityError("30 such values fit")
        return whole(roster, dimension, bound, **named)

    run.setup.stack.secure_sum.session = small
    with pytest.raises(CapacityError, match="30 such values fit"):
        run.fit(1)


def test_a_rare_failure_is_in_the_price_and_its_round_is_charged(tmp_path: Path) -> None:
    run = federation(30, 0.6, amplified(2.0), SecAggPlus(dropout=0.0), folder=tmp_path)
    chosen = {1: run.setup.names[:20], 2: run.setup.names[:2], 3: (), 4: run.setup.names[5:12]}
    run.coordinator.choose = chosen.__getitem__
    result = run.fit(4)
    assert [entry.abandoned for entry in result.history] == [None, WITHHELD, WITHHELD, None]
    events = [from_fact(event) for event in run.account.events]
    assert len(events) == 4
    assert len(set(events)) == 1
    assert isinstance(events[0], Failing)
    assert 0 < events[0].probability < 1e-7
    assert result.epsilon == epsilon([repeat(events[0], 4)], 1e-5, "rdp")
    assert math.inf > result.epsilon > epsilon([repeat(events[0].event, 4)], 1e-5, "rdp")


def test_a_round_that_fails_after_its_charge_is_charged_once() -> None:
    run = federation(30, 0.6, amplified(), SecAggPlus(dropout=0.0))
    run.coordinator.choose = lambda number: run.setup.names[:12]
    run.engine.departures = lambda protocol, session: (session.roster[:9], {"share-keys": session.roster[:9]})
    result = run.fit(1)
    assert result.history[0].abandoned == WITHHELD
    assert len(run.account.events) == 1


def test_what_is_told_of_a_run_is_the_same_whether_somebody_was_chosen_or_nobody(tmp_path: Path) -> None:
    """A round with nobody in it made no session, and the record said so: given that one was made, a client of four at
    rate 1/4 was in it with .37.
    """
    run = federation(4, 0.25, folder=tmp_path)
    chosen = {1: run.setup.names[:2], 2: ()}
    run.coordinator.choose = chosen.__getitem__
    heard: list[Any] = []
    run.fit(2, on_round=heard.append)

    def told(entry: Any) -> dict[str, Any]:
        own = {"number": 0, "guarantees": ()}  # the round's number and the price so far, which follow no coin
        return vars(entry) | own

    kept = checkpoint.load_run(tmp_path).history
    assert told(heard[0]) == told(heard[1]) == told(kept[0]) == told(kept[1])
    bodies = [entry.body for entry in verify_record(tmp_path / FILE_NAME).entries]
    follow_the_rounds = {"round", "epsilon", "guarantees", "files", "statement"}
    first, second = ({k: v for k, v in body.items() if k not in follow_the_rounds} for body in bodies)
    assert first == second


def test_what_is_told_of_a_run_tells_neither_who_nor_how_many(tmp_path: Path) -> None:
    """metrics.jsonl and the record published the count: four clients, one a round, 1.58 in place of .83."""
    run = federation(8, 0.5, folder=tmp_path)
    result = run.fit(3)
    for entry, line in zip(result.history, (tmp_path / METRICS).read_text().splitlines(), strict=True):
        told = json.loads(line)
        hidden = ("asked", "survivors", "bytes_up_per_client", "bytes_down_per_client")
        assert [told[name] for name in hidden] == [None] * 4
        assert told["seconds"] == {}
        assert (entry.asked, entry.survivors, entry.withheld) == ((), (), True)
        assert round_line(entry).split()[-4:] == ["-"] * 4
    assert result.survivors == [(), (), ()]
    verdict = verify_record(tmp_path / FILE_NAME)
    assert {(e.body["asked"], e.body["survivors"]) for e in verdict.entries} == {(None, None)}
    for path in tmp_path.iterdir():
        if path.name != CHECKPOINT:  # whose settings list the population
            assert b"ward-" not in path.read_bytes(), path.name
    config: Any = type("Config", (), {"clients": None, "output": None, "privacy": ("client-dp",)})
    shown = summary(result, config)
    assert (shown["clients"], shown["survivors_per_round"], shown["seconds"]["train"]) == (
        None,
        [None] * 3,
        None,
    )
    kept = checkpoint.load_run(tmp_path).history
    assert [(entry.asked, entry.withheld, entry.epsilon) for entry in kept] == [
        ((), True, entry.epsilon) for entry in result.history
    ]


def test_the_statement_speaks_of_the_fewest_not_of_the_last_cohort() -> None:
    run = federation(30, 0.6, amplified(), SecAggPlus(dropout=0.0))
    chosen = {1: run.setup.names[:12], 2: run.setup.names[:20]}
    said = []
    run.coordinator.choose = chosen.__getitem__
    run.fit(2, on_round=lambda entry: said.append(run.statement().protection))
    assert said[0] == said[1]


def test_a_fixed_size_is_public_and_who_survived_is_not(tmp_path: Path) -> None:
    run = federation(8, 0.5, folder=tmp_path, sampling="fixed", dropout=0.3)
    result = run.fit(2)
    assert [entry.withheld for entry in result.history] == [True, True]
    assert json.loads((tmp_path / METRICS).read_text().splitlines()[0])["survivors"] is None


def test_without_amplification_counts_are_told_and_rounds_for_few_are_free(tmp_path: Path) -> None:
    run = federation(10, 0.5, ClientDP(noise_multiplier=1.0, clip=0.5), folder=tmp_path, min_survivors=3)
    run.coordinator.choose = {1: run.setup.names[:2], 2: run.setup.names[:4]}.__getitem__
    result = run.fit(2)
    assert [len(entry.asked) for entry in result.history] == [2, 4]
    assert [bool(entry.abandoned) for entry in result.history] == [True, False]
    assert len(run.account.events) == 1


def test_an_abandoned_round_that_the_ledger_cannot_pay_ends_the_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", epsilon=1e-3, delta=1e-5, accountant="rdp")
    run = federation(30, 0.6, amplified(), SecAggPlus(dropout=0.0), ledger=ledger)
    run.coordinator.choose = lambda number: ()
    with pytest.raises(BudgetExceeded):
        run.fit(1)


def test_what_the_runs_ledger_cannot_price_is_refused_when_the_federation_is_built(tmp_path: Path) -> None:
    """Skellam noise and a ledger by privacy losses passed planning and died in round 1."""
    ledger = Ledger(tmp_path / "l", epsilon=9.0, delta=1e-5, accountant="pld")
    shares = DistributedDP(epsilon=8, clip=0.5, noise="skellam")
    with pytest.raises(UnknownEvent, match="pld accountant has no price for Skellam"):
        federation(6, 1.0, shares, SecAggPlus(dropout=0.0), sampling="fixed", ledger=ledger)
    assert ledger.entries() == ()


def test_a_stack_of_two_accountants_is_priced_by_each() -> None:
    """SampleDP under pld with Skellam shares died in round 1: one accountant was to price both."""
    stack = [
        SampleDP(epsilon=2, delta=1e-4, accountant="pld", batch_size=4),
        DistributedDP(epsilon=8, delta=1e-3, clip=0.5, noise="skellam"),
        SecAggPlus(dropout=0.0),
    ]
    result = federation(6, 1.0, *stack, sampling="fixed").fit(1)
    assert [(g.unit, g.accountant, g.delta) for g in result.guarantees] == [
        ("example", "pld", 1e-4),
        ("client", "rdp", 1e-3),
    ]


def test_a_resumed_run_goes_on_with_its_price_and_its_secrets(tmp_path: Path) -> None:
    first = federation(10, 0.2, folder=tmp_path).fit(2)
    again = federation(10, 0.2, folder=tmp_path).fit(4, resume=True)
    assert again.history[:2] == first.history
    assert len(again.statement.events) == 4


# -- noise that is planned for so many survivors is never opened for fewer --


@pytest.mark.parametrize("unit", ["client", "example"])
@pytest.mark.parametrize("masked", [True, False])
def test_too_few_chosen_abandon_the_round_and_the_run_goes_on(unit: str, masked: bool) -> None:
    """At client level the whole run ended; at example level the demand was lowered to the number asked."""
    options: dict[str, Any] = (
        {"sample_rate": 0.5, "examples": 64, "unit": "example"} if unit == "example" else {}
    )
    layer = DistributedDP(noise_multiplier=1.0, clip=0.5, min_survivors=4, **options)
    stack = [layer, SecAggPlus(dropout=0.0)] if masked else [layer]
    run = federation(8, 0.5, *stack, strategy=FedSGD() if options else None, loss=loss)
    run.coordinator.choose = {1: run.setup.names[:3], 2: run.setup.names[:6], 3: ()}.__getitem__
    before = run.coordinator.reference().flat.vector
    models: list[Any] = []
    result = run.fit(3, on_round=lambda _: models.append(run.coordinator.reference().flat.vector))
    assert [entry.abandoned is None for entry in result.history] == [False, True, False]
    assert (models[0] == before).all()
    assert (models[2] == models[1]).all()
    assert len(run.account.events) == 1  # nothing is amplified, so an abandoned round costs nothing


@pytest.mark.parametrize("unit", ["client", "example"])
def test_too_few_that_stayed_abandon_the_round_before_anything_is_opened(unit: str) -> None:
    options: dict[str, Any] = (
        {"sample_rate": 0.5, "examples": 64, "unit": "example"} if unit == "example" else {}
    )
    layer = DistributedDP(noise_multiplier=1.0, clip=0.5, min_survivors=5, **options)
    run = federation(
        6, 1.0, layer, SecAggPlus(), strategy=FedSGD() if options else None, sampling="fixed", loss=loss
    )
    run.engine.departures = lambda protocol, session: (
        session.roster[:2],
        {"masked-input": session.roster[:2]},
    )
    opened: list[Any] = []
    layer.decode = lambda *_: opened.append(_)
    result = run.fit(1)
    assert result.history[0].abandoned
    assert opened == []


def test_an_average_of_fewer_than_the_noise_was_planned_for_is_refused() -> None:
    state = {"w": torch.zeros(3)}
    average = SecureAverage([DistributedDP(noise_multiplier=1.0, min_survivors=5), SecAggPlus()])
    with pytest.raises(TooFewSurvivors, match="5"):
        average({**dict.fromkeys("abcd", state), "e": None, "f": None}, reference=state)
    with pytest.raises(SecAggError, match=r"5 survivors|min_survivors is 5"):
        average(dict.fromkeys("abcd", state), reference=state)


@pytest.mark.parametrize("other", [SampleDP(epsilon=8, batch_size=4), LocalDP(epsilon=8)])
def test_a_layer_that_names_who_took_part_is_refused_beside_a_secret_choice(other: Any) -> None:
    stack = Stack([amplified(), other] if isinstance(other, LocalDP) else [other, amplified()])
    run = RunFacts(2, 8, 8, "poisson", 0.5, dimension=8)
    with pytest.raises(StackError, match="states what each client that took part has spent"):
        stack.plan(run)
    if isinstance(other, SampleDP):
        Stack([other, amplified()]).plan(RunFacts(2, 8, 8, dimension=8, sizes={"0": 8}))


def test_who_leaves_a_simulated_round_does_not_follow_who_else_was_chosen() -> None:
    """A reader measured 7.57 where 7.38 was printed: places in a secretly chosen list had been drawn."""
    for number in range(50):
        alone = leaving_apart(3, number, ("a", "b", "c"), 0.5)
        with_others = leaving_apart(3, number, ("0", "a", "b", "c", "d"), 0.5)
        assert {name: late for name, late in with_others.items() if name in "abc"} == alone
    draws = [leaving_apart(3, number, ("a", "b"), 0.25) for number in range(4000)]
    share = np.mean([[name in gone, gone.get(name, False)] for gone in draws for name in ("a", "b")], axis=0)
    assert np.abs(share - [0.25, 0.125]).max() < 0.05  # by a fixed seed: ten standard errors
    assert federation(20, 0.5, amplified()).engine.departures.apart  # type: ignore[attr-defined]
    assert not federation(20, 0.5, ClientDP(noise_multiplier=1.0)).engine.departures.apart  # type: ignore[attr-defined]
