"""`secagg verify --ledger`: what holds of a privacy ledger, and its signed head. The checks are `dp.ledger`'s."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fl.cli.output import emit_json, tell

if TYPE_CHECKING:
    from dp.ledger import Ledger
    from dp.ledger_head import LedgerVerdict, SignedHead


def show_ledger(path: Path, key: bytes | None, head: str | None, sign: Path | None, as_json: bool) -> None:
    """Check a ledger, print what was established, or its signed head. Raises Misuse, StoreError."""
    from dp import Ledger
    from protocols.errors import Misuse
    from protocols.identity import Identity

    if not path.is_file():
        raise Misuse(f"no ledger at {path}")
    ledger = Ledger(path)
    verdict = ledger.verify(None if head is None else _signed_head(Path(head)), key)
    if sign is not None:
        emit_json(ledger.sign_head(Identity.load(sign)).to_json())
        return
    verified = verdict.level == "verified"
    facts = {
        "verdict": verdict.level,
        "verified": verified,
        **asdict(verdict),
        "terms": ledger.terms.to_plain(),
    }
    tell(facts, as_json, *_lines(path, ledger, verdict))


def _lines(path: Path, ledger: "Ledger", verdict: "LedgerVerdict") -> Iterator[str]:
    yield f"{path}: {verdict.level}; {verdict.charges} charges\nhead {verdict.head}"
    for spent in ledger.spent():
        yield f"{spent}; the budget is {ledger.terms.epsilon:g}"
    if verdict.kept is not None:
        yield f"The kept head covers the budget and the first {verdict.kept} charges: nothing there was changed."
    if verdict.level != "verified":
        yield (
            "Give --head (a signed head that somebody else kept) and --public-key (the signer's) to rule out a rewrite."
        )


def _signed_head(path: Path) -> "SignedHead":
    """Return the signed head in a file. Raises Misuse."""
    from dp.ledger_head import SignedHead
    from protocols.errors import Misuse

    try:
        return SignedHead.from_json(json.loads(path.read_text()))
    except (OSError, ValueError):
        raise Misuse(
            f"--head: expected a file that `secagg verify --ledger --sign` printed, got {path}"
        ) from None
