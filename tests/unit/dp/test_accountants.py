"""One suite that every accountant inherits, and agreement with dp-accounting and Opacus."""

import dataclasses
import decimal
import math
from abc import ABC, abstractmethod

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant as TheirPLD
from dp_accounting.rdp import RdpAccountant as TheirRDP
from opacus.accountants import RDPAccountant as OpacusRDP

from dp.accountants import Accountant, PLDAccountant, RDPAccountant, accountant, epsilon
from dp.accountants.curves import poisson_amplified
from dp.accountants.pld import interval
from dp.accountants.rdp import curve, orders
from dp.accountants.reduction import SMOOTHING_VARIANCE, dominating, eta
from dp.accountants.selected import SelectedAccountant
from dp.events import (
    DiscreteGaussianSum,
    Event,
    Failing,
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
        assert self.make().add(repeat(GAUSS, 0)).add(GAUSS, 0).epsilon(1e-5) == 0.0

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

    def test_distances_of_several_events_add_up_and_so_do_those_that_come_to_the_same(self) -> None:
        failing = [Failing(event=GAUSS, probability=p, **ZERO_OUT) for p in (2e-8, 5e-8)]
        account = self.make().add(failing[0], 3).add(failing[1], 2).add(GAUSS)
        plain = self.make().add(GAUSS, 6)
        distance = account.distance
        assert distance == pytest.approx(3 * 2e-8 + 2 * 5e-8, rel=1e-12)
        for target in (0.0, 0.5, 2.0):
            whole = plain.delta(target) + (1 + math.exp(target)) * distance
            assert account.delta(target) == pytest.approx(whole, rel=1e-12)
        price = account.epsilon(1e-5)
        left = 1e-5 - (1 + math.exp(price)) * distance
        assert plain.epsilon(left) == pytest.approx(price, rel=1e-6)
        assert plain.epsilon(left) <= price

    def test_what_always_fails_has_no_price_and_no_delta_above_one(self) -> None:
        account = self.make().add(Failing(event=GAUSS, probability=1.0, **ZERO_OUT))
        assert (account.delta(0.0), account.epsilon(0.5)) == (1.0, math.inf)

    def test_a_small_price_with_a_distance_is_finite(self) -> None:
        wide = Gaussian(noise_multiplier=1e4, **ZERO_OUT)
        account = self.make().add(Failing(event=wide, probability=1e-9, **ZERO_OUT))
        assert account.epsilon(1e-3) == pytest.approx(self.make().add(wide).epsilon(1e-3), abs=1e-3)

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

    @pytest.mark.parametrize("statement, reach", [(ZERO_OUT, 1), (REPLACE, 2)])
    def test_skellam_noise_costs_what_the_corollary_says(self, statement, reach: int) -> None:
        """Agarwal, Kairouz and Liu, Corollary 4.1, either term of its minimum; a line between two orders."""
        for l1, variance in ((40.0, 100.0), (2.5, 2.0)):
            event = Skellam(l1=l1, l2=2.0, variance=variance, shares=1, dims=9, **statement)
            assert 0 < self.make().add(event).epsilon(1e-5) < math.inf
            known = {}
            for order in (2, 3, 10, 63):
                rest = ((2 * order - 1) * (2 * reach) ** 2 + 6 * l1 * reach) / (4 * variance**2)
                main = order * (2 * reach) ** 2 / (2 * variance)
                known[order] = main + min(rest, 3 * l1 * reach / (2 * variance))
                assert curve(event)[orders().index(order)] == pytest.approx(known[order], rel=1e-12)
            between = (0.5 * known[2] + 0.5 * 2 * known[3]) / 1.5
            assert curve(event)[orders().index(2.5)] == pytest.approx(between, rel=1e-12)
            assert curve(event)[orders().index(1.5)] == pytest.approx(known[2], rel=1e-12)

    def test_curves_of_several_events_add_up(self) -> None:
        together = RDPAccountant().curve({GAUSS: 2, SAMPLED: 3, PURE: 1})
        assert together == pytest.approx(2 * curve(GAUSS) + 3 * curve(SAMPLED) + curve(PURE))

    def test_a_fixed_size_sample_is_priced_as_a_replacement_at_twice_the_clip(self) -> None:
        event = FixedSizeGaussian(noise_multiplier=3.0, population=1000, sample_size=50, **ZERO_OUT)
        theirs = TheirRDP(orders(), dp_accounting.NeighboringRelation.REPLACE_ONE)
        theirs.compose(
            dp_accounting.SampledWithoutReplacementDpEvent(1000, 50, dp_accounting.GaussianDpEvent(1.5))
        )
        whole = curve(Gaussian(noise_multiplier=3.0, **ZERO_OUT))
        assert curve(event) == pytest.approx([min(pair) for pair in zip(theirs._rdp, whole, strict=True)])

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
            with pytest.raises(
                UnknownEvent, match=f"for {type(event).__name__} under zero-out.*another accountant"
            ):
                self.make().add(event)

    def test_two_of_a_kind_are_composed_twice(self) -> None:
        assert self.make().add(PURE, 2).epsilon(1e-9) == pytest.approx(0.2, rel=2e-3)

    def test_replace_with_poisson_sampling_has_a_price(self) -> None:
        event = PoissonGaussian(noise_multiplier=2.0, sample_rate=0.05, **REPLACE)
        assert epsilon([repeat(event, 100)], 1e-5) > epsilon(
            [repeat(PoissonGaussian(noise_multiplier=2.0, sample_rate=0.05, **ZERO_OUT), 100)], 1e-5
        )


def test_what_dominates_discrete_noise_and_how_far_it_is_from_it() -> None:
    one = DiscreteGaussianSum(sensitivity=2.0, share_variance=4.0, shares=3, dims=5, **ZERO_OUT)
    multiplier = math.sqrt(12.0 - SMOOTHING_VARIANCE) / 2
    assert dominating(one)[0] == Gaussian(noise_multiplier=multiplier, **ZERO_OUT)
    assert dominating(dataclasses.replace(one, sample_rate=0.25))[0] == PoissonGaussian(
        noise_multiplier=multiplier, sample_rate=0.25, **ZERO_OUT
    )
    assert dominating(one)[1] == 5 * (eta() + one.tau) + 15 * one.sampler_distance
    narrow = dataclasses.replace(one, share_variance=0.5, shares=2000, dims=10**6, sampler_distance=2.0**-60)
    assert dominating(narrow)[1] == 1.0 + 2000 * 10**6 * 2.0**-60
    skellam = Skellam(l1=1.0, l2=1.0, variance=10.0, shares=4, dims=3, **ZERO_OUT)
    assert dominating(skellam) == (skellam, 12 * skellam.sampler_distance)


def test_discrete_noise_of_the_variance_that_the_reduction_gives_up_is_refused() -> None:
    narrow = DiscreteGaussianSum(sensitivity=1.0, share_variance=3.6, shares=1, dims=1, **ZERO_OUT)
    with pytest.raises(UnknownEvent, match="too narrow to price"):
        dominating(narrow)
    wider = dominating(dataclasses.replace(narrow, share_variance=4.0))[0]
    assert wider == Gaussian(noise_multiplier=math.sqrt(4.0 - 3.6), **ZERO_OUT)


def test_the_mean_number_of_runs_to_select_from() -> None:
    once = RDPAccountant().add(GAUSS).epsilon(1e-5)
    prices = [SelectedAccountant(runs).add(GAUSS).epsilon(1e-5) for runs in (1.1, 1.5, 3.0)]
    assert once < prices[0] < prices[1] < prices[2] < math.inf
    for runs in (1.0, math.inf, math.nan):
        with pytest.raises(Misuse, match=r"runs: expected a number from 1\.000001"):
            SelectedAccountant(runs)
    failing = Failing(event=GAUSS, probability=1e-9, **ZERO_OUT)
    assert SelectedAccountant(3.0).add(failing, 2).distance == pytest.approx(6e-9)


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


def test_the_grid_widens_in_proportion_to_the_rough_price() -> None:
    for event, same in (
        (Gaussian(noise_multiplier=0.2, **ZERO_OUT), Gaussian(noise_multiplier=0.4, **REPLACE)),
        (
            PoissonGaussian(noise_multiplier=0.2, sample_rate=0.5, **ZERO_OUT),
            PoissonGaussian(noise_multiplier=0.4, sample_rate=0.5, **REPLACE),
        ),
    ):
        rough = accountant("rdp").add(event, 3).epsilon(1e-6)
        assert 60 < rough < 120
        assert interval([(event, 3)]) == interval([(same, 3)]) == pytest.approx(4e-4)
    for price, known in ((20.0, 1e-4), (29.0, 1e-4), (30.5, 2e-4), (59.0, 2e-4), (61.0, 4e-4)):
        assert interval([(Pure(epsilon=price, **ZERO_OUT), 1)]) == pytest.approx(known)
        assert interval([(Pure(epsilon=price, **REPLACE), 1)]) == pytest.approx(known)


def test_pure_and_dear_events_share_one_grid_and_what_overflows_is_refused() -> None:
    pld = accountant("pld")
    dear = pld.add(Gaussian(noise_multiplier=0.05, **ZERO_OUT)).epsilon(1e-5)
    both = pld.add(Pure(epsilon=1.0, **ZERO_OUT)).epsilon(1e-5)
    assert dear < both <= dear + 1.0 + 1e-2 * dear
    with pytest.raises(Misuse, match="beyond what pld can price"):
        accountant("pld").add(Gaussian(noise_multiplier=1e-6, **ZERO_OUT), 10).epsilon(1e-5)


def test_names() -> None:
    assert epsilon([GAUSS], 1e-5) == epsilon([GAUSS], 1e-5, "pld") != epsilon([GAUSS], 1e-5, "rdp")
    assert accountant("rdp").name == "rdp"
    with pytest.raises(Misuse, match="rdp, pld"):
        accountant("moments")


@pytest.mark.parametrize("price", [1e-5, 1e-8, 1e-12])
def test_many_small_pure_events_cost_what_theory_says(price: float) -> None:
    """Their curve was a difference of logarithms: 0 at 1e-8, and so were a thousand million millions of them."""
    known = [order * price**2 / 2 for order in orders()]  # of small prices, Taylor's first term
    assert curve(Pure(epsilon=price, **ZERO_OUT)) == pytest.approx(known, rel=1e-3, abs=0)
    count = round(price**-2)
    spent = accountant("rdp").add(Pure(epsilon=price, **ZERO_OUT), count).epsilon(1e-5)
    limit = accountant("rdp").add(Gaussian(noise_multiplier=1.0, **ZERO_OUT)).epsilon(1e-5)
    assert spent == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("rate", [1e-4, 1e-6, 1e-8])
def test_a_small_sample_costs_what_theory_says(rate: float) -> None:
    for order in (2, 3, 17):
        known = order / 2 * rate**2 * (math.e - 1)  # D(2) is 1; what is left out is smaller by the rate
        assert poisson_amplified(lambda order: order / 2, rate, order) == pytest.approx(
            known, rel=2e-2, abs=0
        )


def amplified_to_many_digits(rate: float, noise: float, order: int) -> float:
    """1/(a-1) log(1 + sum over l of C(a, l) q^l (1-q)^(a-l) (exp(l (l - 1) / 2 sigma^2) - 1)), a an integer."""
    with decimal.localcontext(prec=80):
        q, slope, total = decimal.Decimal(rate), 1 / (2 * decimal.Decimal(noise) ** 2), decimal.Decimal(1)
        for size in range(2, order + 1):
            chance = math.comb(order, size) * q**size * (1 - q) ** (order - size)
            total += chance * ((size * (size - 1) * slope).exp() - 1)
        return float(total.ln() / (order - 1))


@pytest.mark.parametrize("noise", [0.5, 1e3, 1e9])
@pytest.mark.parametrize("rate", [1e-12, 1e-4, 0.3, 0.9])
def test_no_curve_over_a_sample_is_below_the_truth(rate: float, noise: float) -> None:
    """Of much noise the logarithm of the whole sum was 0 or less, and one order below 0 makes an epsilon 0."""
    gaussian = curve(PoissonGaussian(noise_multiplier=noise, sample_rate=rate, **ZERO_OUT))
    skellam = curve(
        Skellam(l1=1.0, l2=1.0, variance=noise**2, shares=1, dims=1, sample_rate=rate, **ZERO_OUT)
    )
    for order in orders():  # it rises with the order, and Skellam noise is no better than a Gaussian as wide
        least = amplified_to_many_digits(rate, noise, min(64, max(2, int(order)))) / (1 if order >= 2 else 2)
        assert least * (1 - 1e-9) <= gaussian[orders().index(order)]
        assert least * (1 - 1e-9) <= skellam[orders().index(order)]
    assert gaussian[orders().index(5.0)] == pytest.approx(
        amplified_to_many_digits(rate, noise, 5), rel=1e-8, abs=0
    )


def test_very_many_samples_under_very_much_noise_have_a_price() -> None:
    """2^53 of them are a Gaussian of deviation 10.5 clips: 0 was stated."""
    limit = accountant("rdp").add(Gaussian(noise_multiplier=1e9 / 0.9 / 2**26.5, **ZERO_OUT)).epsilon(1e-6)
    sampled = PoissonGaussian(noise_multiplier=1e9, sample_rate=0.9, **ZERO_OUT)
    assert accountant("rdp").add(sampled, 2**53).epsilon(1e-6) == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("noise", [1e-12, 1e9, 1e150])
def test_every_noise_that_an_event_can_hold_has_a_price(noise: float) -> None:
    """Of much noise its square overflowed, and the curve of a fixed-size sample took the logarithm of 0."""
    rest = {"noise_multiplier": noise, **ZERO_OUT}
    for event in (
        Gaussian(**rest),
        PoissonGaussian(sample_rate=0.5, **rest),
        FixedSizeGaussian(population=10, sample_size=3, **rest),
    ):
        assert accountant("rdp").add(event).epsilon(1e-5) >= 0
    with pytest.raises(
        Misuse, match=r"noise_multiplier: expected a float from 1e-12 to 1e\+150, got 1e\+300"
    ):
        Gaussian(noise_multiplier=1e300, **ZERO_OUT)


def delta_of_coins(price: float, count: int, spent: float) -> float:
    """What `count` randomised responses of epsilon `price` cost at epsilon `spent`, as a sum over a binomial."""
    keep, flip = -math.log1p(math.exp(-price)), -price - math.log1p(math.exp(-price))
    losses = [(kept, price * (2 * kept - count)) for kept in range(count + 1)]
    return math.fsum(
        math.exp(math.log(math.comb(count, kept)) + kept * keep + (count - kept) * flip)
        * -math.expm1(spent - loss)
        for kept, loss in losses
        if loss > spent
    )


@pytest.mark.parametrize(
    ("price", "count", "delta"),
    [(3.0, 3, 1e-14), (0.01, 1000, 1e-12), (0.03, 10_000, 1e-11), (0.3, 100, 1e-6)],
)
def test_what_a_convolution_loses_is_part_of_delta(price: float, count: int, delta: float) -> None:
    """Its rounding errors, 1e-17 for each event, were as if there were no such outcomes: epsilon was too small."""
    account = accountant("pld").add(Pure(epsilon=price, **ZERO_OUT), count)
    spent = account.epsilon(delta)
    assert delta_of_coins(price, count, spent) <= delta
    assert delta_of_coins(price, count, spent * 0.98) > delta
    assert account.delta(spent) >= delta_of_coins(price, count, spent)
    assert accountant("pld").add(Pure(epsilon=price, **ZERO_OUT), 2**40).epsilon(delta) == math.inf
