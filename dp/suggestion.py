"""What a planned run can expect: the noise on the mean update beside its signal, and how many clients would do.

Belongs here: arithmetic before a run, over public numbers. Does not belong here: prices (`dp.accountants`), how much
noise a layer adds (the layer says it). A norm of what the mean update will be is a guess until a run has measured one;
its largest value, the clip, is not.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dp.calibration import scale_for
from dp.events import Relation, Unit, repeat
from dp.layering import DEFAULT_DELTA, discrete
from protocols.errors import Misuse
from protocols.guarantee import rounded_up
from protocols.numbers import positive, real, whole

LAYERS = ("client-dp", "distributed-dp", "local-dp")
_MOST = 1 << 40


@dataclass(frozen=True)
class Suggestion:
    """What `suggest` found.

    noise_multiplier: noise over clip norm that epsilon needs over all rounds. noise: L2 norm of the noise on the mean
    update, expected. signal: L2 norm of the mean update. ratio: noise over signal. needed: the fewest clients a round
    with which the noise is no longer than the signal (perhaps more than there are; None where no number does).
    amplified: whether a secret choice of clients is counted on, so that all holds against the public only.
    """

    layer: str
    population: int
    cohort: int
    rounds: int
    dimension: int
    epsilon: float
    delta: float
    clip: float
    noise_multiplier: float
    noise: float
    signal: float
    ratio: float
    needed: int | None
    amplified: bool

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "unit": Unit.CLIENT.value, "relation": Relation.ZERO_OUT.value}

    def __str__(self) -> str:
        size = f"{self.noise:.3g}, {self.ratio:.3g} times its norm of {self.signal:.3g}"
        if self.ratio <= 1:
            verdict = f"The noise is below the signal; {self.needed} clients a round are enough."
        elif self.needed is None or self.needed > self.population:
            verdict = f"It would take {self.needed} clients a round. " if self.needed else ""
            verdict += (
                "No cohort of this population brings the noise below the signal: train fewer parameters, plan fewer "
                "rounds, or allow a larger epsilon."
            )
        else:
            verdict = (
                f"The noise drowns the update: {self.needed} clients a round would bring it below the signal."
            )
        return (
            f"{self.layer}, {self.cohort} of {self.population} clients, {self.rounds} rounds, {self.dimension} "
            f"parameters: epsilon {self.epsilon:g} at delta {rounded_up(self.delta)} per client (zero-out) needs noise "
            f"multiplier {rounded_up(self.noise_multiplier)}; the noise on the mean update has norm {size}. {verdict}"
        )


def suggest(
    *,
    population: int,
    cohort: int,
    rounds: int,
    dimension: int,
    epsilon: float,
    delta: float | None = None,
    clip: float = 1.0,
    signal: float | None = None,
    layer: str = "client-dp",
    amplify: bool = False,
    accountant: str = "rdp",
) -> Suggestion:
    """Return what client-level noise for (epsilon, delta) does to the mean update of a planned run, as a
    `Suggestion`.

    The run:

    - population: clients of the federation, 1 to 2^40.
    - cohort: clients of a round, 1 to population.
    - rounds: planned, 1 to 2^40.
    - dimension: parameters that are sent, 1 to 2^40.

    The price:

    - epsilon: of the whole run, > 0.
    - delta: in (0, 1) (default: None, 1e-5).
    - layer: "client-dp" (default), "distributed-dp" (the same noise, in shares) or "local-dp" (all of it at every
      client).
    - amplify: count on a secret choice of clients, each by its own coin; client-dp only (default: False).
    - accountant: "rdp" (Renyi; default) or "pld" (privacy loss distributions).

    The update:

    - clip: L2 norm of an update, > 0 (default: 1).
    - signal: L2 norm of the mean update, in (0, clip] (default: None, the clip; a mean of updates that disagree is
      shorter, often by ten).

    Raises Misuse for values out of range.

        suggest(population=1000, cohort=100, rounds=50, dimension=10_000, epsilon=8).needed   # clients a round
    """
    for name, value in {"population": population, "rounds": rounds, "dimension": dimension}.items():
        whole(name, value, 1, _MOST)
    whole("cohort", cohort, 1, population)
    if layer not in LAYERS or (amplify and layer != "client-dp"):
        raise Misuse(f"layer: expected one of {', '.join(LAYERS)} (client-dp to amplify), got {layer!r}")
    clip = positive("clip", clip)
    within = f"> 0 and at most the clip {clip}"
    wanted = clip if signal is None else real("signal", signal, within, lambda norm: 0 < norm <= clip)
    at = DEFAULT_DELTA if delta is None else delta

    def multiplier(clients: int) -> float:
        rate = clients / population if amplify else 1.0
        return scale_for(
            lambda scale: repeat(
                discrete(scale, Unit.CLIENT, Relation.ZERO_OUT, dimension + 1, rate=rate), rounds
            ),
            epsilon=epsilon,
            delta=at,
            accountant=accountant,
        )

    everybody = multiplier(cohort)
    noise = noise_norm(layer, everybody, clip, dimension, cohort)
    most = population if amplify else _MOST
    needed = _needed(
        lambda n: noise_norm(layer, multiplier(n) if amplify else everybody, clip, dimension, n), wanted, most
    )
    return Suggestion(
        layer, population, cohort, rounds, dimension, float(epsilon), at, clip, everybody, noise, wanted,
        noise / wanted, needed, amplify,
    )  # fmt: skip


def noise_norm(layer: str, multiplier: float, clip: float, dimension: int, clients: float) -> float:
    """Expected L2 norm of the noise on the mean of `clients` updates (the root of its mean square). Where they add
    it in shares there is one more than is priced: a client knows its own.
    """
    each = multiplier * clip * math.sqrt(dimension)
    if layer == "distributed-dp":
        each *= math.sqrt(clients / max(1.0, clients - 1))
    return each / math.sqrt(clients) if layer == "local-dp" else each / clients


def drowned(layer: str, multiplier: float, clip: float, dimension: int, clients: float) -> str | None:
    """A sentence where the noise on the mean update is longer than the longest mean update there can be, else None."""
    noise = noise_norm(layer, multiplier, clip, dimension, clients)
    if noise <= clip:
        return None
    needed = _needed(lambda n: noise_norm(layer, multiplier, clip, dimension, n), clip, _MOST) or _MOST
    return (
        f"{layer}: the noise on the mean update has norm {noise:.3g}, and no mean update is longer than the clip "
        f"{clip:g}: it drowns the update. About {needed} clients a round in place of {clients:g}, fewer parameters "
        "(parameters=...), fewer rounds or a larger epsilon would help (dp.suggest, secagg epsilon --suggest)"
    )


def _needed(noise: Callable[[int], float], signal: float, most: int) -> int | None:
    """The fewest clients, at most `most`, with which the noise is no longer than the signal; it falls with them."""
    if noise(most) > signal:
        return None
    low, high = 0, 1
    while high < most and noise(high) > signal:
        low, high = high, min(high * 2, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if noise(middle) > signal else (low, middle)
    return high
