"""The session of a round: bound to everything that its clients are shown, and to what its layers demand.

What does not belong here: how a sum is carried (`engine`), what it costs (`play`).
"""

from fl.round.broadcast import Broadcast, impossible
from protocols.errors import Misuse, TooFewSurvivors
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import SecureSum


def new_session(
    secure_sum: SecureSum,
    broadcast: Broadcast,
    *,
    least: int = 1,
    number: int | None = None,
    memory: bytes | None = None,
) -> Session:
    """Return a new session of a broadcast.

    least: the fewest clients in a total that the caller accepts; a layer's own demand is never lowered. number: the
    session's (default: the round's). memory: what the server keeps of earlier sessions. Raises TooFewSurvivors if
    fewer clients are asked than must survive, or than the secure sum works with; Misuse if the planned cohort is,
    and for a version of the manifest that too few clients started from.
    """
    plan, asked = broadcast.plan, len(broadcast.clients)
    demanded = max(least, plan.min_survivors)
    if asked < demanded:
        raise TooFewSurvivors(f"{asked} were asked, min_survivors is {demanded}")
    if broadcast.manifest is not None:
        broadcast.manifest.require_alike(broadcast.alike)
    try:
        return secure_sum.session(
            broadcast.clients,
            plan.dimension,
            plan.bound,
            random=SystemRandom(),
            modulus=plan.modulus,
            round=broadcast.number if number is None else number,
            model=broadcast.digest,
            min_survivors=demanded,
            memory=memory,
        )
    except Misuse as error:
        raise impossible(error, asked, plan.facts.run) from None


def protected(secure_sum: SecureSum, broadcast: Broadcast, least: int = 1) -> Protection:
    """Return what a session of a broadcast protects. Raises as `new_session`."""
    return secure_sum.protection(new_session(secure_sum, broadcast, least=least))
