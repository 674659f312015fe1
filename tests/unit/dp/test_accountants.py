"""One suite that every accountant inherits, and agreement with dp-accounting and Opacus."""

import dataclasses
import math
from abc import ABC, abstractmethod

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant as TheirPLD
from dp_accounting.rdp import RdpAccountant as TheirRDP
from opacus.accountants import RDPAccountant as OpacusRDP

from dp.accountants import Accountant, PLDAccountant, RDPAccountant, accountant, epsilon
from dp.accountants.pld import interval
from dp.accountants.reduction import SMOOTHING_VARIANCE, eta
from dp.events import (
    DiscreteGaussianSum,
    Event,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Pure,
    Relation,
    Skellam,
    Unit,
    UnknownEvent,
    compose,
    repeat,
)
from dp.mechanisms import analytic_gaussian_delta
from protocols.errors import Misuse

ZERO_OUT = {"unit": Unit.EXAMPLE, "relation": Relation.ZERO_OUT}
REPLACE = {"unit": Unit.EXAMPLE, "relation": Relation.REPLACE}
GAUSS = Gaussian(noise_multiplier=4.0, **ZERO_OUT)
SAMPLED = PoissonGaussian(noise_multiplier=1.1, sample_rate=0.01, **ZERO_OUT)
DISCRETE = DiscreteGaussianSum(sensitivity=100.0, share_variance=1600.0, shares=100, dims=1000, **ZERO_OUT)
PURE = Pure(epsilon=0.1, **ZERO_OUT)


class AccountantSuite(ABC):
    """What any accountant must do; subclasses name theirs."""

    @abstractmethod
    def make(self) -> Accountant: ...

    def test_nothing_costs_nothing(self) -> None:
        assert self.make().epsilon(1e-5) == 0.0
        assert self.make().delta(0.0) == 0.0
        assert self.make().add(repeat(GAUSS, 0)).epsilon(1e-5) == 0.0

    @pytest.mark.parametrize("event", [GAUSS, SAMPLED, DISCRETE, PURE])
    def test_more_events_cost_more(self, event: Event) -> None:
        prices = [self.make().add(event, count).epsilon(1e-5) for count in (1, 5, 50)]
        assert 0 < prices[0] < prices[1] < prices[2] < math.inf

    @pytest.mark.parametrize("event", [GAUSS, SAMPLED, DISCRETE, PURE])
    def test_more_delta_costs_less_epsilon(self, event: Event) -> None:
        account = self.make().add(event, 20)
        assert account.epsilon(1e-8) >= account.epsilon(1e-5) >= account.epsilon(1e-2)
        assert account.delta(0.1) >= account.delta(1.0) >= account.delta(3.0)

    @pytest.mark.parametrize("event", [GAUSS, SAMPLED, DISCRETE])
    def test_delta_inverts_epsilon(self, event: Event) -> None:
        account = self.make().add(event, 20)
        assert account.delta(account.epsilon(1e-6)) == pytest.approx(1e-6, rel=0.02)

    def test_nesting_does_not_matter(self) -> None:
        flat = self.make().add(GAUSS, 6).add(SAMPLED, 4)
        nested = self.make().add(repeat(compose(repeat(GAUSS, 3), SAMPLED, SAMPLED), 2))
        assert nested.epsilon(1e-5) == flat.epsilon(1e-5)

    def test_a_single_gaussian_is_never_underpriced(self) -> None:
        for sigma in (0.5, 1.0, 4.0, 30.0):
            account = self.make().add(Gaussian(noise_multiplier=sigma, **ZERO_OUT))
            price = account.epsilon(1e-5)
            assert analytic_gaussian_delta(sigma, price) <= 1e-5 * (1 + 1e-6)

    def test_replace_moves_sums_twice_as_far(self) -> None:
        twice = Gaussian(noise_multiplier=8.0, **REPLACE)
        assert self.make().add(twice, 3).epsilon(1e-5) == pytest.approx(
            self.make().add(GAUSS, 3).epsilon(1e-5), rel=1e-6
        )

    def test_full_sampling_is_no_sampling(self) -> None:
        full = PoissonGaussian(noise_multiplier=4.0, sample_rate=1.0, **ZERO_OUT)
        assert self.make().add(full, 3).epsilon(1e-5) == pytest.approx(
            self.make().add(GAUSS, 3).epsilon(1e-5), rel=2e-3
        )
        none = PoissonGaussian(noise_multiplier=4.0, sample_rate=0.0, **ZERO_OUT)
        assert self.make().add(none, 3).epsilon(1e-5) <= 1e-3

    def test_discrete_noise_costs_its_continuous_twin_plus_the_distance(self) -> None:
        account = self.make().add(DISCRETE, 10)
        twin = Gaussian(noise_multiplier=math.sqrt(160_000.0 - SMOOTHING_VARIANCE) / 100, **ZERO_OUT)
        continuous = self.make().add(twin, 10)
        assert account.distance == pytest.approx(
            10 * 1000 * (eta() + DISCRETE.tau + 100 * DISCRETE.sampler_distance), rel=1e-9
        )
        assert account.epsilon(1e-5) == pytest.approx(continuous.epsilon(1e-5), rel=1e-6)
        assert account.delta(1.0) >= continuous.delta(1.0)

    def test_a_large_distance_is_charged_to_delta(self) -> None:
        narrow = DiscreteGaussianSum(sensitivity=2.0, share_variance=1.0, shares=100, dims=2, **ZERO_OUT)
        account = self.make().add(narrow)
        assert account.distance > 9e-4
        assert account.epsilon(1e-4) == math.inf
        price = account.epsilon(0.1)
        assert account.delta(price) <= 0.1 * (1 + 1e-6)
        assert account.delta(price) > (1 + math.exp(price)) * account.distance

    def test_noise_too_narrow_is_refused(self) -> None:
        with pytest.raises(UnknownEvent, match="finer grid"):
            self.make().add(dataclasses.replace(DISCRETE, share_variance=0.6, shares=2))

    def test_unknown_events_are_refused_and_nothing_is_added(self) -> None:
        class Mystery(Event):
            pass

        account = self.make().add(GAUSS)
        before = account.epsilon(1e-5)
        for event in (Mystery(**ZERO_OUT), "gaussian", None):
            with pytest.raises(UnknownEvent):
                account.add(event)  # type: ignore[arg-type]
        with pytest.raises(Misuse):
            account.add(GAUSS, -1)
        assert account.epsilon(1e-5) == before

    def test_unit_and_relation_do_not_mix(self) -> None:
        account = self.make().add(GAUSS)
        for other in (
            Gaussian(noise_multiplier=4.0, **REPLACE),
            Gaussian(noise_multiplier=4.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT),
        ):
            with pytest.raises(Misuse, match="one unit and relation"):
                account.add(other)

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
    def test_delta_out_of_range_is_refused(self, delta: float) -> None:
        with pytest.raises(Misuse):
            self.make().add(GAUSS).epsilon(delta)

    @pytest.mark.parametrize("target", [-0.1, math.inf, math.nan])
    def test_epsilon_out_of_range_is_refused(self, target: float) -> None:
        with pytest.raises(Misuse):
            self.make().add(GAUSS).delta(target)


class TestRDP(AccountantSuite):
    def make(self) -> Accountant:
        return RDPAccountant()

    def test_sampling_under_replace_is_refused(self) -> None:
        with pytest.raises(UnknownEvent, match="replace"):
            self.make().add(PoissonGaussian(noise_multiplier=1.0, sample_rate=0.1, **REPLACE))
        with pytest.raises(UnknownEvent):
            self.make().add(
                Skellam(l1=1.0, l2=1.0, variance=10.0, shares=1, dims=1, sample_rate=0.1, **REPLACE)
            )

    @pytest.mark.parametrize("statement", [ZERO_OUT, REPLACE])
    def test_fixed_size_samples_are_amplified_and_never_cost_more_than_no_sample(self, statement) -> None:
        def price(size: int) -> float:
            event = FixedSizeGaussian(noise_multiplier=3.0, population=1000, sample_size=size, **statement)
            return epsilon([event], 1e-5, "rdp")

        whole = epsilon([Gaussian(noise_multiplier=3.0, **statement)], 1e-5, "rdp")
        assert price(1000) == whole
        assert price(10) < 0.5 * whole
        assert all(price(size) <= whole for size in (1, 200, 500, 999))


class TestPLD(AccountantSuite):
    def make(self) -> Accountant:
        return PLDAccountant()

    def test_what_has_no_distribution_is_refused(self) -> None:
        for event in (
            FixedSizeGaussian(noise_multiplier=3.0, population=1000, sample_size=50, **ZERO_OUT),
            Skellam(l1=1.0, l2=1.0, variance=10.0, shares=1, dims=1, **ZERO_OUT),
        ):
            with pytest.raises(UnknownEvent, match="another accountant"):
                self.make().add(event)

    def test_replace_with_poisson_sampling_has_a_price(self) -> None:
        event = PoissonGaussian(noise_multiplier=2.0, sample_rate=0.05, **REPLACE)
        assert epsilon([repeat(event, 100)], 1e-5) > epsilon(
            [repeat(PoissonGaussian(noise_multiplier=2.0, sample_rate=0.05, **ZERO_OUT), 100)], 1e-5
        )


CASES = [
    (0.5, 0.001, 2000, 1e-6),
    (0.7, 0.00426, 14_000, 1e-5),
    (1.1, 0.01, 1000, 1e-5),
    (1.3, 0.00426, 14_000, 1e-5),
    (4.0, 0.1, 200, 1e-7),
    (2.0, 1.0, 30, 1e-5),
]


@pytest.mark.parametrize("name, theirs", [("rdp", TheirRDP), ("pld", TheirPLD)])
@pytest.mark.parametrize("sigma, rate, steps, delta", CASES)
def test_agrees_with_dp_accounting(
    name: str, theirs, sigma: float, rate: float, steps: int, delta: float
) -> None:
    ours = accountant(name).add(PoissonGaussian(noise_multiplier=sigma, sample_rate=rate, **ZERO_OUT), steps)
    other = theirs()
    other.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma)), steps)
    assert ours.epsilon(delta) == pytest.approx(other.get_epsilon(delta), rel=1e-3)


@pytest.mark.parametrize("sigma, rate, steps, delta", CASES)
def test_agrees_with_opacus(sigma: float, rate: float, steps: int, delta: float) -> None:
    """The same orders; Opacus' conversion from Renyi is the same proposition."""
    other = OpacusRDP()
    other.history = [(sigma, rate, steps)]
    ours = accountant("rdp").add(PoissonGaussian(noise_multiplier=sigma, sample_rate=rate, **ZERO_OUT), steps)
    assert ours.epsilon(delta) == pytest.approx(other.get_epsilon(delta), rel=1e-3)


def test_high_prices_stay_upper_bounds_on_a_wider_grid() -> None:
    """At 1e-4 dp-accounting takes minutes for the second; the first must agree with it as any other."""
    event = PoissonGaussian(noise_multiplier=0.3, sample_rate=0.05, **ZERO_OUT)
    other = TheirPLD()
    other.compose(dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(0.3)), 40)
    assert interval([(event, 40)]) > 1e-4
    assert epsilon([repeat(event, 40)], 1e-5) == pytest.approx(other.get_epsilon(1e-5), rel=1e-3)
    loud = Gaussian(noise_multiplier=0.05, **ZERO_OUT)
    price = epsilon([repeat(loud, 10)], 1e-5)
    assert analytic_gaussian_delta(0.05 / math.sqrt(10), price) <= 1e-5
    assert price == pytest.approx(2000 + 63.2 * 4.26, rel=0.05)
    assert interval([(PoissonGaussian(noise_multiplier=2.0, sample_rate=0.05, **REPLACE), 5)]) == 1e-4


def test_pure_and_dear_events_share_one_grid_and_what_overflows_is_refused() -> None:
    pld = accountant("pld")
    dear = pld.add(Gaussian(noise_multiplier=0.05, **ZERO_OUT)).epsilon(1e-5)
    both = pld.add(Pure(epsilon=1.0, **ZERO_OUT)).epsilon(1e-5)
    assert dear < both <= dear + 1.0 + 1e-2 * dear
    with pytest.raises(Misuse, match="beyond what pld can price"):
        accountant("pld").add(Gaussian(noise_multiplier=1e-6, **ZERO_OUT), 10).epsilon(1e-5)


def test_names() -> None:
    assert accountant("rdp").name == "rdp"
    with pytest.raises(Misuse, match="rdp, pld"):
        accountant("moments")
