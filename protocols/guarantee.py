"""Guarantees: what differential privacy a run can claim, one line per unit, relation, adversary and delta.

Belongs here: the line, in prose and in JSON. Does not belong here: how an epsilon is found (accountants), what
happened (`protocols.statement.PrivacyEvent`). JSON has no infinity: a price that no accountant can bound is the text
"infinite" in every file.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import Any, Self

from protocols.errors import Misuse

INFINITE, SEVERAL = "infinite", "several"
AGAINST = {
    "server": "everybody, the server included",
    "clients": "other clients and the public, not the server",
    "public": "the public that sees released models only, neither the server nor other clients",
}
"""Whom a guarantee holds against, by an event's adversary: the strongest first, each one sees what later ones see."""
EVALUATION = "evaluation/"
"""How the name of a layer begins that noises an evaluation of clients' data: a release beside the training."""


@dataclass(frozen=True)
class Guarantee:
    """One line of differential privacy: whose data (`unit`), which neighbours (`relation`), against whom
    (`adversary`, a key of `AGAINST`), at what (epsilon, delta) by which accountant, from which layers.

    epsilon is infinity for noise that protects nobody. Guarantees that differ in one of these are statements of
    their own: their epsilons are not added up, and neither is the other's. alone: the run releases training and
    evaluation, and this line counts one of them.
    """

    unit: str
    relation: str
    adversary: str
    epsilon: float
    delta: float
    accountant: str
    layers: tuple[str, ...] = ()
    alone: bool = False

    def __str__(self) -> str:
        price = (
            f"{INFINITE} (the noise protects nobody)"
            if self.epsilon == math.inf
            else rounded_up(self.epsilon)
        )
        return (
            f"epsilon {price} at delta {rounded_up(self.delta)}, per {self.unit}, {self.relation} neighbours, by "
            f"{self.accountant}, against {AGAINST.get(self.adversary, self.adversary)}{self._of}"
        )

    @property
    def _of(self) -> str:
        if self.layers and all(layer.startswith(EVALUATION) for layer in self.layers):
            return ", for the evaluation alone"
        return ", for the training alone" * self.alone

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; `from_json` is its inverse. `alone` is there where it is true."""
        facts = asdict(self) | {"epsilon": price_to_json(self.epsilon), "layers": list(self.layers)}
        return {key: value for key, value in facts.items() if key != "alone" or value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises Misuse for an unknown key, and for an epsilon that is no price."""
        try:
            line = cls(**{**data, "layers": tuple(data["layers"])})
        except (KeyError, TypeError) as error:
            raise Misuse(f"not a guarantee: {error}") from None
        epsilon = price_from_json(line.epsilon)
        if epsilon is None:
            raise Misuse("not a guarantee: it has no epsilon")
        return replace(line, epsilon=epsilon)


def rounded_up(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, never less than it is: a price is not made better by being printed.

    ``rounded_up(2.71801)`` is "2.719". Infinity, NaN and zero as they are.
    """
    exact = Decimal(repr(float(value)))
    if not exact.is_finite() or not exact:
        return f"{value:g}"
    step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{float(exact.quantize(step, ROUND_CEILING)):.{digits}g}"


def only_epsilon(guarantees: Sequence[Guarantee]) -> float | None:
    """Return the epsilon of the only guarantee; None where there is none (no differential privacy).

    Raises Misuse where there are several: one number would stand for data, neighbours, adversaries or deltas that
    differ. Read the guarantees then.
    """
    if len(guarantees) > 1:
        lines = "; ".join(str(line) for line in guarantees)
        raise Misuse(f"no single epsilon: there are {len(guarantees)} guarantees, read .guarantees: {lines}")
    return guarantees[0].epsilon if guarantees else None


def price_to_json(epsilon: float | None) -> float | str | None:
    """Return an epsilon as a JSON value: its number, "infinite" for infinity, None without DP."""
    return INFINITE if epsilon == math.inf else epsilon


def price_from_json(value: object) -> float | None:
    """Inverse of `price_to_json`. Raises Misuse for anything else."""
    if value is None or value == INFINITE:
        return None if value is None else math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Misuse(f'expected epsilon to be a number, "{INFINITE}" or null, got {value!r}')
    return float(value)


def price_shown(guarantees: Sequence[Guarantee]) -> float | str | None:
    """Return one JSON value for a table's cell: the only epsilon, "several", or None without DP."""
    return SEVERAL if len(guarantees) > 1 else price_to_json(only_epsilon(guarantees))
