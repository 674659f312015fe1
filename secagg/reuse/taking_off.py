"""Taking a round's masks off: secrets from shares, masks from secrets. What does not belong here: messages
and states.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import TooFewSurvivors
from protocols.kernel import client
from protocols.session import Session
from secagg.commitments import seed_digest
from secagg.errors import DealerBlamed
from secagg.masking import add_mask, subtract_mask
from secagg.messages import indices
from secagg.reuse.kept import Kept
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES
from secagg.reuse.pledges import edge_digest
from secagg.rules import Rules, rules_of
from secagg.seeds import edge_mask_seed, self_mask_seed
from secagg.shamir import combine_arrays

Words = NDArray[np.unsignedinteger[Any]]
Places = Mapping[int, Mapping[int, bytes]]


def take_off(
    session: Session, total: Words, deposits: Mapping[int, Kept], shares: Mapping[int, Places]
) -> Words:
    """Take every survivor's own mask, and its edges to those who are gone, off `total` in place and return
    it.

    Raises TooFewSurvivors if a secret has fewer shares than the threshold, DealerBlamed if one is not what
    was pledged.
    """
    rules = rules_of(session)
    for i in sorted(deposits):
        kept = deposits[i]
        gone = [j for j in kept.neighbours.tolist() if j not in deposits]
        places = [0, *(kept.place(j) for j in gone)]
        secrets = _secrets(rules, i, kept, shares.get(i, {}), places)
        if seed_digest(session.context, i, secrets[0]) != kept.pledge(0):
            raise DealerBlamed(str(client(i)), "self-mask seed")
        subtract_mask(total, self_mask_seed(secrets[0], session.context, session.roster[i]))
        for j, place, edge in zip(gone, places[1:], secrets[1:], strict=True):
            if edge_digest(session.context, i, j, edge) != kept.pledge(place):
                raise DealerBlamed(str(client(i)), f"seed of its edge to {client(j)}")
            mask = edge_mask_seed(edge, session.context, session.roster[i], session.roster[j])
            if i < j:  # client i added it
                subtract_mask(total, mask)
            else:
                add_mask(total, mask)
    return total


def _secrets(rules: Rules, owner: int, kept: Kept, shares: Places, places: list[int]) -> list[bytes]:
    """One owner's secrets at some places (0: its seed, else an edge's). Usually all have the same holders."""
    secrets: dict[int, bytes] = {}
    by_holders: dict[tuple[int, ...], list[int]] = {}
    for place in places:
        have = shares.get(place, {})
        if len(have) < rules.threshold:
            raise TooFewSurvivors(
                f"a secret of {client(owner)} needs {rules.threshold} shares, {len(have)} good ones came"
            )
        by_holders.setdefault(tuple(sorted(have)), []).append(place)
    for holders, group in by_holders.items():
        at = rules.points(kept.holders)[np.searchsorted(kept.holders, indices(holders))]
        for length, some in (
            (SEED_BYTES, [p for p in group if not p]),
            (EDGE_BYTES, [p for p in group if p]),
        ):
            if some:
                tables = [_table([shares[p][m] for m in holders], length) for p in some]
                secrets.update(zip(some, combine_arrays(at, tables, length), strict=True))
    return [secrets[place] for place in places]


def _table(shares: list[bytes], length: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(shares), np.uint8).reshape(len(shares), length)
