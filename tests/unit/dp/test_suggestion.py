"""What a run can expect is what it then gets: the noise on a mean, and the clients that bring it below the signal."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, LocalDP, suggest
from dp.accountants import accountant
from dp.events import Relation, Unit, repeat
from dp.layering import discrete
from dp.suggestion import Suggestion, _needed, drowned, noise_norm
from fl.cli import invoke
from protocols.errors import Misuse
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.stack import Numbers, Stack

PLANNED: dict[str, Any] = {"population": 400, "cohort": 40, "rounds": 10, "dimension": 500, "epsilon": 8.0}
LAYERS = {"client-dp": ClientDP, "distributed-dp": DistributedDP, "local-dp": LocalDP}


@pytest.mark.parametrize("name", LAYERS)
def test_the_noise_that_is_suggested_is_the_noise_that_comes(name: str) -> None:
    clients = 12
    found = suggest(**PLANNED | {"cohort": clients}, layer=name)
    run = RunFacts(10, clients, clients, dimension=500, delta=1e-5)
    stack = Stack([LAYERS[name](epsilon=8.0)], Numbers(weight_cap=1))
    stack.plan(run)
    names = tuple(map(str, range(clients)))
    norms = []
    for number in range(1, 11):
        plan = stack.round(RoundFacts(run, number, names, bytes(32), stack.public()), np.zeros(500))
        total = np.zeros(plan.dimension, np.int64)
        for client in names:
            own = RoundFacts(run, number, names, bytes(32), stack.public(), client)
            total += plan.encode(Contribution(np.zeros(500), 1), own)
        if modulus := plan.summed.modulus:
            total = np.mod(total + modulus // 2, modulus) - modulus // 2
        aggregate = plan.decode(total, names)
        norms.append(float(np.linalg.norm(aggregate.vector)) / aggregate.weight)
    assert math.sqrt(np.mean(np.square(norms))) == pytest.approx(found.noise, rel=0.06)
    assert found.ratio == found.noise  # the longest mean update is the clip, 1


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("signal", [None, 0.1])
def test_so_many_clients_as_are_needed_and_no_fewer_bring_the_noise_below_the_signal(
    name: str, signal: Any
) -> None:
    found = suggest(**PLANNED, layer=name, signal=signal)
    assert found.needed is not None

    def at(clients: int) -> float:
        return noise_norm(name, found.noise_multiplier, 1.0, 500, clients)

    assert at(found.needed) <= found.signal < at(found.needed - 1)
    enough = suggest(
        **PLANNED | {"population": found.needed, "cohort": found.needed}, layer=name, signal=signal
    )
    assert enough.ratio <= 1
    assert "below the signal" in str(enough)


def test_a_secret_choice_needs_less_noise() -> None:
    few = PLANNED | {"population": 40, "cohort": 8, "dimension": 50}
    plain, secret = suggest(**few), suggest(**few, amplify=True)
    assert secret.noise_multiplier < plain.noise_multiplier
    assert secret.needed is not None
    assert plain.needed is not None
    assert secret.needed <= plain.needed


def test_what_no_cohort_of_the_population_can_do_is_said() -> None:
    small = suggest(**PLANNED | {"population": 50, "dimension": 10**6})
    assert small.needed is not None
    assert small.needed > 50
    assert f"It would take {small.needed} clients a round. No cohort" in str(small)
    assert suggest(**PLANNED | {"dimension": 10**8}, amplify=True).needed is None


@pytest.mark.parametrize(
    "wrong",
    [{"population": 0}, {"cohort": 401}, {"cohort": 1.5}, {"rounds": 0}, {"dimension": True}, {"layer": "none"},
     {"signal": 2.0}, {"clip": 0.0}, {"epsilon": 0.0}, {"delta": 1.0}, {"layer": "local-dp", "amplify": True}],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        suggest(**PLANNED | wrong)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_says_before_the_run_that_its_noise_drowns_the_update(name: str) -> None:
    layer = LAYERS[name](epsilon=8.0)
    run = RunFacts(10, 10, 10, dimension=10_000, delta=1e-5)
    said = layer.outlook(run)
    assert said is not None
    assert f"{name}: the noise on the mean update has norm" in said
    needed = suggest(population=10, cohort=10, rounds=10, dimension=10_000, epsilon=8.0, layer=name).needed
    told = int(said.partition("About ")[2].split()[0])
    assert told == pytest.approx(needed, rel=0.03)
    assert LAYERS[name](epsilon=8.0).outlook(RunFacts(1, 500, 500, dimension=20, delta=1e-5)) is None


def test_the_command_suggests_what_a_layer_would_calibrate(capsys: pytest.CaptureFixture[str]) -> None:
    """It took the tighter accountant, by which no layer calibrates unless it is told to."""
    given = PLANNED | {"delta": 1e-5}
    invoke(
        ["epsilon", "--suggest", "--json", *(word for k, v in given.items() for word in (f"--{k}", str(v)))]
    )
    assert json.loads(capsys.readouterr().out)["noise_multiplier"] == suggest(**given).noise_multiplier


def test_what_no_noise_reaches_is_a_sentence_and_a_delta_is_never_printed_larger() -> None:
    with pytest.raises(
        Misuse, match=r"no noise that can be drawn reaches epsilon 0.0001.*larger epsilon or delta"
    ):
        suggest(population=2, cohort=2, rounds=1, dimension=1, epsilon=1e-4, delta=1e-12)
    assert "at delta 0.9999 per client" in str(suggest(**PLANNED | {"delta": 0.9999}))


@pytest.mark.parametrize(
    ("layer", "clients", "norm"),
    [
        ("client-dp", 9, 2.0 * 0.5 * 8 / 9),
        ("local-dp", 9, 2.0 * 0.5 * 8 / 3),
        ("distributed-dp", 9, 2.0 * 0.5 * 8 / 9 * math.sqrt(9 / 8)),  # a client knows its own share
        ("distributed-dp", 2, 2.0 * 0.5 * 8 / 2 * math.sqrt(2)),
        ("distributed-dp", 1, 2.0 * 0.5 * 8),
    ],
)
def test_the_norm_of_the_noise_on_a_mean(layer: str, clients: int, norm: float) -> None:
    assert noise_norm(layer, 2.0, 0.5, 64, clients) == pytest.approx(norm, rel=1e-15)


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 99, 100])
def test_the_fewest_clients_are_found(needed: int) -> None:
    """Told at once, without looking at every number."""
    looked = list[int]()

    def noise(clients: int) -> float:
        looked.append(clients)
        return needed / clients

    assert _needed(noise, 1.0, 100) == needed
    assert len(looked) <= 17
    assert max(looked) <= 100
    assert _needed(noise, 1.0, needed) == needed
    assert _needed(noise, 1.0, needed - 1 or 1) == (1 if needed == 1 else None)


def test_noise_as_long_as_the_clip_does_not_drown_it() -> None:
    assert drowned("client-dp", 1.0, 0.5, 16, 4.0) is None
    assert drowned("client-dp", 1.0, 0.5, 16, 3.5) == (
        "client-dp: the noise on the mean update has norm 0.571, and no mean update is longer than the clip 0.5: it "
        "drowns the update. About 4 clients a round in place of 3.5, fewer parameters (parameters=...), fewer rounds "
        "or a larger epsilon would help (dp.suggest, secagg epsilon --suggest)"
    )
    assert f"About {2**40} clients" in str(
        drowned("client-dp", 1e30, 0.5, 16, 3.5)
    )  # no number of clients would do


@pytest.mark.parametrize(
    ("wrong", "why"),
    [({name: bad}, f"{name}: expected a whole number from 1 to 1099511627776")
     for name in ("population", "rounds", "dimension") for bad in (0, -1, 1.0, True, 2**40 + 1)]
    + [({"cohort": bad}, "cohort: expected a whole number from 1 to 400") for bad in (0, 401, 1.0, True)]
    + [({"layer": "none"}, "expected one of client-dp, distributed-dp, local-dp"),
       ({"layer": "local-dp", "amplify": True}, "client-dp to amplify"),
       ({"clip": 0.0}, "clip: expected a number > 0"), ({"clip": math.inf}, "clip: expected a number > 0"),
       ({"signal": 0.0}, "signal: expected a number > 0 and at most the clip"),
       ({"signal": 1.5}, "signal: expected a number > 0 and at most the clip")],
)  # fmt: skip
def test_what_is_out_of_range_is_named(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        suggest(**PLANNED | wrong)


def test_the_largest_federation_has_2_to_the_40_clients() -> None:
    assert suggest(population=2**40, cohort=1, rounds=1, dimension=1, epsilon=8.0).population == 2**40


@pytest.mark.parametrize("amplify", [False, True])
def test_what_a_plan_is_priced_as(amplify: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, given = dict[float, int](), list[Any]()

    def scale_for(planned: Any, **more: Any) -> float:
        event = planned(2.0)
        assert event == repeat(
            discrete(2.0, Unit.CLIENT, Relation.ZERO_OUT, 501, rate=event.event.sample_rate), 10
        )
        rates[event.event.sample_rate] = 1
        given.append(more)
        return 4.0 * float(event.event.sample_rate)

    monkeypatch.setattr("dp.suggestion.scale_for", scale_for)
    found = suggest(**PLANNED, delta=1e-3, accountant="pld", amplify=amplify)
    assert given[0] == {"epsilon": 8.0, "delta": 1e-3, "accountant": "pld"}
    if amplify:  # the noise of every number of clients that is tried
        assert next(iter(rates)) == 40 / 400
        assert set(rates) <= {clients / 400 for clients in range(1, 401)}
        assert len(rates) > 2
        assert (found.noise_multiplier, found.needed) == (
            0.4,
            1,
        )  # as much noise on the mean whatever the number
    else:
        assert (list(rates), found.noise_multiplier) == ([1.0], 4.0)
        assert found.needed == math.ceil(4 * math.sqrt(500))


def test_a_suggestion_to_the_letter() -> None:
    made = Suggestion("client-dp", 400, 40, 10, 500, 8.0, 1e-5, 1.0, 2.0, 0.5, 1.0, 0.5, 21, False)
    start = (
        "client-dp, 40 of 400 clients, 10 rounds, 500 parameters: epsilon 8 at delta 1e-05 per client (zero-out) needs "
        "noise multiplier 2; the noise on the mean update has norm %s times its norm of 1. "
    )
    below = "The noise is below the signal; 21 clients a round are enough."
    more = (
        "No cohort of this population brings the noise below the signal: train fewer parameters, plan fewer rounds, or "
        "allow a larger epsilon."
    )
    for ratio, needed, said in (
        (0.5, 21, below),
        (1.0, 21, below),
        (1.5, 21, "The noise drowns the update: 21 clients a round would bring it below the signal."),
        (1.5, 400, "The noise drowns the update: 400 clients a round would bring it below the signal."),
        (1.5, 401, f"It would take 401 clients a round. {more}"),
        (1.5, None, more),
    ):
        assert str(replace(made, ratio=ratio, needed=needed)) == start % f"0.5, {ratio:g}" + said
    told = made.to_json()
    assert (told["unit"], told["relation"], told["needed"], told["layer"]) == (
        "client",
        "zero-out",
        21,
        "client-dp",
    )


def test_the_smallest_plan_and_what_is_taken_where_nothing_is_said() -> None:
    one = suggest(population=1, cohort=1, rounds=1, dimension=1, epsilon=8.0)
    event = discrete(one.noise_multiplier, Unit.CLIENT, Relation.ZERO_OUT, 2)
    assert 7.99 < accountant("rdp").add(event).epsilon(1e-5) <= 8.0
    assert (one.layer, one.clip, one.delta, one.signal, one.amplified) == ("client-dp", 1.0, 1e-5, 1.0, False)
    assert one.ratio == one.noise / one.signal
    given = suggest(
        population=4, cohort=2, rounds=1, dimension=1, epsilon=8.0, delta=1e-3, clip=0.5, signal=0.25
    )
    assert (given.delta, given.clip, given.signal, given.ratio) == (1e-3, 0.5, 0.25, given.noise / 0.25)
    assert given.noise == noise_norm("client-dp", given.noise_multiplier, 0.5, 1, 2)
    tight = suggest(population=1, cohort=1, rounds=1, dimension=1, epsilon=8.0, accountant="pld")
    assert tight.noise_multiplier < one.noise_multiplier


def test_a_secret_choice_of_a_part_is_priced_as_one() -> None:
    few: dict[str, Any] = {"population": 8, "cohort": 4, "rounds": 2, "dimension": 3, "epsilon": 2.0}
    found = suggest(**few, amplify=True)
    event = discrete(found.noise_multiplier, Unit.CLIENT, Relation.ZERO_OUT, 4, rate=0.5)
    assert 1.99 < accountant("rdp").add(event, 2).epsilon(1e-5) <= 2.0
    assert found.needed is None or found.needed <= 8
    whole = suggest(**few | {"cohort": 8}, amplify=True)
    assert whole.noise_multiplier == suggest(**few | {"cohort": 8}).noise_multiplier
