"""Statements: frozen, versioned facts of what a stack protects. What does not belong here: prices
(accountants set them).

A Protection comes from a secure sum, a PrivacyEvent from a layer that adds noise, a `Guarantee` from an accountant; a
Statement gathers them for one run. JSON is strict: unknown versions and keys are refused, so that an old file is
read or refused by name.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from protocols.errors import Misuse
from protocols.guarantee import Guarantee, only_epsilon
from protocols.policy import THREATS

VERSION = 2
SEVERAL = ("clients", "other clients", "decryptors")
"""Who learn something together, as statements name them."""
ELSEWHERE = "; in other sessions "
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


def weakest(one: Protection, *others: Protection | None) -> Protection:
    """Return what holds in all sessions of one run: the facts of the session that promises the fewest survivors in a
    total (of equals, the one of the fewest clients), the weakest threat and the fewest corrupt clients of all, and
    every kind of mechanism, of what is learned, of assumption and of limit.
    """
    told = [one, *(other for other in others if other is not None)]
    counts = ("least_survivors", "min_survivors", "clients")
    told.sort(key=lambda p: [p.parameters.get(name, 0) for name in counts])
    least, stood = told[0], min(told, key=lambda p: p.parameters.get("corrupt", 0))
    return replace(
        least,
        threat=min(
            (p.threat for p in told), key=lambda threat: THREATS.index(threat) if threat in THREATS else -1
        ),
        mechanism=_every([p.mechanism for p in told]),
        learns={
            who: _every([p.learns[who] for p in told if who in p.learns]) for p in told for who in p.learns
        },
        assumptions=_kinds([p.assumptions for p in told]),
        collusion=stood.collusion,
        limits=_kinds([p.limits for p in told]),
        parameters=least.parameters | {k: v for k, v in stood.parameters.items() if k == "corrupt"},
    )


def _every(told: Sequence[str]) -> str:
    return ELSEWHERE.join(_kinds([text.split(ELSEWHERE) for text in told]))


def _kinds(told: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the first session's texts, and one of each further kind. Texts are of one kind if they agree up to their
    first number.
    """
    more = {re.split(r"\d", text)[0]: text for texts in reversed(told[1:]) for text in texts}
    known = {re.split(r"\d", text)[0] for text in told[0]}
    return (*told[0], *(text for kind, text in more.items() if kind not in known))


def played_here(protection: Protection) -> Protection:
    """Return the protection of a session whose parties one process played: it says so, whatever keys were given."""
    if any(limit.startswith(f"{SIMULATED}:") for limit in protection.limits):
        return protection
    return replace(protection, limits=(*protection.limits, PLAYED_HERE))


@dataclass(frozen=True)
class PrivacyEvent:
    """Something that spent privacy: `kind` names its class in `dp.events`, `facts` are that class's fields
    (JSON values).

    unit: "example" or "client". relation: "zero-out", "add-remove" or "replace". party: whose data it spends
    ("" for all). adversary: against whom it holds, a key of `AGAINST`. layer: the name of the layer that spent it.
    """

    kind: str
    facts: dict[str, Any]
    unit: str
    relation: str
    adversary: str = "public"
    party: str = ""
    layer: str = ""


@dataclass(frozen=True)
class Statement:
    """What was protected, from whom, under which assumption, at what price: `result.statement` of a run.

        print(statement)                                                       # `describe()`, a line per fact
        Path("statement.json").write_text(json.dumps(statement.to_json()))      # `from_json` reads it, or raises Misuse

    layers: each layer's one-sentence description in the client's order. protection: the secure sum's. events:
    all DP events so far. notes: what a reader must know besides (simulated parties, plaintext metrics, sums
    that reveal). guarantees: the price of the events, a line per unit, relation, adversary and delta; none without DP.
    """

    layers: tuple[str, ...]
    protection: Protection
    events: tuple[PrivacyEvent, ...] = ()
    notes: tuple[str, ...] = ()
    guarantees: tuple[Guarantee, ...] = ()
    version: int = VERSION

    @property
    def epsilon(self) -> float | None:
        """The only guarantee's epsilon, None without DP. Raises Misuse where there are several guarantees."""
        return only_epsilon(self.guarantees)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; `from_json` is its inverse."""
        plain = asdict(self) | {"guarantees": [line.to_json() for line in self.guarantees]}
        return dict(json.loads(json.dumps(plain)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises Misuse for another version, an unknown key, and an epsilon that is no price."""
        if data.get("version") != VERSION:
            raise Misuse(f"expected a statement of version {VERSION}, got {data.get('version')!r}")
        try:
            body = dict(data)
            body["protection"] = Protection(**_tuples(body["protection"], "assumptions", "limits"))
            body["events"] = tuple(PrivacyEvent(**event) for event in body["events"])
            body["guarantees"] = tuple(Guarantee.from_json(line) for line in body["guarantees"])
            return cls(**_tuples(body, "layers", "notes"))
        except (KeyError, TypeError) as error:
            raise Misuse(f"not a statement of version {data['version']}: {error}") from None

    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON (32 bytes)."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).digest()

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """Return the statement as plain prose, a line per fact."""
        p = self.protection
        lines = [
            f"Layers before the secure sum: {', '.join(self.layers) or 'none; updates enter the sum as they are'}",
            f"Secure sum: {p.mechanism} (threat model: {p.threat})",
        ]
        lines.append(f"Hidden: {p.hidden}")
        lines += [f"{who} learn{'' if who in SEVERAL else 's'}: {what}" for who, what in p.learns.items()]
        lines.append(f"Collusion: {p.collusion}")
        lines += [f"Assumes: {text}" for text in p.assumptions]
        lines += [f"Not protected: {text}" for text in p.limits]
        lines += [f"Note: {text}" for text in self.notes]
        lines += [f"Differential privacy: {line}" for line in self.guarantees]
        if not self.guarantees:
            lines.append("Differential privacy: none; the sum itself may reveal an update")
        return "\n".join(lines)


def _tuples(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: tuple(value) if key in names else value for key, value in data.items()}
