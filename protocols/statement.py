"""Statements: frozen, versioned facts of what a stack protects. What does not belong here: prices
(accountants set them).

A Protection comes from a secure sum, an Event from a layer that adds noise; a Statement gathers both for one
run. JSON is strict: unknown versions and keys are refused, so that an old file is read or refused by name. JSON
has no infinity: a price that no accountant can bound is the text "infinite" in every file.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from protocols.errors import Misuse

VERSION = 1
INFINITE = "infinite"
SIMULATED = "simulated parties"
PLAYED_HERE = f"{SIMULATED}: one process played clients, server and holders, so nothing was hidden from it"


@dataclass(frozen=True)
class Protection:
    """What a secure sum protects.

    mechanism: its name in words. hidden: what nobody but its owner learns. learns: party -> what it learns.
    assumptions: what this rests on, each with its source. threat: one of `protocols.policy.THREATS`.
    collusion: how many parties may pool what they know. limits: what is not protected. parameters: public
    numbers (threshold, degree, bits).
    """

    mechanism: str
    threat: str
    hidden: str
    learns: dict[str, str]
    assumptions: tuple[str, ...]
    collusion: str
    limits: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)


def played_here(protection: Protection) -> Protection:
    """Return the protection of a session whose parties one process played: it says so, whatever keys were given."""
    if any(limit.startswith(f"{SIMULATED}:") for limit in protection.limits):
        return protection
    return replace(protection, limits=(*protection.limits, PLAYED_HERE))


@dataclass(frozen=True)
class Event:
    """Something that spent privacy: `kind` names its class in `dp.events`, `facts` are that class's fields
    (JSON values).

    unit: "example" or "client". relation: "zero-out", "add-remove" or "replace". party: whose data it spends
    ("" for all). adversary: against whom it holds ("server", "clients", "public").
    """

    kind: str
    facts: dict[str, Any]
    unit: str
    relation: str
    adversary: str = "public"
    party: str = ""


@dataclass(frozen=True)
class Statement:
    """What was protected, from whom, under which assumption, at what price.

    layers: each layer's one-sentence description in the client's order. protection: the secure sum's. events:
    all DP events so far. notes: what a reader must know besides (simulated parties, plaintext metrics, sums
    that reveal). epsilon, delta: the price of the events by the named accountant, None without DP, infinity for
    noise that protects nobody.
    """

    layers: tuple[str, ...]
    protection: Protection
    events: tuple[Event, ...] = ()
    notes: tuple[str, ...] = ()
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    relation: str | None = None
    accountant: str | None = None
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; `from_json` is its inverse."""
        plain = asdict(self) | {"epsilon": price_to_json(self.epsilon)}
        return dict(json.loads(json.dumps(plain)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises Misuse for an unknown version or key, and for an epsilon that is no price."""
        if data.get("version") != VERSION:
            raise Misuse(f"expected a statement of version {VERSION}, got {data.get('version')!r}")
        try:
            body = dict(data)
            body["protection"] = Protection(**_tuples(body["protection"], "assumptions", "limits"))
            body["events"] = tuple(Event(**event) for event in body["events"])
            body["epsilon"] = price_from_json(body.get("epsilon"))
            return cls(**_tuples(body, "layers", "notes"))
        except (KeyError, TypeError) as error:
            raise Misuse(f"not a statement of version {VERSION}: {error}") from None

    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON (32 bytes)."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).digest()

    def describe(self) -> str:
        """Return the statement as plain prose, a line per fact."""
        p = self.protection
        lines = [
            f"Layers: {', '.join(self.layers) or 'none'}",
            f"Secure sum: {p.mechanism} (threat model: {p.threat})",
        ]
        lines.append(f"Hidden: {p.hidden}")
        lines += [f"{who} learns: {what}" for who, what in p.learns.items()]
        lines.append(f"Collusion: {p.collusion}")
        lines += [f"Assumes: {text}" for text in p.assumptions]
        lines += [f"Not protected: {text}" for text in p.limits]
        lines += [f"Note: {text}" for text in self.notes]
        if self.epsilon is None:
            lines.append("Differential privacy: none; the sum itself may reveal an update")
        else:
            worthless = self.epsilon == math.inf
            price = f"{INFINITE} (the noise protects nobody)" if worthless else f"{self.epsilon:.4g}"
            lines.append(
                f"Differential privacy: epsilon {price} at delta {self.delta:.3g}, per {self.unit}, "
                f"{self.relation} neighbours, by {self.accountant}"
            )
        return "\n".join(lines)


def price_to_json(epsilon: float | None) -> float | str | None:
    """Return an epsilon as a JSON value: its number, "infinite" for infinity, None without DP."""
    return INFINITE if epsilon == math.inf else epsilon


def price_from_json(value: Any) -> float | None:
    """Inverse of `price_to_json`. Raises Misuse for anything else."""
    if value is None or value == INFINITE:
        return None if value is None else math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Misuse(f'expected epsilon to be a number, "{INFINITE}" or null, got {value!r}')
    return float(value)


def _tuples(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: tuple(value) if key in names else value for key, value in data.items()}
