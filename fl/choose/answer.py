"""The answer: up to three stacks on the front of what a case allows, why the others fell away, and the TOML of each.

What does not belong here: the rules (`stacks`), what was measured (`measured`).
"""

import math
from dataclasses import asdict, dataclass

import tomli_w

from dp.layering import DEFAULT_DELTA
from fl.choose.case import DEVICES, Case
from fl.choose.measured import kept, table
from fl.choose.rehearsal import names
from fl.choose.stacks import AGAINST, PROTECTS, STACKS, Pair, fallen
from fl.registry import privacy_layers
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from protocols.stack import Stack
from secagg.parameters import Cohort, plan
from secagg.parameters.costs import costs

MOST, BITS, SAME = 3, 16, 0.02
"""Stacks that are named; bits of a value; shares of accuracy that nobody tells apart after a few seeds."""
HALF = 0.5
"""Share of the accuracy below which a choice has a warning."""
NOISIER = ": the noise on the mean of so few is longer"
NO_DP = "no differential privacy: the sum and the model may reveal an update"
REHEARSAL, STATED = 20, 1000
"""Most clients of the TOML's first run, which plays all of them on one machine; most of a statement."""


@dataclass(frozen=True)
class Cost:
    """Of a round, for a client. kept: share of the accuracy without noise. bytes_up, trips, seconds: of the secure sum,
    sending left out. sending: seconds on the case's link.
    """

    kept: float
    bytes_up: float
    trips: int
    seconds: float
    sending: float

    @property
    def in_all(self) -> float:
        """Seconds of a round beside the training."""
        return self.seconds + self.sending


@dataclass(frozen=True)
class Choice:
    """A stack that fits, with what it costs, what it states, and the configuration that runs it."""

    stack: Pair
    cost: Cost
    statement: tuple[str, ...]
    toml: str

    @property
    def warning(self) -> str | None:
        """Where the noise leaves less than half of the accuracy: what would leave more."""
        if self.cost.kept >= HALF:
            return None
        return "noise leaves little of the model: ask for a larger epsilon or fewer rounds, or bring more clients"


@dataclass(frozen=True)
class Recommendation:
    """Up to three choices, the first first, and why the other stacks fell away."""

    choices: tuple[Choice, ...]
    fallen: dict[str, str]


def choose(case: Case, data: str = "digits") -> Recommendation:
    """Return the stacks that a case allows and that no other beats, most accuracy first, then fewest bytes.

    Bytes and trips of masks are planned, those of homomorphic sums and all seconds measured, and the accuracy is that
    of rows with as much noise; `measured.json` has the rows. data: of the TOML. Raises Misuse where nothing fits, with
    the reasons.

    >>> choose(Case(trust="honest", clients=200, epsilon=8.0)).choices[0].stack.name
    'distributed-dp behind secagg+'
    """
    why = {stack: reason for stack in STACKS if (reason := fallen(stack, case))}
    priced, late = dict[Pair, Cost](), dict[Pair, Cost]()
    for stack in (stack for stack in STACKS if stack not in why):
        try:
            priced[stack] = _cost(stack, case)
        except Misuse as refusal:
            why[stack] = str(refusal)
            continue
        if slow := _too_slow(priced[stack], case):
            why[stack] = slow
            late[stack] = priced.pop(stack)
    for stack, cost in priced.items():
        if better := next((other for other, its in priced.items() if _beats(its, cost)), None):
            why[stack] = f"{better.name} keeps as much accuracy for less"
    front = sorted((stack for stack in priced if stack not in why), key=lambda stack: _rank(priced[stack]))
    for stack in front[MOST:]:
        why[stack] = "three others come before it"
    if not front:
        refused = {s: reason for s, reason in why.items() if s not in late and fallen(s, case) is None}
        raise Misuse(f"no stack fits. {_nothing(refused, late, why)}")
    found = tuple(Choice(s, priced[s], _statement(s, case), _toml(s, case, data)) for s in front[:MOST])
    return Recommendation(found, {stack.name: reason for stack, reason in why.items()})


def _nothing(refused: dict[Pair, str], late: dict[Pair, Cost], why: dict[Pair, str]) -> str:
    """What would have to change: by the stack that takes least time, and by the plans that are not safe."""
    told = []
    if late:
        nearest = min(late, key=lambda stack: late[stack].in_all)
        told.append(
            f"{nearest.name} comes nearest: {why[nearest]}; give --wait {math.ceil(late[nearest].in_all)}, a faster "
            f"--link or fewer --parameters. {len(late) - 1} others take longer"
        )
    told += [
        f"{', '.join(stack.name for stack, its in refused.items() if its == reason)}: {reason}"
        for reason in dict.fromkeys(refused.values())
    ]
    return "; ".join(told) or "Every stack breaks a rule: relax whom you trust, or the epsilon."


def _cost(stack: Pair, case: Case) -> Cost:
    """Raises Infeasible where no plan of the masks is safe."""
    row = table()["sums"][stack.sum.partition(":")[0]]
    sent, trips = row["upload_bytes_per_value"] * case.parameters, int(row["trips"])
    if stack.masks:
        threat = "malicious" if "malicious" in stack.sum else "semi-malicious"
        planned = costs(plan(Cohort(case.clients, case.dropout, 0.1, threat)), case.parameters, BITS)
        sent, trips = float(planned.upload_bytes), planned.trips
    seconds = row["client_s_per_value"] * case.parameters * DEVICES[case.device]
    return Cost(kept(stack.layer, case), sent, trips, seconds, 8e-6 * sent / case.link)


def _too_slow(cost: Cost, case: Case) -> str | None:
    if cost.in_all <= case.wait:
        return None
    return (
        f"a client would send {cost.bytes_up / 1e6:.3g} MB a round, {cost.sending:.3g} s on this link, and compute for "
        f"{cost.seconds:.3g} s: more than {case.wait:g} s"
    )


def _beats(one: Cost, other: Cost) -> bool:
    """Whether a stack keeps no less and costs no more, and is better in something that can be told apart."""
    no_less = one.kept >= other.kept - SAME
    costs = [(getattr(one, name), getattr(other, name)) for name in ("bytes_up", "seconds", "trips")]
    less = any(mine < its for mine, its in costs)
    return no_less and all(mine <= its for mine, its in costs) and (less or one.kept > other.kept + SAME)


def _rank(cost: Cost) -> tuple[float, float]:
    return -round(cost.kept / SAME), cost.bytes_up


def _statement(stack: Pair, case: Case) -> tuple[str, ...]:
    """What the stack's secure sum states of such a session, and what the layer's noise holds against."""
    roster = names(min(case.clients, STATED))
    total = Stack(privacy_layers(stack.specs(case, len(roster)))).secure_sum
    told = total.protection(total.session(roster, 16, 1 << (BITS - 1), random=SystemRandom()))
    protects, holds = PROTECTS[stack.layer], AGAINST.get(stack.layer)
    noise = (
        f"epsilon {case.epsilon:g} at delta {DEFAULT_DELTA:g} per {protects}, against {holds}"
        if holds
        else NO_DP
    )
    return (
        noise,
        told.mechanism,
        f"hidden: {told.hidden}",
        f"threat model: {told.threat}",
        f"collusion: {told.collusion}",
    )


def _toml(stack: Pair, case: Case, data: str) -> str:
    few = min(case.clients, REHEARSAL)
    keys = {
        "data": data,
        "partition": "iid",
        "clients": few,
        "model": "logistic",
        "rounds": case.rounds,
        "dropout": 0.0,
        "privacy": stack.specs(case, few),
    }
    head = f"# {stack.name}, for {case.clients} clients. Put your own data, model and loop in place: docs/run.md.\n"
    if few < case.clients:
        head += (
            f"# A rehearsal with {few} clients on one machine{NOISIER if stack.layer != 'none' else ''}.\n"
        )
    return head + tomli_w.dumps(keys)


def to_json(answer: Recommendation) -> dict[str, object]:
    """The answer as a JSON object."""
    listed = [
        {
            "stack": each.stack.name,
            **asdict(each.cost),
            "warning": each.warning,
            "statement": each.statement,
            "toml": each.toml,
        }
        for each in answer.choices
    ]
    return {"choices": listed, "fallen": answer.fallen}
