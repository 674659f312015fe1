"""The statement of a run so far: what its stack protects, at what price. No files, no rounds."""

from collections.abc import Iterable

from fl.account import Account
from protocols.stack import Stack
from protocols.statement import Protection, Statement

SUM_NOTE = (
    "without differential privacy the sum itself can reveal an update: "
    "crafted models, sybils and small cohorts do it"
)


def clipped_note(share: float) -> str:
    """Return the statement's note on the largest share of a round's coordinates that was clipped."""
    return f"up to {share:.2%} of a round's coordinates were clipped to the public range"


def statement_of(
    stack: Stack, protection: Protection, account: Account, notes: Iterable[str] = (), clipped: float = 0.0
) -> Statement:
    """Return what was protected so far.

    protection: of the last session. notes: what engine and caller add. clipped: the largest share of a round's
    coordinates that was clipped.
    """
    said = [*notes, *(() if account.events else (SUM_NOTE,)), *((clipped_note(clipped),) if clipped else ())]
    return account.statement(stack, protection, said)
