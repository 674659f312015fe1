"""Who is asked in a round: everybody, by the user's seed, or secretly where a layer's price counts on it.

A secret choice is part of the mechanism (docs/dp-account.md, section 9): every planned round is charged, rounds are
abandoned for few clients only as often as the price says, and who and how many took part is not told.
"""

import numpy as np

from fl.dropouts import departing
from fl.run_options import RunOptions
from fl.seeds import generator
from protocols.errors import SecAggError
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.summation import SecureSum


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


def carried(
    options: RunOptions, secure_sum: SecureSum, policy: Policy | None, clients: int
) -> tuple[int, float]:
    """Return the fewest clients with which a round of this plan is played, and how likely another number is chosen with
    which it is abandoned. (0, 0.0): every round is played, whatever the number.

    Counts what the secure sum and its clients' policy demand of each number, the planned drop-out and `min_survivors`:
    a number may fail though a smaller one works. Where none works: the whole population, and 1.
    """
    from dp.mechanisms.sampling import chance_of, likely_sizes

    if secure_sum.server_sees_vectors and options.min_survivors <= 1:
        return 0, 0.0
    policy = policy or secure_sum.default_policy
    likely = likely_sizes(clients, options.fraction)
    working = [size for size in likely if _works(options, secure_sum, policy, size)]
    failing = set(likely).difference(working)
    return min(working, default=clients), chance_of(clients, options.fraction, failing)


def _works(options: RunOptions, secure_sum: SecureSum, policy: Policy, clients: int) -> bool:
    staying = clients - departing(clients, options.dropout)
    if staying < max(1, options.min_survivors):
        return False
    try:
        session = secure_sum.session([str(i) for i in range(clients)], 1, 1, random=SystemRandom())
        demands = secure_sum.demands(session)
        policy.check(demands)
    except SecAggError:
        return False
    return staying >= max(demands.survivors, demands.threshold or 0)
