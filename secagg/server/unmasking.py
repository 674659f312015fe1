"""Taking the masks off: secrets from shares, masks from secrets. What does not belong here: messages and
states.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import TooFewSurvivors
from protocols.kernel import client
from protocols.session import Session
from secagg.advertisement import parse
from secagg.commitments import seed_digest
from secagg.errors import DealerBlamed
from secagg.key_agreement import PairKeys, public_key
from secagg.masking import apply_masks
from secagg.messages import Indices, indices
from secagg.rules import Rules, rules_of
from secagg.seeds import pair_seed, self_mask_seed
from secagg.server.base import Facts
from secagg.shamir import combine_arrays

Words = NDArray[np.unsignedinteger[Any]]
Kept = Mapping[int, Mapping[int, bytes]]


def unmask(
    session: Session,
    facts: Facts,
    total: Words,
    arrived: Collection[int],
    seed_shares: Kept,
    key_shares: Kept,
) -> Words:
    """Take the masks off `total` in place and return it.

    Every survivor's own mask goes, and the masks that survivors share with clients that dealt and dropped
    out. Raises TooFewSurvivors if a secret has fewer shares than the threshold, DealerBlamed if one is not
    what its dealer pledged.
    """
    rules = rules_of(session)
    missing = [
        j
        for j in facts.pledges
        if j not in arrived and any(i in arrived for i in rules.neighbours(j, facts.graph_seed))
    ]

    def dealt_to(owner: int) -> Indices:
        return facts.pledges[owner].holders

    seeds = reconstruct(rules, dealt_to, sorted(arrived), seed_shares, "self-mask seed")
    keys = reconstruct(rules, dealt_to, missing, key_shares, "mask key")
    for j, seed in seeds.items():
        if seed_digest(session.context, j, seed) != facts.pledges[j].seed_digest:
            raise DealerBlamed(str(client(j)), "self-mask seed")
    taken = [self_mask_seed(seed, session.context, session.roster[j]) for j, seed in seeds.items()]
    added: list[bytes] = []
    for j, key in keys.items():
        if public_key(key) != parse(rules, facts.keys[j], str(client(j))).mask_key:
            raise DealerBlamed(str(client(j)), "mask key")
        _pairs(session, rules, facts, arrived, j, key, added, taken)
    apply_masks(total, added, taken)
    return total


def _pairs(
    session: Session,
    rules: Rules,
    facts: Facts,
    arrived: Collection[int],
    gone: int,
    key: bytes,
    added: list[bytes],
    taken: list[bytes],
) -> None:
    """List the masks of survivors with one client that is gone: those to be added, and those to be taken
    off.
    """
    own = PairKeys(key, session.roster[gone], session.context)
    for i in rules.neighbours(gone, facts.graph_seed):
        if i in arrived:  # the lower of the two had added it
            seed = pair_seed(own, session.roster[i], facts.keys[i][32:64])
            (taken if i < gone else added).append(seed)


def reconstruct(
    rules: Rules, holders: Callable[[int], Indices], owners: Collection[int], kept: Kept, what: str
) -> dict[int, bytes]:
    """Return the owners' secrets. Owners whose shares lie at the same points are done together.

    holders: to whom an owner dealt, ascending. kept: good shares, owner -> holder -> share; those of one owner have one
    length. Raises TooFewSurvivors for fewer than the threshold.
    """
    together: dict[tuple[bytes, int], list[int]] = {}
    for j in owners:
        have = sorted(kept.get(j, ()))
        if len(have) < rules.threshold:
            raise TooFewSurvivors(
                f"the {what} of {client(j)} needs {rules.threshold} shares, {len(have)} good ones came"
            )
        dealt = holders(j)
        points = rules.points(dealt)[np.searchsorted(dealt, indices(have))]
        together.setdefault((points.tobytes(), len(kept[j][have[0]])), []).append(j)
    secrets: dict[int, bytes] = {}
    for (at, length), group in together.items():
        tables = [_table(kept[j], length) for j in group]
        secrets.update(zip(group, combine_arrays(np.frombuffer(at, np.int64), tables, length), strict=True))
    return secrets


def _table(have: Mapping[int, bytes], length: int) -> NDArray[np.uint8]:
    """The shares of one owner as rows, by ascending holder."""
    return np.frombuffer(b"".join(have[i] for i in sorted(have)), np.uint8).reshape(len(have), length)
