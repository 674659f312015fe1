"""The ledger's file: SQLite, append-only, synced before a charge counts as made.

Belongs here: the schema, durability, the hash chain. Does not belong here: prices and refusals
(`dp.ledger`), pages (`dp.ledger_page`).

Every operation opens the file, so that threads, processes and restarts share one truth; writers take turns.
A rollback journal with synchronous=EXTRA makes a commit durable before it returns, the directory entry
included: after a kill at any point a charge is in the file wholly or not at all, and it is there if its
caller went on. Each row carries SHA-256 of the row before and itself, and a head (`dp.ledger_head`) carries the terms,
the number of rows and the last of them: edits, rows cut off and other terms show, at the next charge at the latest. An
old copy of the whole file does not show (nothing in a file can tell that; a signed head that somebody keeps does).
Format 1 had no head: such a file is refused by name.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dp.ledger_head import head_of
from protocols.errors import Misuse, StoreError

FORMAT = 2
APPLICATION_ID = 0x5EC1ED6E
_WAIT_SECONDS = 60.0

_SCHEMA = (
    "CREATE TABLE terms (only INTEGER PRIMARY KEY CHECK (only = 1), json TEXT NOT NULL)",
    """CREATE TABLE charges (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL,
        party TEXT NOT NULL, unit TEXT NOT NULL, relation TEXT NOT NULL, event TEXT NOT NULL,
        count INTEGER NOT NULL CHECK (count > 0), note TEXT NOT NULL, digest TEXT NOT NULL)""",
    "CREATE TABLE head (only INTEGER PRIMARY KEY CHECK (only = 1), charges INTEGER NOT NULL, head TEXT NOT NULL)",
    "CREATE TRIGGER head_DELETE BEFORE DELETE ON head BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE INDEX by_event ON charges (unit, relation, party, event, count)",
    *(
        f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        for table in ("terms", "charges")
        for verb in ("UPDATE", "DELETE")
    ),
)
_INSERT = """INSERT INTO charges (at, run, round, party, unit, relation, event, count, note, digest)
    VALUES (:at, :run, :round, :party, :unit, :relation, :event, :count, :note, :digest)"""


@dataclass(frozen=True)
class Entry:
    """One charge: `count` times `event` (its canonical JSON), for `party` ("" for every one), in `round` of
    `run`, written on the day `at` (UTC; files of older versions hold seconds)."""

    id: int
    at: str
    run: str
    round: int
    party: str
    unit: str
    relation: str
    event: str
    count: int
    note: str
    digest: str


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection with durability on, closed afterwards. Raises StoreError for a file that is not a ledger
    of this format."""
    if path.exists() and 0 < path.stat().st_size < 512:  # SQLite would take so short a file for an empty one
        raise StoreError(f"{path.name} is not a ledger; choose another path")
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            for pragma in (
                "journal_mode=DELETE",
                "synchronous=EXTRA",
                "foreign_keys=ON",
                "trusted_schema=OFF",
            ):
                connection.execute(f"PRAGMA {pragma}")
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise StoreError(f"the ledger {path.name} cannot be used: {error}; nothing was charged") from error


def create(path: Path, terms: dict[str, Any]) -> dict[str, Any]:
    """Make the ledger with these terms, or, where it exists, return the terms it has. Atomic; the file gets
    mode 0600."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"the ledger {path.name} cannot be made: {error.strerror}") from error
    with opened(path) as connection, writing(connection):
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("INSERT INTO terms VALUES (1, ?)", (json.dumps(terms, sort_keys=True),))
            head = head_of(terms_in(connection), 0, "")
            connection.execute("INSERT INTO head VALUES (1, 0, ?)", (head,))
            connection.execute(f"PRAGMA user_version={FORMAT}")
        _check_format(connection, path)
        check_head(connection)
        return terms_in(connection)


def load(path: Path) -> dict[str, Any]:
    """The terms of an existing ledger. Raises StoreError where there is none, or where its head does not fit."""
    with opened(path) as connection:
        _check_format(connection, path)
        check_head(connection)
        return terms_in(connection)


def terms_in(connection: sqlite3.Connection) -> dict[str, Any]:
    """The terms as the file holds them."""
    return dict(json.loads(connection.execute("SELECT json FROM terms").fetchone()[0]))


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(f"{path.name} is an SQLite file but not a ledger; choose another path")
    if version != FORMAT:
        raise StoreError(
            f"{path.name} is a ledger of format {version}; this version reads format {FORMAT}: "
            "begin another, with what this one spent taken off its budget"
        )


# -- the head --


def _last(connection: sqlite3.Connection) -> tuple[int, str]:
    """How many charges there are, and the digest of the last ("" for none)."""
    charges = connection.execute("SELECT count(*) FROM charges").fetchone()[0]
    last = connection.execute("SELECT digest FROM charges ORDER BY id DESC LIMIT 1").fetchone()
    return int(charges), str(last[0]) if last else ""


def check_head(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return (charges, head) after comparing them with what the file holds.

    Raises StoreError where charges were cut off or added, or the terms (the budget) changed, behind the ledger's back.
    """
    charges, last = _last(connection)
    head = head_of(terms_in(connection), charges, last)
    kept = connection.execute("SELECT charges, head FROM head").fetchone()
    if kept is None or kept[0] != charges:
        held = "no head" if kept is None else f"a head over {kept[0]} charges"
        raise StoreError(f"the ledger holds {charges} charges and {held}: charges were removed or slipped in")
    if kept[1] != head:
        raise StoreError(
            "the ledger's terms or its last charge are not those of its head: the budget was changed"
        )
    return charges, head


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that excludes other writers; committed and synced when it ends, undone if it
    raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:  # also an interrupt: a transaction left open would lock out every other writer
        if connection.in_transaction:  # SQLite ends it by itself where the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def append(connection: sqlite3.Connection, rows: Iterable[dict[str, Any]]) -> tuple[Entry, ...]:
    """Add rows inside `writing`. Each holds run, round, party, unit, relation, event, count and note.

    Raises StoreError where the head does not fit.
    """
    charges, _ = check_head(connection)
    _, last = _last(connection)
    added = []
    for row in rows:
        fields = {"at": _today(), **row}
        last = _digest(last, fields)
        cursor = connection.execute(_INSERT, {**fields, "digest": last})
        added.append(Entry(id=int(cursor.lastrowid or 0), digest=last, **fields))
    charges += len(added)
    head = head_of(terms_in(connection), charges, last)
    connection.execute("UPDATE head SET charges = ?, head = ?", (charges, head))
    return tuple(added)


def _today() -> str:
    """The day, UTC: a time of day would keep how long clients trained, which follows their examples."""
    return datetime.now(UTC).date().isoformat()


def _digest(before: str, fields: dict[str, Any]) -> str:
    text = before + json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    """Every charge in order."""
    # the columns are Entry's fields, in order
    for row in connection.execute("SELECT * FROM charges ORDER BY id"):
        yield Entry(*row)


def totals(connection: sqlite3.Connection) -> list[tuple[str, str, str, str, int]]:
    """(unit, relation, party, event, count) with the counts added up."""
    return list(
        connection.execute(
            "SELECT unit, relation, party, event, sum(count) FROM charges GROUP BY unit, relation, party, event"
        )
    )


def verify(connection: sqlite3.Connection) -> tuple[int, str]:
    """Check SQLite's own integrity, the hash chain and the head; return what `check_head` does.

    Raises StoreError naming the first row that does not fit.
    """
    problem = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if problem != "ok":
        raise StoreError(f"the ledger's file is damaged: {problem}")
    before = ""
    for entry in entries(connection):
        fields = {
            name: getattr(entry, name) for name in Entry.__dataclass_fields__ if name not in ("id", "digest")
        }
        if entry.digest != _digest(before, fields):
            raise StoreError(f"charge {entry.id} of the ledger was edited, or one before it removed")
        before = entry.digest
    return check_head(connection)


def checked_text(name: str, value: str) -> str:
    """Short, printable text for a column. Raises Misuse."""
    if type(value) is not str or len(value) > 500 or not value.isprintable():
        raise Misuse(f"{name}: expected printable text of at most 500 characters, got {value!r:.60}")
    return value
