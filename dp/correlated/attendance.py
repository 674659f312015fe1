"""A party's own rules of taking part, kept in its own store: rows rise, none is sent twice, none comes too early.

A row is taken, durably, before anything of it may leave; a round that is abandoned afterwards, or says so, gives it
not back. The terms of the first row (C', clip, grid, and whose turns follow a roster, the roster) bind all later ones.
The record outlives the run, or a server could begin it anew. What does not belong here: what is sent, its price.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.codec import Record
from protocols.errors import Misuse, PolicyRefusal, refuse
from protocols.layers import RoundFacts
from protocols.party_state import KEPT, LASTING
from protocols.store import Store


@dataclass(frozen=True)
class Rows(Record):
    """Rows that a party took in one run, rising. terms: digest of what all of them are made with."""

    terms: bytes = b""
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Attendance:
    """separation: between two rows, at least. participations: rows at most."""

    separation: int
    participations: int

    def comes(self, store: Store, scope: str, owner: str, row: int) -> bool:
        """Whether this party may take `row` of the run `scope`: a device that comes by itself asks before it does."""
        return self.allows(_read(store.get(_key(scope, owner))).rows, row)

    def allows(self, rows: Sequence[int], row: int) -> bool:
        """Whether a party that was in `rows`, rising, may be in `row`."""
        return not self._refusal(rows, row)

    def take(self, facts: RoundFacts, owner: str, terms: bytes) -> None:
        """Take the round's row for `owner` (a layer's name), durably. terms: digest of C', clip and grid.

        Raises PolicyRefusal for a row that was taken, comes too early or is one too many, ProtocolViolation for other
        terms than the first row's, Misuse without a store of the party's own.
        """
        if facts.store is None:
            raise Misuse(
                f"{owner}: correlated noise needs a store in which every party counts its own rows: play the rounds "
                "with a Federation, in memory or on Flower"
            )
        with facts.store.transaction() as t:
            held = _read(t.get(_key(facts.scope, owner)))
            if why := self._refusal(held.rows, facts.number):
                raise PolicyRefusal(f"{owner}: {facts.whose}: {why}; this party sends nothing in this row")
            if held.rows and held.terms != terms:
                raise refuse(
                    f"{owner}: the strategy, the clip, the grid, the noise or (where turns follow the roster) who is "
                    "asked is not what this run began with"
                )
            t.put(_key(facts.scope, owner), Rows(terms, (*held.rows, facts.number)).encode())

    def _refusal(self, rows: Sequence[int], row: int) -> str:
        last = rows[-1] if rows else None
        if last is not None and row <= last:
            return f"row {last} was taken already, and rows rise: none is sent twice"
        if last is not None and row - last < self.separation:
            return f"row {last} was taken, and the next is row {last + self.separation} at the earliest"
        if len(rows) >= self.participations:
            return f"{len(rows)} rows were taken, as many as this run allows"
        return ""


def _read(data: bytes | None) -> Rows:
    return Rows() if data is None else Rows.decode(data)


def _key(scope: str, owner: str) -> str:
    return f"{KEPT}{scope}/{owner}{LASTING}"
