"""The statement of a run so far: what its stack protects, at what price. No files, no rounds."""

from collections.abc import Iterable, Sequence

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
UNFINISHED = (
    "{done} of {planned} planned rounds are over, and the price is that of what they charged. It holds for a run that "
    "was to end here whatever it released; whoever ended it because of what it released relies on the price of all "
    "{planned} (docs/dp-account.md, section 12)"
)


def statement_of(
    stack: Stack,
    protection: Protection,
    account: Account,
    notes: Iterable[str] = (),
    history: Sequence[RoundResult] = (),
    run: RunFacts | None = None,
) -> Statement:
    """Return what was protected so far.

    protection: of the run's sessions (`weakest`). notes: what engine and caller add. history: the rounds so far. run:
    as planned, for what layers say of its noise (None: nothing is planned yet).
    """
    said = [*notes, *(() if run is None else stack.outlook(run)), *(() if account.events else (SUM_NOTE,))]
    if account.events and run is not None and 0 < (done := len(history)) < run.rounds:
        said.append(UNFINISHED.format(done=done, planned=run.rounds))
    return account.statement(stack, protection, [*said, *notes_of(history)])
