"""Calibration inverts the accountants; the command prints both directions and agrees with dp-accounting."""

import contextlib
import io
import json
import math
from collections.abc import Callable

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant as TheirPLD
from dp_accounting.rdp import RdpAccountant as TheirRDP

from dp.accountants import accountant
from dp.calibration import _bracket, _narrow, noise_multiplier, sampled_gaussian, scale_for
from dp.events import (
    DiscreteGaussianSum,
    Event,
    Gaussian,
    PoissonGaussian,
    Pure,
    Relation,
    Unit,
    UnknownEvent,
    repeat,
)
from dp.mechanisms import analytic_gaussian_sigma
from fl.cli import invoke
from protocols.errors import Misuse

PLANS = [(3.0, 1e-5, 200, 0.02), (1.0, 1e-6, 50, 1.0), (8.0, 1e-5, 300, 0.2), (0.3, 1e-5, 10, 0.05)]


@pytest.mark.parametrize("name", ["rdp", "pld"])
@pytest.mark.parametrize("epsilon, delta, steps, rate", PLANS)
def test_the_plan_keeps_its_budget_and_wastes_nothing(
    name: str, epsilon: float, delta: float, steps: int, rate: float
) -> None:
    sigma = noise_multiplier(epsilon=epsilon, delta=delta, steps=steps, rate=rate, accountant=name)

    def price(multiplier: float) -> float:
        event = sampled_gaussian(multiplier, rate, Unit.EXAMPLE, Relation.ZERO_OUT)
        return accountant(name).add(event, steps).epsilon(delta)

    assert price(sigma) <= epsilon
    assert price(sigma * 0.999) > epsilon


@pytest.mark.parametrize("name, theirs", [("rdp", TheirRDP), ("pld", TheirPLD)])
def test_agrees_with_the_calibration_of_dp_accounting(name: str, theirs) -> None:
    def plan(sigma: float) -> dp_accounting.DpEvent:
        sampled = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(sigma))
        return dp_accounting.SelfComposedDpEvent(sampled, 20)

    between = dp_accounting.ExplicitBracketInterval(0.5, 4.0)
    expected = dp_accounting.calibrate_dp_mechanism(theirs, plan, 2.0, 1e-5, between, tol=1e-5)
    assert noise_multiplier(epsilon=2.0, delta=1e-5, steps=20, rate=0.1, accountant=name) == pytest.approx(
        expected, rel=1e-3
    )


def test_one_step_over_everyone_needs_what_the_analytic_gaussian_says() -> None:
    found = noise_multiplier(epsilon=1.0, delta=1e-5, steps=1)
    exact = analytic_gaussian_sigma(1.0, 1e-5)
    assert exact * (1 - 1e-7) <= found <= exact * (1 + 2e-5)


def test_a_sample_of_everyone_is_no_sample() -> None:
    kinds = [type(sampled_gaussian(2.0, rate, Unit.CLIENT, Relation.ZERO_OUT)) for rate in (1, 0.5)]
    assert kinds == [Gaussian, PoissonGaussian]


PRICES: dict[str, Callable[[float], float]] = {
    "power": lambda scale: 1 / scale,
    "two powers": lambda scale: 1 / scale + 1 / scale**2,
    "to nothing": lambda scale: 1 / scale if scale < 1.1 else 0.0,
    "exponential": lambda scale: math.exp(2 - scale),
    "from infinity": lambda scale: math.inf if scale < 0.9 else 0.9 / scale,
    "a step": lambda scale: 3.0 if scale < 1.25 else 0.25,
}
LEAST = {"two powers": (1 + math.sqrt(5)) / 2, "exponential": 2.0, "from infinity": 0.9, "a step": 1.25}


@pytest.mark.parametrize("name", PRICES)
@pytest.mark.parametrize("start", [1e-3, 0.9, 1.0, 1.1, 3.0, 1e3])
def test_the_least_scale_is_found_from_anywhere_and_soon(name: str, start: float) -> None:
    """How often a plan is priced is what a calibration takes."""
    priced = list[float]()

    def price(scale: float) -> float:
        priced.append(scale)
        return 0.5 * PRICES[name](scale)

    low, high = _bracket(price, 0.5, start, 2.0)
    assert high == pytest.approx(2 * low)
    assert PRICES[name](low) > 1.0 >= PRICES[name](high)
    priced.clear()
    found = _narrow(price, 0.5, low, high)
    least = LEAST.get(name, 1.0)
    assert PRICES[name](found) <= 1.0
    assert least <= found <= least * (1 + 1.0001e-5)
    assert len(priced) <= (26 if name in ("a step", "to nothing", "from infinity") else 8)


def test_a_plan_that_no_scale_makes_cheap_enough_is_refused() -> None:
    with pytest.raises(Misuse, match=r"no noise reaches epsilon 1\.0"):
        _bracket(lambda scale: 2.0, 1.0, 1.0, 2.0)
    assert _bracket(lambda scale: 0.5, 1.0, 1.0, 2.0) == (2.0**-41, 2.0**-40)
    low, high = _bracket(lambda scale: 2.0 if scale < 2.0**40 else 0.5, 1.0, 1.0, 2.0)
    assert (low, high) == (2.0**39, 2.0**40)


def test_a_plan_without_a_price_is_refused_as_it_is() -> None:
    class Foreign(Gaussian):
        pass

    def plan(scale: float) -> Event:
        return Foreign(noise_multiplier=scale, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)

    for name in ("rdp", "pld"):
        with pytest.raises(UnknownEvent):
            scale_for(plan, epsilon=1.0, delta=1e-5, accountant=name)


def test_what_only_the_other_accountant_prices_is_scaled_too() -> None:
    def plan(scale: float) -> Event:
        return repeat(Pure(epsilon=min(600.0, 1 / scale), unit=Unit.CLIENT, relation=Relation.REPLACE), 2)

    assert scale_for(plan, epsilon=2.0, delta=1e-9, accountant="pld") == pytest.approx(1.0, rel=2e-3)


def test_any_plan_can_be_scaled() -> None:
    def plan(deviation: float):
        event = DiscreteGaussianSum(
            sensitivity=200.0,
            share_variance=max(0.5, deviation**2),
            shares=20,
            dims=10_000,
            unit=Unit.CLIENT,
            relation=Relation.ZERO_OUT,
        )
        return repeat(event, 10)

    deviation = scale_for(plan, epsilon=4.0, delta=1e-5, start=100.0)
    assert accountant("pld").add(plan(deviation)).epsilon(1e-5) <= 4.0
    assert accountant("pld").add(plan(deviation * 0.999)).epsilon(1e-5) > 4.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epsilon": 0.0}, "epsilon: expected a number > 0"),
        ({"epsilon": float("nan")}, "epsilon: expected a number > 0"),
        ({"epsilon": float("inf")}, "epsilon: expected a number > 0"),
        ({"delta": 0.0}, "delta: expected a number in"),
        ({"delta": 1.0}, "delta: expected a number in"),
        ({"delta": 1.5}, "delta: expected a number in"),
        ({"steps": 0}, "steps: expected a whole number >= 1"),
        ({"rate": 1.5}, "rate: expected a number from 0 to 1"),
        ({"rate": -0.1}, "rate: expected a number from 0 to 1"),
        ({"accountant": "moments"}, "moments"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], why: str) -> None:
    plan: dict[str, object] = {"epsilon": 1.0, "delta": 1e-5, "steps": 10, "rate": 0.1, **changes}
    with pytest.raises(Misuse, match=why):
        noise_multiplier(**plan)  # type: ignore[arg-type]


def run(*arguments: str) -> tuple[int, str, str]:
    """`secagg epsilon` in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = invoke(["epsilon", *arguments])
    return code, out.getvalue(), err.getvalue()


PLAN = ("--sample-rate", "0.01", "--steps", "1000", "--delta", "1e-5", "--json")


@pytest.mark.parametrize("name, theirs", [("rdp", TheirRDP), ("pld", TheirPLD)])
def test_command_and_its_inverse(name: str, theirs) -> None:
    code, printed, _ = run("--noise-multiplier", "1.1", "--accountant", name, *PLAN)
    assert code == 0
    result = json.loads(printed)
    other = theirs()
    other.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1)), 1000)
    assert result["epsilon"] == pytest.approx(other.get_epsilon(1e-5), rel=1e-3)
    assert (result["unit"], result["relation"]) == ("example", "zero-out")
    back = json.loads(run("--epsilon", str(result["epsilon"]), "--accountant", name, *PLAN)[1])
    assert back["noise_multiplier"] == pytest.approx(1.1, rel=1e-3)
    assert back["epsilon"] <= result["epsilon"]


PRODUCTION = [
    "--banded",
    "--rounds",
    "2000",
    "--bands",
    "1000",
    "--separation",
    "1428",
    "--participations",
    "2",
    "--delta",
    "1e-10",
    "--json",
]


def test_banded_and_its_inverse() -> None:
    found = json.loads(run("--epsilon", "0.994", *PRODUCTION)[1])
    assert found["participations"] == 2
    assert found["rmse_over_independent"] < 0.11
    again = json.loads(run("--noise-multiplier", str(found["noise_multiplier"]), *PRODUCTION)[1])
    assert again["epsilon"] == found["epsilon"] == pytest.approx(0.994, abs=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        PLAN,
        ("--noise-multiplier", "1", "--banded", *PLAN),
        ("--noise-multiplier", "1", "--banded", "--rounds", "9", "--delta", "1e-5", "--json"),
        (
            "--noise-multiplier",
            "1",
            "--banded",
            "--rounds",
            "9",
            "--separation",
            "0",
            "--delta",
            "1e-5",
            "--json",
        ),
        ("--noise-multiplier", "1", "--epsilon", "1", *PLAN),
        ("--noise-multiplier", "-1", *PLAN),
        ("--noise-multiplier", "1", "--accountant", "moments", *PLAN),
        ("--noise-multiplier", "1", "--relation", "sibling", *PLAN),
        ("--noise-multiplier", "1", "--steps", "0", "--delta", "1e-5", "--json"),
        ("--noise-multiplier", "1", "--steps", "1", "--delta", "2", "--json"),
    ],
)
def test_wrong_requests_leave_with_two_and_a_sentence(arguments: tuple[str, ...]) -> None:
    code, printed, said = run(*arguments)
    assert code == 2
    assert "Traceback" not in said
    assert "error" in json.loads(printed)


SUGGEST = ["--suggest", "--epsilon", "8", "--rounds", "50", "--delta", "1e-5"]
SUGGEST += ["--population", "1000", "--dimension", "1000"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ([*SUGGEST, "--relation", "replace"], "--relation"),
        ([*SUGGEST, "--sample-rate", "0.5"], "--sample-rate"),
        (["--noise-multiplier", "1", "--bands", "3", *PLAN], "--bands"),
        (["--epsilon", "1", "--sample-rate", "0.5", *PRODUCTION], "--sample-rate"),
    ],
)
def test_an_option_that_would_say_nothing_is_refused(arguments: list[str], option: str) -> None:
    """`--suggest --relation replace` had printed the noise of zero-out."""
    code, _, said = run(*arguments)
    assert code == 2
    assert f"does not read {option}" in said


def test_a_suggestion_names_unit_and_relation() -> None:
    assert "per client (zero-out)" in run(*SUGGEST)[1]
    told = json.loads(run(*SUGGEST, "--json")[1])
    assert (told["unit"], told["relation"]) == ("client", "zero-out")
