"""One round of a federation, the same for every engine: what clients are shown, what each contributes, the session, the
charge, and the close, which decodes the sum or abandons the round whole.

What belongs here: arithmetic on trees of NumPy arrays and the order of a round's steps. What does not: torch, Flower,
a transport, a user's training loop. An engine (`Engine`) carries messages; a `Work` trains.
"""

from fl.round.broadcast import Broadcast, open_round
from fl.round.contribution import contribution_of
from fl.round.counts import Count
from fl.round.engine import Charge, Costs, Engine, Summed, Work
from fl.round.manifest import Manifest
from fl.round.play import Mean, Payer, Played, mean_of, play
from fl.round.reference import Reference, Tree, moved, reference_of
from fl.round.result import RoundResult
from fl.round.session import new_session
from fl.round.statement import statement_of

__all__ = [
    "Broadcast",
    "Charge",
    "Costs",
    "Count",
    "Engine",
    "Manifest",
    "Mean",
    "Payer",
    "Played",
    "Reference",
    "RoundResult",
    "Summed",
    "Tree",
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
