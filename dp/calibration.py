"""How much noise a whole planned run needs: the inverse of an accountant.

Belongs here: root finding over one scale. Does not belong here: prices (`dp.accountants`), what layers do
with the noise.
"""

import math
from collections.abc import Callable

from dp.accountants import accountant as make_accountant
from dp.events import Event, Gaussian, PoissonGaussian, Relation, Unit, UnknownEvent, repeat
from protocols.errors import Misuse
from protocols.numbers import between_0_and_1, positive, real, whole

_PRECISION = 1e-5
_LARGEST = 2.0**40


def noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    steps: int,
    rate: float = 1.0,
    accountant: str = "pld",
    unit: Unit = Unit.EXAMPLE,
    relation: Relation = Relation.ZERO_OUT,
) -> float:
    """The least noise multiplier (rounded up by at most 1e-5 relative) for `steps` Poisson-sampled Gaussian
    steps.

    The whole planned run then costs at most `epsilon` at `delta` by the accountant named. Raises Misuse for
    nonsense, for zero steps, and where no noise is enough.
    """
    steps = whole("steps", steps, 1)
    rate = real("rate", rate, "from 0 to 1", lambda number: 0 <= number <= 1)

    def planned(scale: float) -> Event:
        return repeat(sampled_gaussian(scale, rate, unit, relation), steps)

    return scale_for(planned, epsilon=epsilon, delta=delta, accountant=accountant)


def sampled_gaussian(multiplier: float, rate: float, unit: Unit, relation: Relation) -> Event:
    """One Gaussian step over a secret Poisson sample, or over everyone at rate 1. Raises Misuse for values
    out of range."""
    if rate == 1:
        return Gaussian(noise_multiplier=float(multiplier), unit=unit, relation=relation)
    return PoissonGaussian(
        noise_multiplier=float(multiplier), sample_rate=float(rate), unit=unit, relation=relation
    )


def scale_for(
    planned: Callable[[float], Event],
    *,
    epsilon: float,
    delta: float,
    accountant: str = "pld",
    start: float = 1.0,
) -> float:
    """The least scale at which `planned(scale)` costs at most `epsilon` at `delta`, rounded up by at most
    1e-5 relative.

    `planned` gives the events of the whole run for a scale of the noise and must cost less the larger it
    is. What is returned has been priced and keeps the target. Raises Misuse for epsilon or delta out of
    range, and where 2^40 times `start` is not enough.
    """
    epsilon, delta = positive("epsilon", epsilon), between_0_and_1("delta", delta)
    make_accountant(accountant)  # an unknown name is refused before anything is priced

    def price(scale: float) -> float:
        return make_accountant(accountant).add(planned(scale)).epsilon(delta)

    factor = 2.0
    # the Renyi price is quick and near: few distributions have to be convolved from there
    if accountant == "pld":
        try:
            start = scale_for(planned, epsilon=epsilon, delta=delta, accountant="rdp", start=start)
            factor = 1.2
        except UnknownEvent:
            factor = 2.0
    low, high = _bracket(price, epsilon, start, factor)
    return _narrow(price, epsilon, low, high)


def _bracket(
    price: Callable[[float], float], epsilon: float, start: float, factor: float
) -> tuple[float, float]:
    """Scales a factor apart: at the lower one the plan costs too much, at the upper one it keeps the
    budget."""
    scale = start
    if price(scale) <= epsilon:
        while scale > start / _LARGEST and price(scale / factor) <= epsilon:
            scale /= factor
        return scale / factor, scale
    while _cost(price, scale * factor, epsilon) > epsilon:
        scale *= factor
        if scale > start * _LARGEST:
            raise Misuse(f"no noise reaches epsilon {epsilon}; ask for a larger delta or plan fewer steps")
    return scale, scale * factor


def _cost(price: Callable[[float], float], scale: float, epsilon: float) -> float:
    try:
        return price(scale)
    except UnknownEvent:
        raise
    except Misuse as error:
        raise Misuse(
            f"no noise that can be drawn reaches epsilon {epsilon}, and at {scale:g} times the sensitivity it is too "
            f"much ({error}): ask for a larger epsilon or delta, or plan fewer steps"
        ) from None


def _narrow(price: Callable[[float], float], epsilon: float, low: float, high: float) -> float:
    """Illinois' variant of the false position on log-log axes; every `high` it keeps has been priced at
    most `epsilon`."""
    goal = math.log(epsilon)
    at_low, at_high = _log(price(low)) - goal, _log(price(high)) - goal
    side = 0
    while high > low * (1 + _PRECISION):
        a, b = math.log(low), math.log(high)
        part = at_low / (at_low - at_high) if math.isfinite(at_low) and at_low > at_high else 0.5
        width = _PRECISION / 2 / (b - a)
        middle = math.exp(a + (b - a) * min(max(part + width / 2, width), 1 - width))
        value = _log(price(middle)) - goal
        if value <= 0:
            high, at_high = middle, value
            at_low, side = (at_low / 2 if side == 1 else at_low), 1
        else:
            low, at_low = middle, value
            at_high, side = (at_high / 2 if side == -1 else at_high), -1
    return high


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -50.0
