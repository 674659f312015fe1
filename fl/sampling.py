"""Who is asked in a round: everybody, in turn, by the user's seed, or secretly where a layer's price counts on it.

A secret choice is part of the mechanism (docs/dp-account.md, section 9): every planned round is charged, rounds are
abandoned for few clients only as often as the price says, and who and how many took part is not told. Turns, windows
and answers that come first amplify nothing: `described` names them, and a layer that claims amplification is refused.
"""

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from fl.dropouts import departing
from fl.round import Broadcast, new_session
from fl.round.buffers import Buffers
from fl.run_options import RunOptions
from fl.seeds import generator
from protocols.errors import Misuse, SecAggError, refuse, require
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.summation import SecureSum
from protocols.turns import groups_of

POISSON, IN_TURN, CYCLIC, ARRIVALS = "poisson", "round-robin", "cyclic", "arrivals"
COINS = (POISSON, ARRIVALS)
"""Under these every client comes by its own coin; whether one that arrives may is its own rule (`PrivacyLayer.comes`).
"""
_WINDOW = re.compile(r"(.+)=(\d+)-(\d+)(?:/([1-9]\d*))?")


@dataclass(frozen=True)
class Participants:
    """Who takes part in the rounds of a run. options: as the federation has them; names: of its clients. buffers: where
    nobody is waited for.
    """

    options: RunOptions
    names: tuple[str, ...]
    buffers: Buffers | None = None

    @property
    def awaited(self) -> int:
        """How many of a round's clients are awaited, on average: as many as are asked, unless some are spare; of groups
        that take turns the largest.
        """
        if self.buffers is not None:
            return self.buffers.size
        if self.options.sampling == CYCLIC:
            return math.ceil(len(self.names) / groups_of(self.options.fraction))
        return max(1, math.floor(self.options.fraction * len(self.names) + 0.5))

    @property
    def asked(self) -> int:
        """How many clients a round asks, on average."""
        return min(len(self.names), math.ceil(self.awaited * (1 + self.options.spare)))

    @property
    def spared(self) -> int | None:
        """How many are awaited where more are asked, None where all are awaited."""
        return self.awaited if self.awaited < self.asked else None

    @property
    def left_out(self) -> float:
        """The share of those asked that nobody waits for."""
        return 1 - self.awaited / self.asked

    @property
    def described(self) -> str:
        """How clients are chosen, as `RunFacts.sampling` has it: amplification knows "all", "fixed" and "poisson".

        Raises Misuse for windows that are none, and for coins beside windows or spare clients.
        """
        options, windows = self.options, [_window(window) for window in self.options.windows]
        for text, (pattern, *_) in zip(options.windows, windows, strict=True):
            if not any(fnmatchcase(name, pattern) for name in self.names):
                raise Misuse(
                    f"windows: {text!r} names none of the {len(self.names)} clients, and whom no window names is "
                    "always there"
                )
        if self.buffers is not None:
            self._require_unasked(self.buffers.size)
            return "who is done"
        if options.spare and options.sampling == CYCLIC:
            raise Misuse("sampling: under 'cyclic' groups are fixed: leave out spare")
        if options.sampling in COINS:
            if windows or options.spare:
                raise Misuse(
                    f"sampling: under {options.sampling!r} every client tosses a coin in every round: "
                    "leave out windows and spare"
                )
            return options.sampling
        if not windows and not self.spared and self.asked == len(self.names):
            return "all"
        within = " within windows" if windows else ""
        return options.sampling + within + (", the first to answer" if self.spared else "")

    def _require_unasked(self, size: int) -> None:
        usual, options = RunOptions(), self.options
        for name in ("fraction", "sampling", "windows", "spare"):
            if getattr(options, name) != getattr(usual, name):
                raise Misuse(f"{name}: buffers take whoever is done, and nobody is chosen: leave it out")
        require(size <= len(self.names), f"a buffer of at most {len(self.names)} clients", size, "size")

    def available(self, number: int) -> tuple[str, ...]:
        """Return who is there in round `number`, in roster order: whom a window holds, and whom no window names."""
        windows = [_window(window) for window in self.options.windows]

        def there(name: str) -> bool:
            own = [window for pattern, *window in windows if fnmatchcase(name, pattern)]
            return not own or any(_within(number, *window) for window in own)

        return tuple(name for name in self.names if there(name))

    def candidates(self, number: int) -> tuple[str, ...]:
        """Return who may be asked in round `number`: who is there, and has its turn where clients take turns. Every one
        has its turn before one has its next; who is away then waits for the next.
        """
        there, count = self.available(number), self.asked
        if self.options.sampling == CYCLIC:
            groups = groups_of(self.options.fraction)
            return tuple(name for name in self.names[(number - 1) % groups :: groups] if name in there)
        if self.options.sampling != IN_TURN:
            return there
        turn = {((number - 1) * count + place) % len(self.names) for place in range(count)}
        return tuple(name for place, name in enumerate(self.names) if place in turn and name in there)

    def choose(self, number: int, *, secret: bool) -> tuple[str, ...]:
        """Return who is asked in round `number`, in roster order; `asked` of them unless each tosses a coin, or fewer
        are there. secret: from the operating system; else by the user's seed, the same in every run.
        """
        if self.buffers is not None:
            return self.buffers.due(self.names)
        poisson, names, count = self.options.sampling in COINS, self.candidates(number), self.asked
        if not poisson and count >= len(names):
            return names
        if secret:
            from dp.mechanisms.sampling import fixed_sample, poisson_sample

            random, size, rate = SystemRandom(), len(names), self.options.fraction
            rows = poisson_sample(random, size, rate) if poisson else fixed_sample(random, size, count)
            return tuple(names[i] for i in rows)
        draws = generator(self.options.seed, "sample", number).random(len(names))
        rate = self.options.fraction
        chosen = draws < rate if poisson else np.argsort(np.argsort(draws, kind="stable")) < count
        return tuple(name for name, taken in zip(names, chosen, strict=True) if taken)

    def require_chosen(self, number: int, clients: tuple[str, ...]) -> None:
        """Raises ProtocolViolation for clients who are not there in a round, or whose turn it is not."""
        if strange := sorted(set(clients).difference(self.candidates(number))):
            raise refuse(
                f"round {number} asks {strange[0]!r}, whose turn or window it is not: the run chooses clients by turns "
                "or windows that every client knows"
            )

    def require_new(self, resume: bool) -> None:
        """Raises Misuse for a second run in buffers, unless it goes on: clients remember the models of the first."""
        if self.buffers is not None and self.buffers.over and not resume:
            raise Misuse(
                "this federation has played its buffers, and clients remember the models of that run: plan all rounds "
                "in one fit, go on with fit(rounds, resume=True) from an output folder, or make another federation"
            )

    def require_anybody(self, rounds: int) -> None:
        """Raises Misuse for windows in which no round finds as many clients as must survive."""
        least, each = self.options.min_survivors, range(1, rounds + 1)
        if self.options.windows and not any(len(self.candidates(number)) >= least for number in each):
            raise Misuse(
                f"windows: a round needs {least} clients, and none of {rounds} has so many: no round could end"
            )

    def require_opened(self, protocol: SecureSum, sample: Broadcast) -> None:
        """Raises Misuse where some clients are spare and the secure sum does not open with those awaited, or asks
        nobody but the first who enrolled.
        """
        if self.spared is None:
            return
        if protocol.builds_on_earlier:
            raise Misuse(
                "spare: of reused keys, only the first who enrolled are asked from then on, and none of them is spare: "
                'choose setup="fresh", or leave out spare'
            )
        if self.spared < (needed := protocol.opens_with(new_session(protocol, sample))):
            raise Misuse(
                f"spare: {self.spared} clients of {self.asked} are awaited, and the secure sum opens with {needed} at "
                f"least: plan it for the clients that are left out ({protocol.name}:dropout=...), or spare fewer"
            )


def _window(text: str) -> tuple[str, int, int, int]:
    """Return pattern, first and last round, and after how many rounds it is so again (0: never)."""
    found = _WINDOW.fullmatch(text)
    first, last, period = (int(part or 0) for part in found.groups()[1:]) if found else (0, 0, 0)
    if found is None or first < 1 or (last < first and not period) or 0 < period < max(first, last):
        raise Misuse(
            "windows: expected NAMES=FIRST-LAST of the run's rounds, or NAMES=FIRST-LAST/PERIOD of every so many, "
            f"such as 'ward-*=1-8/24', got {text!r}"
        )
    return found[1], first, last, period


def _within(number: int, first: int, last: int, period: int) -> bool:
    at = (number - 1) % period + 1 if period else number
    return first <= at <= last if first <= last else at >= first or at <= last


def carried(
    options: RunOptions, secure_sum: SecureSum, policy: Policy | None, clients: int
) -> tuple[int, float]:
    """Return the fewest clients with which a round of this plan is played, and how likely one is abandoned for their
    number: clients are chosen by coins, and each leaves with chance `dropout` by itself. (0, 0.0): every round is
    played, whatever the number.

    Counts what the secure sum and its clients' policy demand of each number chosen, and `min_survivors`: a number may
    fail though a smaller one works. Where none works: the whole population, and 1.
    """
    from dp.mechanisms.sampling import chance_of, chance_of_fewer, likely_sizes

    if secure_sum.server_sees_vectors and options.min_survivors <= 1:
        return 0, 0.0
    policy = policy or secure_sum.default_policy
    needed = {
        size: _needed(options, secure_sum, policy, size) for size in likely_sizes(clients, options.fraction)
    }
    working = [size for size, least in needed.items() if least <= size - departing(size, options.dropout)]
    failing = {size: chance_of_fewer(size, 1 - options.dropout, least) for size, least in needed.items()}
    return min(working, default=clients), chance_of(clients, options.fraction, failing)


def _needed(options: RunOptions, secure_sum: SecureSum, policy: Policy, size: int) -> int:
    """Return how many of so many clients must stay; more than there are, where none are enough."""
    try:
        session = secure_sum.session([str(i) for i in range(size)], 1, 1, random=SystemRandom())
        policy.check(secure_sum.demands(session))
    except SecAggError:
        return size + 1
    return max(1, options.min_survivors, secure_sum.opens_with(session))
