"""The statement of a run so far: what its stack protects, at what price. No files, no rounds."""

from collections.abc import Iterable

from fl.account import Account
from fl.round.remarks import notes_of
from fl.round.result import RoundResult
from protocols.layers import RunFacts
from protocols.stack import Stack
from protocols.statement import Protection, Statement

SUM_NOTE = (
    "without differential privacy the sum itself can reveal an update: "
    "crafted models, sybils and small cohorts do it"
)


def statement_of(
    stack: Stack,
    protection: Protection,
    account: Account,
    notes: Iterable[str] = (),
    history: Iterable[RoundResult] = (),
    run: RunFacts | None = None,
) -> Statement:
    """Return what was protected so far.

    protection: of the last session. notes: what engine and caller add. history: the rounds so far. run: as planned,
    for what layers say of its noise (None: nothing is planned yet).
    """
    said = [*notes, *(() if run is None else stack.outlook(run)), *(() if account.events else (SUM_NOTE,))]
    return account.statement(stack, protection, [*said, *notes_of(history)])
