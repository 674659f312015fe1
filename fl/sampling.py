"""Who is asked in a round: everybody, by the user's seed, or secretly where a layer's price counts on it.

A secret choice is part of the mechanism (docs/dp-account.md, section 9): every planned round is charged, rounds are
abandoned for few clients only as often as the price says, and who and how many took part is not told.
"""

from collections.abc import Iterable

import numpy as np

from fl.dropouts import departing
from fl.run_options import RunOptions
from fl.seeds import generator
from protocols.errors import SecAggError
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.summation import SecureSum

_EVERY = 64
"""Up to this size every number of clients is tried, beyond it every power of two."""


def choose(
    options: RunOptions, names: tuple[str, ...], count: int, number: int, *, secret: bool
) -> tuple[str, ...]:
    """Return who is asked in round `number`, in roster order; `count` of them unless each tosses a coin.

    secret: from the operating system; else by the user's seed, the same in every run.
    """
    poisson = options.sampling == "poisson"
    if not poisson and count == len(names):
        return names
    if secret:
        from dp.mechanisms.sampling import fixed_sample, poisson_sample

        random, size = SystemRandom(), len(names)
        rows = (
            poisson_sample(random, size, options.fraction) if poisson else fixed_sample(random, size, count)
        )
        return tuple(names[i] for i in rows)
    draws = generator(options.seed, "sample", number).random(len(names))
    chosen = draws < options.fraction if poisson else np.argsort(np.argsort(draws, kind="stable")) < count
    return tuple(name for name, asked in zip(names, chosen, strict=True) if asked)


def least_chosen(options: RunOptions, secure_sum: SecureSum, policy: Policy | None, clients: int) -> int:
    """Return the fewest clients with which, and with more, a round of this plan is played; 0: whatever the number.

    Counts what the secure sum and its clients' policy demand of so many, the planned drop-out and `min_survivors`.
    """
    if secure_sum.server_sees_vectors and options.min_survivors <= 1:
        return 0
    policy = policy or secure_sum.default_policy
    failing = [c for c in _sizes(clients) if not _works(options, secure_sum, policy, c)]
    return 1 + max(failing, default=0)


def _sizes(most: int) -> Iterable[int]:
    yield from range(1, min(most, _EVERY) + 1)
    size = 2 * _EVERY
    while size <= most:
        yield size
        size *= 2


def _works(options: RunOptions, secure_sum: SecureSum, policy: Policy, clients: int) -> bool:
    staying = clients - departing(clients, options.dropout)
    try:
        session = secure_sum.session([str(i) for i in range(clients)], 1, 1, random=SystemRandom())
        demands = secure_sum.demands(session)
        policy.check(demands)
    except SecAggError:
        return False
    return staying >= max(options.min_survivors, demands.survivors, demands.threshold or 0)
