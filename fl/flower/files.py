"""The files of a wrapped strategy's run: when they are saved, and the model's file.

What does not belong here: what is kept, in which order and why (`fl.round.kept`), the server's own state
(`server_state`).
"""

from pathlib import Path

import numpy as np
from flwr.serverapp.strategy import Strategy

from fl.flower.compat import strategy_state
from fl.flower.rounds import ProtectedRounds
from fl.round import RoundResult, Tree
from fl.round.kept import CHECKPOINT, KeptRun, RunFiles, entry_of, load, npz
from fl.round.reference import like
from protocols.errors import Misuse

MODEL = "model.npz"


def load_run(folder: Path) -> KeptRun | None:
    """Return the run in `folder`, or None if there is none. Nothing is unpickled.

    Raises SecAggError for a damaged checkpoint or one of another version, Misuse for a folder that holds a model and no
    checkpoint.
    """
    kept = load(folder)
    if kept is None and (folder / MODEL).exists():
        raise Misuse(f"{folder} holds a {MODEL} and no {CHECKPOINT} to go on from: name another folder")
    return kept


class RunKeeper:
    """Saves a wrapped strategy's run after every round. kept: the run that is gone on with; None for a new one.

    planned: rounds. history: of all rounds so far, those of earlier processes among them.
    """

    def __init__(
        self, folder: Path, strategy: Strategy, rounds: ProtectedRounds, planned: int, kept: KeptRun | None
    ) -> None:
        self.strategy, self.rounds, self.planned = strategy, rounds, planned
        self.history = [] if kept is None else list(kept.history)
        self.session = 0 if kept is None else kept.session
        self.files = RunFiles(folder, rounds.options.identity, MODEL, self._model_bytes, first=0)

    def catch_up(self, kept: KeptRun) -> None:
        """Write what a killed process did not; count a round that it was stopped in as lost: it is not asked again."""
        self.rounds.server.head = self.files.catch_up(kept)
        if (lost := self.rounds.engine.lost(kept.rounds + 1)) is not None:
            lost.guarantees = self.rounds.account.guarantees()
            self.history.append(lost)
            self._write(kept.model, kept.strategy, lost)

    def save(self, number: int, model: Tree) -> None:
        """Save the run after round `number` (0: before the first)."""
        last = next((result for result in reversed(self.rounds.history) if result.number == number), None)
        if number:
            self.history.append(last or RoundResult(number, ()))
        self._write(model, strategy_state(self.strategy), last)

    def _write(self, model: Tree, strategy: Tree, last: RoundResult | None) -> None:
        rounds, stack = self.rounds, self.rounds.options.stack
        begun = last is not None and rounds.protection is not None
        statement = rounds.statement() if begun else None
        number = len(self.history)
        entry = {"round": number, "of": self.planned}
        self.session = max(self.session, last.session_number if last else 0)
        kept = KeptRun(
            self.history,
            model,
            strategy,
            kind=type(self.strategy).__name__,
            made_with=rounds.made_with if begun else {},
            layers={layer.name: layer.state() for layer in stack.layers},
            events=tuple(rounds.account.events),
            run=rounds.account.run,
            session=self.session,
            entry=entry if last is None else entry_of(last, self.planned, stack, statement),
            statement=None if statement is None else statement.to_json(),
        )
        rounds.server.head = self.files.save(kept) if number else self.files.begin(kept)

    def _model_bytes(self, kept: KeptRun) -> bytes:
        return npz({"__rounds__": np.array(kept.rounds), **like(kept.model, self.rounds.schema)})
