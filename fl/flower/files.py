"""The files of a wrapped strategy's run: when they are saved, and the model's file.

What does not belong here: what is kept, in which order and why (`fl.round.run_files`), the server's own state
(`server_state`).
"""

from pathlib import Path

import numpy as np
from flwr.serverapp.strategy import Strategy

from fl.flower.compat import strategy_state
from fl.flower.rounds import ProtectedRounds
from fl.round import RoundResult, Tree
from fl.round.keeper import Keeper
from fl.round.reference import like
from fl.round.run_files import CHECKPOINT, KeptRun, RunFiles, load, npz
from protocols.errors import Misuse

MODEL = "model.npz"


def run_to_resume(folder: Path) -> KeptRun | None:
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
        self.strategy, self.rounds = strategy, rounds
        self.history = [] if kept is None else list(kept.history)
        self.files = RunFiles(folder, rounds.options.identity, MODEL, self._model_bytes, first=0)
        self.keeper = Keeper(
            self.files, rounds.options.stack, rounds.account, planned, type(strategy).__name__
        )

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
        rounds = self.rounds
        begun = last is not None and rounds.protection is not None
        made_with, statement = (rounds.made_with, rounds.statement()) if begun else ({}, None)
        rounds.server.head = self.keeper.keep(self.history, model, strategy, made_with, statement, last)

    def _model_bytes(self, kept: KeptRun) -> bytes:
        return npz({"__rounds__": np.array(kept.rounds), **like(kept.model, self.rounds.schema)})
