"""What a run can expect is what it then gets: the noise on a mean, and the clients that bring it below the signal."""

import json
import math
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, LocalDP, suggest
from dp.suggestion import noise_norm
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
