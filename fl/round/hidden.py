"""What may be told of rounds whose choice of clients is secret, because a layer's price counts on it
(docs/dp-account.md, section 9), and of rounds with noise.

Every planned round is charged, also one that is abandoned. Who and how many took part is not told. What does not belong
here: how clients are chosen (`fl.sampling`), what it saves (`dp`).
"""

from collections.abc import Iterable
from dataclasses import replace

from fl.round.result import RoundResult
from protocols.layers import RunFacts
from protocols.roundplan import RoundPlan
from protocols.stack import Stack

SERVER = "privacy_server"
RESENT = "sent again: an update left its client a second time, as that client's own policy allows"
WITHHELD = "there was no total; why is withheld, for it may tell who took part"


def is_hidden(of: Stack | RoundPlan, run: RunFacts) -> bool:
    """Whether who and how many take part is withheld from everything that a run tells."""
    return run.sampling != "all" and any(layer.secret_sampling for layer in of.layers)


def plays_nobody(stack: Stack, run: RunFacts, least: int = 1) -> bool:
    """Whether a round is played even if the server chose nobody or nobody stayed: it then releases noise alone."""
    return (
        is_hidden(stack, run)
        and stack.secure_sum.server_sees_vectors
        and least <= 1
        and run.least_chosen == run.failing == 0
    )


def untimed(result: RoundResult) -> RoundResult:
    """Return what may be told of a round beside noise: how long clients computed follows their examples, and no noise
    covers it. The server's own seconds stay.
    """
    kept = {name: seconds for name, seconds in result.seconds.items() if name == SERVER}
    trips = tuple(replace(trip, seconds=0.0, node=0.0, train=0.0) for trip in result.trips)
    return replace(result, seconds=kept, trips=trips)


def told(notes: Iterable[str]) -> tuple[str, ...]:
    """Return a statement's notes without the names of clients that sent an update again."""
    return tuple(f"{RESENT}; whose is withheld" if note.startswith(RESENT) else note for note in notes)


def withheld(result: RoundResult) -> RoundResult:
    """Return what may be told of a round whose clients were chosen in secret. It has no names and counts, nor what
    follows from them: bytes, seconds, reasons, and the session, which exists only where somebody was chosen.
    """
    return replace(
        result,
        asked=(),
        survivors=(),
        bytes_up_per_client=0.0,
        bytes_down_per_client=0.0,
        seconds={},
        trips=(),
        refusals={},
        waited=0.0,
        abandoned=WITHHELD if result.abandoned else None,
        session="",
        session_number=0,
        withheld=True,
    )
