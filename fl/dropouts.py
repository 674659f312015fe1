"""Who leaves a simulated round, and when: follows the user's seed alone, so that every layer loses the same
clients.
"""

from fl.seeds import generator
from protocols.session import Session
from protocols.summation import SecureSum


def leaving(seed: int, number: int, clients: tuple[str, ...], rate: float) -> dict[str, bool]:
    """Return the clients that leave in round `number` -> True if after their input has left (they still count).

    rate: share of the clients, rounded to the nearest count; at least one stays.
    """
    count = min(round(rate * len(clients)), len(clients) - 1)
    if count <= 0:
        return {}
    draw = generator(seed, "leave", number)
    gone = draw.choice(len(clients), size=count, replace=False)
    after = draw.random(count) < 0.5
    return {clients[i]: bool(late) for i, late in zip(gone, after, strict=True)}


def by_stage(
    protocol: SecureSum, session: Session, seed: int, number: int, gone: dict[str, bool]
) -> dict[str, set[str]]:
    """Return stage -> clients that vanish before answering it: a random stage up to the input's, or after it."""
    stages = [stage for stage in protocol.stages(session) if stage.role == "client"]
    counting = next(i for i, stage in enumerate(stages) if stage.counts)
    draw = generator(seed, "stage", number)
    drop: dict[str, set[str]] = {}
    for name in sorted(gone):
        early, late = stages[: counting + 1], stages[counting + 1 :]
        place = draw.random()
        choices = late if gone[name] else early
        if choices:  # a protocol that asks nothing after the input does not notice who leaves then
            drop.setdefault(choices[int(place * len(choices))].name, set()).add(name)
    return drop
