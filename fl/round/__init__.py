"""One round of a federation, the same for every engine: what clients are shown, what each contributes, the session, the
charge, and the close, which decodes the sum or abandons the round whole.

What belongs here: arithmetic on trees of NumPy arrays and the order of a round's steps. What does not: torch, Flower,
a transport, a user's training loop. An engine (`Engine`) carries messages; a `Work` trains.

    stack = Stack([SecAggPlus()], Numbers(range=1.0))
    run = RunFacts(rounds=1, population=3, cohort=3, dimension=2)
    stack.plan(run)
    shown = open_round(stack, run, 1, ("a", "b", "c"), reference_of({"w": np.zeros(2)}))
    played = play([shown], MemoryEngine(stack.secure_sum, work), stack, Account(stack.layers))
    model = moved(shown.reference, played.means[0].vector)
"""

from fl.round.broadcast import Broadcast, open_round
from fl.round.contribution import contribution_of
from fl.round.counts import Count
from fl.round.engine import Charge, Engine, SumCosts, Summed, Work
from fl.round.manifest import Manifest, Version
from fl.round.play import Mean, Payer, PlayedRound, mean_of, play
from fl.round.reference import Reference, Tree, moved, reference_of
from fl.round.result import RoundResult, Trip
from fl.round.session import new_session
from fl.round.statement import statement_of
from fl.round.terms import ModelLayout, Origin, RoundTerms, RunHeader

__all__ = [
    "Broadcast",
    "Charge",
    "Count",
    "Engine",
    "Manifest",
    "Mean",
    "ModelLayout",
    "Origin",
    "Payer",
    "PlayedRound",
    "Reference",
    "RoundResult",
    "RoundTerms",
    "RunHeader",
    "SumCosts",
    "Summed",
    "Tree",
    "Trip",
    "Version",
    "Work",
    "contribution_of",
    "mean_of",
    "moved",
    "new_session",
    "open_round",
    "play",
    "reference_of",
    "statement_of",
]
