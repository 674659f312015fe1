"""Which batch each of a client's examples is in: drawn once, independently, and kept in the client's own store.

Independent slots and a public denominator let an example more or less leave all others where they are (add/remove).
The number of examples is private like they are. Once erased, slots are not drawn again in their run: an example would
come twice, or too early. What does not belong here: the sum over a batch (`dp.sample`).
"""

import numpy as np
from numpy.typing import NDArray

from dp.mechanisms.sampling import poisson_sample
from protocols.errors import Misuse, PolicyRefusal
from protocols.layers import RoundFacts
from protocols.party_state import KEPT, LASTING


def slots(facts: RoundFacts, owner: str, examples: int, batches: int) -> NDArray[np.int64]:
    """Return each example's batch, from 0; drawn in the client's first round of a run.

    Raises Misuse without a store, and where the client's number of examples changed within the run, PolicyRefusal where
    the slots of the run were drawn and erased.
    """
    if facts.store is None:
        raise Misuse(
            f"{owner}: fixed batches need a store of the client's own: play the rounds with a Federation"
        )
    key, mark = (f"{KEPT}{facts.scope}/{owner}/{name}" for name in ("slots", f"drawn{LASTING}"))
    drawn = np.frombuffer(facts.random.bytes(8 * examples), "<u8") % np.uint64(batches)
    with facts.store.transaction() as t:
        held = t.get(key)
        if held is None and t.get(mark) is not None:
            raise PolicyRefusal(
                f"{owner}: {facts.whose}: the batches of this run were erased, so for this party the run is over, and "
                "others would let its examples come too often: begin another run"
            )
        if held is None:
            t.put(mark, b"drawn")
            t.put(key, held := drawn.astype("<u4").tobytes())
    if len(held) != 4 * examples:
        raise Misuse(
            f"{owner}: {facts.whose}: the data set has another number of examples than when the batches of this run "
            "were drawn: keep it as it was for the run, or begin another"
        )
    return np.frombuffer(held, "<u4").astype(np.int64)


def batch(facts: RoundFacts, owner: str, examples: int, batches: int, chance: float = 1.0) -> list[int]:
    """Return the examples of this round's batch, in order: batches take turns; each example by a secret coin."""
    own = slots(facts, owner, examples, batches)
    rows = np.flatnonzero(own == (facts.number - 1) % batches)
    return [int(row) for row in rows[poisson_sample(facts.random, len(rows), chance)]]
