"""Taking a round's masks off: secrets from shares, masks from secrets. What does not belong here: messages
and states.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import client
from protocols.session import Session
from secagg.commitments import seed_digest
from secagg.errors import DealerBlamed
from secagg.masking import apply_masks
from secagg.messages import indices, items
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES
from secagg.reuse.places import Places
from secagg.reuse.pledges import edge_digest
from secagg.reuse.server.kept import Kept
from secagg.rules import rules_of
from secagg.seeds import edge_mask_seed, self_mask_seed
from secagg.server.base import Facts
from secagg.server.unmasking import reconstruct

Words = NDArray[np.unsignedinteger[Any]]
Shares = Mapping[int, Mapping[int, bytes]]


def take_off(
    session: Session,
    facts: Facts,
    total: Words,
    deposits: Mapping[int, Kept],
    gone: Mapping[int, list[tuple[int, int]]],
    shares: Shares,
) -> Words:
    """Take every survivor's own mask, and its edges to those who are gone, off `total` in place and return it.

    Raises TooFewSurvivors if a secret has fewer shares than the threshold, DealerBlamed if one is not what
    was pledged.
    """
    rules, context, names = rules_of(session), session.context, session.roster
    places, added, taken = Places(rules, facts.keys), list[bytes](), list[bytes]()
    opened = reconstruct(rules, lambda i: indices(places.holders(i)), gone, shares, "secrets")
    for i, secret in opened.items():
        if seed_digest(context, i, secret[:SEED_BYTES]) != deposits[i].pledge(0):
            raise DealerBlamed(str(client(i)), "self-mask seed")
        taken.append(self_mask_seed(secret[:SEED_BYTES], context, names[i]))
        for (place, j), edge in zip(gone[i], items(secret[SEED_BYTES:], EDGE_BYTES), strict=True):
            if edge_digest(context, i, j, edge) != deposits[i].pledge(place):
                raise DealerBlamed(str(client(i)), f"seed of its edge to {client(j)}")
            mask = edge_mask_seed(edge, context, names[i], names[j])
            (taken if i < j else added).append(mask)  # the lower of the two had added it
    apply_masks(total, added, taken)
    return total
