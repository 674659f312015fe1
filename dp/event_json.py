"""The strict JSON form of events, for ledgers and statements: one canonical text per event, everything else
refused."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dp.events import KINDS, Event, Relation, Unit, UnknownEvent
from protocols.errors import Misuse, require
from protocols.statement import PrivacyEvent

VERSION = 1
_MAX_DEPTH = 16
_MAX_CHARACTERS = 4_000_000


def encode(event: Event) -> str:
    """The canonical JSON text of `event`: sorted keys, no spaces, the version at the top. Raises
    UnknownEvent."""
    return json.dumps(
        {"version": VERSION, **to_plain(event)}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def decode(text: str) -> Event:
    """The event that `text` stands for. Raises UnknownEvent for an unknown kind or version, Misuse for
    anything not exact."""
    require(len(text) <= _MAX_CHARACTERS, f"an event of at most {_MAX_CHARACTERS} characters", len(text))
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Misuse(f"expected the JSON of an event: {error}") from None
    if not isinstance(data, dict) or data.pop("version", None) != VERSION:
        raise UnknownEvent(
            f"expected an event with version {VERSION}; a newer toolkit may have written this one"
        )
    return from_plain(data)


def to_plain(event: Event) -> dict[str, Any]:
    """`event` as JSON types, without the version."""
    if type(event) not in KINDS.values():
        raise UnknownEvent(f"expected an event of dp.events, got {type(event).__name__}")
    return {"kind": type(event).__name__, **{f.name: _plain(getattr(event, f.name)) for f in fields(event)}}


def from_plain(data: object, depth: int = 0) -> Event:
    """The event for what `to_plain` gave. Raises as `decode` does."""
    if not isinstance(data, Mapping) or depth > _MAX_DEPTH:
        raise Misuse(f"expected a JSON object for an event, nested at most {_MAX_DEPTH} deep")
    kind = KINDS.get(str(data.get("kind")))
    if kind is None:
        raise UnknownEvent(f"expected one of {', '.join(KINDS)}, got {data.get('kind')!r}")
    names = {f.name for f in fields(kind)}
    if set(data) != names | {"kind"}:
        raise Misuse(
            f"expected exactly the fields {sorted(names)} for {data['kind']}, got {sorted(set(data) - {'kind'})}"
        )
    values: dict[str, Any] = {f.name: _value(f.name, f.type, data[f.name], depth) for f in fields(kind)}
    return kind(**values)


def _plain(value: object) -> object:
    if isinstance(value, Event):
        return to_plain(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Unit | Relation) else value


def _value(name: str, wanted: object, value: object, depth: int) -> object:
    if wanted is Event:
        return from_plain(value, depth + 1)
    if name == "parts":
        if not isinstance(value, list):
            raise Misuse("expected a JSON list of events")
        return tuple(from_plain(item, depth + 1) for item in value)
    if wanted in (Unit, Relation):
        allowed = [str(item) for item in wanted]  # a list: what came may have no hash
        if value not in allowed:
            raise Misuse(f"{name}: expected one of {allowed}, got {value!r}")
        return wanted(value)
    if type(value) is not wanted:
        raise Misuse(
            f"{name}: expected a JSON value of type {getattr(wanted, '__name__', wanted)}, got {value!r}"
        )
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Misuse("expected every key of a JSON object once")
    return dict(pairs)


def _refuse_constant(name: str) -> float:
    raise Misuse(f"expected finite numbers, got {name}")


def to_fact(event: Event, adversary: str = "public", party: str = "") -> PrivacyEvent:
    """`event` as a fact of a `protocols.statement.Statement`: against whom it holds, and whose data it
    spends."""
    plain = to_plain(event)
    facts = {name: value for name, value in plain.items() if name not in ("kind", "unit", "relation")}
    return PrivacyEvent(type(event).__name__, facts, str(event.unit), str(event.relation), adversary, party)


def from_fact(fact: PrivacyEvent) -> Event:
    """The event that a statement's fact stands for. Raises as `decode` does."""
    return from_plain({**fact.facts, "kind": fact.kind, "unit": fact.unit, "relation": fact.relation})
