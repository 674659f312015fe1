"""Rounds over a secret Poisson sample of few clients, enumerated: the epsilon of everything that a run releases (the
noised sums, which rounds were abandoned, counts where they are published) beside the epsilon that is printed.

One coordinate; one client contributes 1 or nothing, the others all the same; numbers chosen are enumerated, noise is
integrated over bins of the line (post-processing, so that what is found bounds the truth from below).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from numpy.typing import NDArray
from scipy.stats import binom, norm

from dp import ClientDP
from dp.accountants import accountant, epsilon
from dp.event_json import decode, encode, from_fact
from dp.events import Failing, PoissonGaussian, Relation, Unit, always_asked, compose, describe, repeat
from dp.mechanisms.sampling import chance_of_fewer
from protocols.errors import Misuse
from protocols.layers import RoundFacts, RunFacts
from protocols.stack import Stack

DELTA = 1e-5
CLIENT = {"unit": Unit.CLIENT, "relation": Relation.ZERO_OUT}
Masses = NDArray[np.float64]
Rule = Callable[[int, float], float | None]
"""From how many were chosen and their sum to the sum that noise is added to; None: abandoned, nothing is released."""


def always(count: int, total: float) -> float | None:
    return total


def skip_below(least: int) -> Rule:
    return lambda count, total: total if count >= least else None


def zero_below(least: int) -> Rule:
    return lambda count, total: total if count >= least else 0.0


def released(
    size: int, rate: float, noise: float, rule: Rule, others: float, mine: float, counted: bool = False
) -> Masses:
    """Probability of every outcome of one round: bins of the noised sum, and "abandoned"; by count if it is shown."""
    edges = np.concatenate([[-np.inf], np.linspace(-size - 8 * noise, size + 8 * noise, 1200), [np.inf]])
    rows = np.zeros((size + 1 if counted else 1, edges.size))
    for chosen in range(size):
        for taken, chance in ((0, 1 - rate), (1, rate)):
            weight = chance * binom.pmf(chosen, size - 1, rate)
            count = chosen + taken
            total = rule(count, chosen * others + taken * mine)
            row = rows[count if counted else 0]
            if total is None:
                row[-1] += weight
            else:
                row[:-1] += weight * np.diff(norm.cdf(edges, total, noise))
    return rows.ravel()


def true_epsilon(p: Masses, q: Masses, rounds: int) -> float:
    """A lower bound on the epsilon of `rounds` such rounds at DELTA, in both directions."""

    def one(upper: Masses, lower: Masses) -> float:
        keep = (upper > 1e-300) & (lower > 1e-300)
        logs = [dict(enumerate(np.log(m[keep]))) for m in (lower, upper)]
        once = privacy_loss_distribution.from_two_probability_mass_functions(
            *logs, pessimistic_estimate=False, value_discretization_interval=1e-3
        )
        return float(once.self_compose(rounds).get_epsilon_for_delta(DELTA))

    return max(one(p, q), one(q, p))


def worst(
    size: int, rate: float, noise: float, rounds: int, rule: Rule = always, counted: bool = False
) -> float:
    """Over others who contribute nothing, the same, or the opposite."""
    return max(
        true_epsilon(
            released(size, rate, noise, rule, others, 1.0, counted),
            released(size, rate, noise, rule, others, 0.0, counted),
            rounds,
        )
        for others in (0.0, 1.0, -1.0)
    )


def poisson(noise: float, rate: float) -> PoissonGaussian:
    return PoissonGaussian(noise_multiplier=noise, sample_rate=rate, **CLIENT)


def printed(size: int, rate: float, noise: float, rounds: int, least: int = 0, name: str = "pld") -> float:
    """What ClientDP's own events cost over the run."""
    layer = ClientDP(noise_multiplier=noise, delta=DELTA, amplify=True, accountant=name)
    stack = Stack([layer])
    run = RunFacts(rounds, size, size, "poisson", rate, dimension=1, delta=DELTA, least_chosen=least)
    stack.plan(run)
    names = tuple(map(str, range(size)))
    (fact,) = stack.round(RoundFacts(run, 1, names, bytes(32), stack.public()), np.zeros(1)).events(names)
    return epsilon([repeat(from_fact(fact), rounds)], DELTA, name)


# -- the rules that were, and what they cost --


@pytest.mark.parametrize(("size", "rate", "least"), [(10, 0.05, 1), (20, 0.1, 4)])
def test_skipping_rounds_with_too_few_costs_more_than_the_rate_says(
    size: int, rate: float, least: int
) -> None:
    """Rounds with too few were neither noised nor charged, and the others priced at the rate."""
    rounds, noise = 60, 1.0
    charged = round(rounds * binom.sf(least - 1, size, rate))
    assert worst(size, rate, noise, rounds, skip_below(least)) > 1.2 * epsilon(
        [repeat(poisson(noise, rate), charged)], DELTA, "pld"
    )


def test_noise_on_a_zero_sum_when_too_few_came_is_no_cure() -> None:
    """Where one client decides whether there are enough, the rule moves the sum by up to `least` clips."""
    assert worst(20, 0.3, 0.5, 1, zero_below(7)) > 1.02 * epsilon([poisson(0.5, 0.3)], DELTA, "pld")


def test_a_published_count_is_part_of_what_is_released() -> None:
    shown = worst(4, 0.25, 2.0, 1, counted=True)
    assert shown > 1.5 > 0.9 > printed(4, 0.25, 2.0, 1) >= worst(4, 0.25, 2.0, 1)


# -- what is done is what is priced --


@pytest.mark.parametrize("name", ["rdp", "pld"])
@pytest.mark.parametrize(("size", "rate", "rounds"), [(10, 0.05, 40), (20, 0.1, 30), (4, 0.25, 1)])
def test_every_round_played_costs_at_most_what_is_printed(
    size: int, rate: float, rounds: int, name: str
) -> None:
    assert worst(size, rate, 1.0, rounds) <= printed(size, rate, 1.0, rounds, name=name)


@pytest.mark.parametrize(("size", "rate", "least"), [(20, 0.9, 7), (10, 0.95, 2), (20, 0.95, 9)])
def test_rounds_that_fail_for_few_cost_at_most_what_is_printed(size: int, rate: float, least: int) -> None:
    rounds = 3
    stated = printed(size, rate, 2.0, rounds, least)
    assert worst(size, rate, 2.0, rounds, skip_below(least)) <= stated
    assert stated >= printed(size, rate, 2.0, rounds)


@pytest.mark.parametrize(("size", "rate", "least"), [(10, 0.05, 1), (20, 0.1, 4), (10, 0.3, 3)])
def test_a_plan_whose_rounds_fail_too_often_is_refused_with_the_numbers(
    size: int, rate: float, least: int
) -> None:
    chance = binom.cdf(least - 1, size, rate)
    with pytest.raises(
        Misuse, match=rf"fewer than {least} of {size} clients.*probability {chance:.3g} a round"
    ):
        printed(size, rate, 1.0, 10, least)
    run = RunFacts(10, size, size, "poisson", rate, delta=DELTA, least_chosen=least)
    with pytest.raises(Misuse, match="delta 1e-05 has no room"):
        ClientDP(epsilon=4.0, delta=DELTA, amplify=True).plan(run)


def test_noise_too_weak_for_the_rounds_that_fail_is_refused_and_not_called_infinite() -> None:
    run = RunFacts(10, 40, 40, "poisson", 0.5, delta=DELTA, least_chosen=4)
    with pytest.raises(Misuse, match=r"fewer than 4 of 40 clients at rate 0.5 is abandoned"):
        ClientDP(noise_multiplier=0.5, delta=DELTA, amplify=True).plan(run)
    ClientDP(noise_multiplier=0.5, delta=DELTA, amplify=True).plan(replace(run, least_chosen=0))


def test_calibration_counts_the_rounds_that_fail() -> None:
    run = RunFacts(10, 40, 40, "poisson", 0.5, delta=DELTA, least_chosen=4)
    layer = ClientDP(epsilon=4.0, delta=DELTA, amplify=True)
    assert layer._multiplier(replace(run, least_chosen=0)) < layer._multiplier(run)
    event = layer._round_event(run)
    assert isinstance(event, Failing)
    assert event.probability >= binom.cdf(3, 40, 0.5)
    assert 3.9 < epsilon([repeat(event, 10)], DELTA, "rdp") <= 4.0


def test_nothing_fails_where_no_amplification_is_claimed() -> None:
    run = RunFacts(10, 10, 10, "poisson", 0.05, delta=DELTA, least_chosen=3)
    layer = ClientDP(noise_multiplier=1.0)
    layer.plan(run)
    assert not isinstance(layer._round_event(run), Failing)


# -- the event --


@pytest.mark.parametrize(
    ("size", "rate", "least"), [(10, 0.05, 1), (20, 0.1, 4), (300, 0.1, 12), (5, 1.0, 5)]
)
def test_the_chance_is_the_exact_sum_rounded_up(size: int, rate: float, least: int) -> None:
    q = Fraction(rate)
    exact = sum(math.comb(size, k) * q**k * (1 - q) ** (size - k) for k in range(least))
    assert exact <= chance_of_fewer(size, rate, least) <= float(exact) * (1 + 1e-8)
    assert chance_of_fewer(size, rate, 0) == 0.0
    assert chance_of_fewer(size, rate, size + 1) == 1.0
    with pytest.raises(Misuse, match="rate in"):
        chance_of_fewer(size, 1.5, least)


def test_what_may_fail_is_one_primitive_event_and_keeps_its_json() -> None:
    event = Failing(event=poisson(1.5, 0.1), probability=1e-7, **CLIENT)
    assert decode(encode(event)) == event
    assert "or, with probability 1e-07, nothing" in describe(event)
    assert always_asked(event) == always_asked(event.event)
    assert accountant("pld").add(event, 3).distance == pytest.approx(3e-7)
    with pytest.raises(Misuse, match="share unit and relation"):
        Failing(event=event.event, probability=0.1, unit=Unit.EXAMPLE, relation=Relation.ZERO_OUT)
    for nested in (repeat(event.event, 2), compose(event.event), event):
        with pytest.raises(Misuse, match="one primitive event"):
            Failing(event=nested, probability=0.1, **CLIENT)
