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
from secagg.masking import apply_masks
from secagg.messages import indices, items
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES
from secagg.reuse.places import Places
from secagg.reuse.pledges import edge_digest
from secagg.reuse.server.kept import Kept
from secagg.rules import rules_of
from secagg.seeds import edge_mask_seed, self_mask_seed
from secagg.server.base import Facts
from secagg.shamir import combine_arrays

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
    added, taken = list[bytes](), list[bytes]()
    context, names = session.context, session.roster
    for i, secret in _secrets(session, facts, gone, shares).items():
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


def _secrets(
    session: Session, facts: Facts, gone: Mapping[int, list[tuple[int, int]]], shares: Shares
) -> dict[int, bytes]:
    """Each owner's opened secrets, end to end. Owners with the same holders and lengths are done together."""
    rules = rules_of(session)
    places, together = Places(rules, facts.keys), dict[tuple[bytes, int], list[int]]()
    for owner in gone:
        have = sorted(shares.get(owner, {}))
        if len(have) < rules.threshold:
            raise TooFewSurvivors(
                f"the secrets of {client(owner)} need {rules.threshold} shares, {len(have)} good ones came"
            )
        holders = indices(places.holders(owner))
        at = rules.points(holders)[np.searchsorted(holders, indices(have))]
        together.setdefault((at.tobytes(), SEED_BYTES + EDGE_BYTES * len(gone[owner])), []).append(owner)
    secrets: dict[int, bytes] = {}
    for (points, length), group in together.items():
        tables = [_table(shares[owner]) for owner in group]
        found = combine_arrays(np.frombuffer(points, np.int64), tables, length)
        secrets.update(zip(group, found, strict=True))
    return secrets


def _table(have: Mapping[int, bytes]) -> NDArray[np.uint8]:
    """The shares of one owner as rows, by ascending holder."""
    return np.frombuffer(b"".join(have[m] for m in sorted(have)), np.uint8).reshape(len(have), -1)
