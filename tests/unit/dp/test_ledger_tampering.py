"""A ledger that was changed from outside: what is found from the file alone, and what a kept signed head finds."""

import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from dp import Ledger
from dp.accountants import epsilon
from dp.events import (
    repeat,
)
from dp.ledger_head import SignedHead, head_of
from protocols.errors import Misuse, StoreError
from protocols.identity import Identity
from tests.unit.dp.test_ledger import ROUND, STEP, new

OLD = Path(__file__).parents[2] / "vectors" / "dp" / "ledger-v1.sqlite"


def test_rows_cannot_be_changed_or_removed(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    ledger.charge(ROUND)
    connection = sqlite3.connect(ledger.path)
    for statement in ("UPDATE charges SET count = 0", "DELETE FROM charges", "UPDATE terms SET json = ''"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()
    assert stat.S_IMODE(os.stat(ledger.path).st_mode) == 0o600


def test_an_edited_row_is_found(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    for round in range(3):
        ledger.charge(ROUND, run="r", round=round)
    ledger.verify()
    connection = sqlite3.connect(ledger.path)
    connection.execute("DROP TRIGGER charges_UPDATE")
    connection.execute("UPDATE charges SET round = 9 WHERE id = 2")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="charge 2"):
        ledger.verify()


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 100, b"x"])
def test_foreign_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ledger"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.ledger"):
        new(tmp_path)
    foreign = tmp_path / "b.ledger"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE cats (name TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="not a ledger"):
        Ledger(foreign)


def test_another_format_is_refused_by_number(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    connection = sqlite3.connect(ledger.path)
    connection.execute("PRAGMA user_version=3")
    connection.close()
    with pytest.raises(StoreError, match="format 3"):
        Ledger(ledger.path)


def test_a_ledger_of_format_1_is_refused_by_name_and_left_as_it_was(tmp_path: Path) -> None:
    copy = Path(shutil.copy(OLD, tmp_path / "old.ledger"))
    for terms in ({}, {"epsilon": 2.0, "delta": 1e-5}):
        with pytest.raises(
            StoreError, match=r"old\.ledger is a ledger of format 1; this version reads format 2"
        ):
            Ledger(copy, **terms)
    assert copy.read_bytes() == OLD.read_bytes()


def test_charges_of_two_units_have_no_single_epsilon(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", epsilon=9.0, delta=1e-5, accountant="rdp")
    ledger.charge(STEP, 40)
    ledger.charge(ROUND, 2)
    prices = {str(one.unit): one.epsilon for one in ledger.spent()}
    assert max(prices.values()) == prices["example"] == epsilon([repeat(STEP, 40)], 1e-5, "rdp")
    with pytest.raises(Misuse, match=r"no single epsilon: .*per client.*per example.*read spent"):
        ledger.epsilon()


def tampered(ledger: Ledger, *statements: str) -> None:
    """Run SQL on the file, as whoever can write it can."""
    connection = sqlite3.connect(ledger.path)
    for name in ("terms", "charges", "head"):
        for verb in ("UPDATE", "DELETE"):
            connection.execute(f"DROP TRIGGER IF EXISTS {name}_{verb}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


RAISED = """UPDATE terms SET json = replace(json, '"epsilon": 2.0', '"epsilon": 200.0')"""


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM charges WHERE id = 3", "2 charges and a head over 3"),
        (RAISED, "budget was changed"),
        ("DELETE FROM head", "no head"),
        ("UPDATE head SET charges = 2", "head over 2"),
        ("DELETE FROM charges WHERE id = 2", "charge 3"),
    ],
)
def test_a_charge_cut_off_or_a_budget_raised_is_found_at_the_latest_by_the_next_charge(
    tmp_path: Path, statement: str, why: str
) -> None:
    """verify() passed after the last charge was deleted and the budget raised."""
    ledger = new(tmp_path)
    for _ in range(3):
        ledger.charge(ROUND)
    assert ledger.verify().level == "internally consistent only"
    tampered(ledger, statement)
    with pytest.raises(StoreError, match=why):
        ledger.verify()
    with pytest.raises(StoreError):
        ledger.charge(ROUND)
    with pytest.raises(StoreError):
        Ledger(ledger.path)


def forged(ledger: Ledger, *statements: str) -> None:
    """The same by somebody who also writes a head that fits."""
    tampered(ledger, *statements)
    connection = sqlite3.connect(ledger.path)
    terms = json.loads(connection.execute("SELECT json FROM terms").fetchone()[0])
    digests = [row[0] for row in connection.execute("SELECT digest FROM charges ORDER BY id")]
    made = head_of(terms, len(digests), digests[-1] if digests else "")
    connection.execute("UPDATE head SET charges = ?, head = ?", (len(digests), made))
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "why"),
    [("DELETE FROM charges WHERE id = 3", "cut short"), (RAISED, r"terms \(the budget\)")],
)
def test_a_kept_signed_head_finds_what_a_forged_file_hides(tmp_path: Path, statement: str, why: str) -> None:
    ledger, signer = new(tmp_path), Identity.generate("ward 7")
    ledger.charge(ROUND)
    early = ledger.sign_head(signer)
    ledger.charge(ROUND, 2)
    ledger.charge(ROUND)
    kept = SignedHead.from_json(json.loads(json.dumps(ledger.sign_head(signer).to_json())))
    ledger.charge(ROUND)
    found = ledger.verify(kept, signer.public)
    assert (found.level, found.charges, found.kept) == ("verified", 4, 3)
    assert ledger.verify(early, signer.public).kept == 1
    assert ledger.verify(kept).level == "fits the head"
    with pytest.raises(StoreError, match="not signed by"):
        ledger.verify(kept, Identity.generate("other").public)
    with pytest.raises(Misuse, match="signed head"):
        ledger.verify(None, signer.public)
    forged(ledger, statement, "DELETE FROM charges WHERE id = 4")
    assert ledger.verify().level == "internally consistent only"
    with pytest.raises(StoreError, match=why):
        ledger.verify(kept, signer.public)


def test_a_head_that_was_edited_is_no_head(tmp_path: Path) -> None:
    ledger, signer = new(tmp_path), Identity.generate("ward 7")
    head = ledger.sign_head(signer)
    assert ledger.verify(head, signer.public).kept == 0
    data = head.to_json()
    for change in (
        {"charges": 1},
        {"charges": "0"},
        {"terms": {}},
        {"format": "x"},
        {"colour": 1},
        {"last": 3},
    ):
        with pytest.raises(Misuse, match="secagg-ledger-head/1"):
            SignedHead.from_json(data | change)
    with pytest.raises(Misuse):
        SignedHead.from_json([])
    moved = SignedHead.from_json(data | {"charges": 1, "head": head_of(head.terms, 1, "")})
    with pytest.raises(StoreError, match="not signed by"):
        ledger.verify(moved, signer.public)


def test_a_broken_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    ledger.charge(ROUND)
    connection = sqlite3.connect(ledger.path)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("DELETE FROM sqlite_master WHERE name = 'by_event'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="the ledger's file is damaged: "):
        ledger.verify()


def test_a_kept_head_over_nothing_fits_every_ledger_of_its_terms(tmp_path: Path) -> None:
    ledger, signer = new(tmp_path), Identity.generate("ward 7")
    none = ledger.sign_head(signer)
    assert (none.charges, none.last, none.head) == (0, "", head_of(none.terms, 0, ""))
    for count in (1, 2):
        entry = ledger.charge(ROUND)
        head = ledger.sign_head(signer)
        assert (head.charges, head.last) == (count, entry.digest)
        for kept, covers in ((none, 0), (head, count)):
            found = ledger.verify(kept)
            assert (found.level, found.charges, found.kept, found.head) == (
                "fits the head",
                count,
                covers,
                head.head,
            )
    plain = ledger.verify()
    assert (plain.level, plain.charges, plain.kept) == ("internally consistent only", 2, None)


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        ([RAISED], r"terms \(the budget\)"),
        (["UPDATE charges SET digest = 'x' WHERE id = 1"], "charges"),
        ([RAISED, "UPDATE charges SET digest = 'x' WHERE id = 1"], r"terms \(the budget\)"),
    ],
)
def test_what_does_not_fit_a_kept_head_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: list[str], what: str
) -> None:
    ledger, signer = new(tmp_path), Identity.generate("ward 7")
    ledger.charge(ROUND)
    kept = ledger.sign_head(signer)
    forged(ledger, *statements)
    monkeypatch.setattr(
        "dp.ledger.store.verify", lambda connection: (1, "head")
    )  # a chain that was forged too
    with pytest.raises(StoreError, match=f"^the ledger's {what} are not those of the kept head"):
        ledger.verify(kept)


def test_what_was_tampered_with_is_told_apart(tmp_path: Path) -> None:
    ledger = new(tmp_path)
    ledger.charge(ROUND)
    tampered(ledger, "DELETE FROM head")
    with pytest.raises(
        StoreError, match=r"^the ledger holds 1 charges and no head: charges were removed or slipped in"
    ):
        ledger.verify()


def test_a_signed_head_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    data = new(tmp_path).sign_head(Identity.generate("ward 7")).to_json()
    assert data["format"] == "secagg-ledger-head/1"
    for change, why in (
        ({"charges": "0"}, "a field has another type"),
        ({"charges": True}, "a field has another type"),
        ({"signature": 3}, "a field has another type"),
        ({"last": "x"}, "its head is not that"),
        ({"terms": {"epsilon": float("nan")}}, "not JSON compliant"),
        ({"format": None}, "expected a signed head"),
    ):
        with pytest.raises(Misuse, match=why):
            SignedHead.from_json(data | change)


def test_a_ledgers_folder_is_made_and_may_be_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made = Ledger(tmp_path / "deep" / "deeper" / name, epsilon=1.0, delta=1e-5)
        assert made.verify().charges == 0
        assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o600
        terms = sqlite3.connect(made.path).execute("SELECT json FROM terms").fetchone()[0]
        assert terms == '{"accountant": "pld", "dataset": "", "delta": 1e-05, "epsilon": 1.0}'
