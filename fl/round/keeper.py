"""What every engine keeps of a run after a round, put together in one place.

What does not belong here: the files and their order (`run_files`), when a run is saved (its owner), torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fl.account import Account
from fl.round.reference import Tree
from fl.round.result import RoundResult
from fl.round.run_files import Json, KeptRun, RunFiles, entry_of
from protocols.stack import Stack
from protocols.statement import Statement


@dataclass(frozen=True)
class Keeper:
    """Keeps one run in `files`. planned: its rounds. kind: its strategy's class, which a resumed run must share."""

    files: RunFiles
    stack: Stack
    account: Account
    planned: int
    kind: str

    def keep(
        self,
        history: Sequence[RoundResult],
        model: Tree,
        strategy: Tree,
        made_with: Json,
        statement: Statement | None = None,
        last: RoundResult | None = None,
        *,
        hold: bool = False,
    ) -> str:
        """Save the run after `len(history)` rounds, or its beginning; return the record's head. hold: the checkpoint
        alone, for a round that is saved again once it is measured.

        model, strategy, made_with: as in `KeptRun`. statement: None before anything was protected. last: the round
        that the record's entry is about, None for one without any sum. Raises RecordError as `RunFiles.begin` does.
        """
        stack, planned = self.stack, self.planned
        entry = (
            {"round": len(history), "of": planned}
            if last is None
            else entry_of(last, planned, stack, statement)
        )
        kept = KeptRun(
            list(history),
            model,
            strategy,
            kind=self.kind,
            made_with=made_with,
            layers={layer.name: layer.state() for layer in stack.layers},
            events=tuple(self.account.events),
            run=self.account.run,
            session=max((result.session_number for result in history), default=0),
            entry=entry,
            statement=None if statement is None else statement.to_json(),
        )
        if hold:
            return self.files.hold(kept)
        return self.files.save(kept) if history else self.files.begin(kept)
