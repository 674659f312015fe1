"""Taking the masks off: secrets from shares, masks from secrets. What does not belong here: messages and states."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from protocols.errors import TooFewSurvivors
from protocols.kernel import client
from protocols.key_agreement import PairKeys, public_key
from protocols.session import Session
from secagg.advertisement import parse
from secagg.commitments import edge_digest, seed_digest
from secagg.errors import DealerBlamed
from secagg.masks import apply_masks
from secagg.messages import indices
from secagg.ring import Words
from secagg.seeds import edge_mask_seed, pair_seed, self_mask_seed
from secagg.server.base import Facts
from secagg.session_rules import Rules, rules_of
from secagg.shamir import combine_arrays

Shares = Mapping[int, Mapping[int, bytes]]


def unmask(session: Session, facts: Facts, total: Words, arrived: Collection[int], shares: Shares) -> Words:
    """Take the masks off `total` in place and return it: every survivor's own, and those that survivors share with
    clients that dealt and dropped out.

    Raises TooFewSurvivors if a secret has fewer shares than the threshold, DealerBlamed if one is not what its dealer
    pledged.
    """
    rules = rules_of(session)
    places = facts.places(rules)
    needed = [j for j in facts.pledges if j in arrived or any(i in arrived for i in places.neighbours(j))]
    added, taken = list[bytes](), list[bytes]()
    for owner, secret in reconstruct(rules, facts, sorted(needed), shares).items():
        for place, part in zip(places.opens(owner, arrived), places.cut(secret), strict=True):
            for to_add, mask in _masks(session, facts, arrived, owner, place, part):
                (added if to_add else taken).append(mask)
    apply_masks(total, added, taken)
    return total


def _masks(
    session: Session, facts: Facts, arrived: Collection[int], owner: int, place: int, secret: bytes
) -> Iterator[tuple[bool, bytes]]:
    """Return the masks of an opened secret, each with whether it is added. Of two clients the lower one had added the
    mask that they share, and the total still holds the survivor's half of it. Raises DealerBlamed.
    """
    context, names, pledge = session.context, session.roster, facts.pledges[owner]
    places = facts.places(rules_of(session))
    if place == 0:
        _expect(seed_digest(context, owner, secret) == pledge.secret(0), owner, "self-mask seed")
        yield False, self_mask_seed(secret, context, names[owner])
    elif places.reuse:
        gone = places.neighbours(owner)[place - 1]
        same = edge_digest(context, owner, gone, secret) == pledge.secret(place)
        _expect(same, owner, f"seed of its edge to {client(gone)}")
        yield gone < owner, edge_mask_seed(secret, context, names[owner], names[gone])
    else:
        known = parse(places.rules, facts.keys[owner], str(client(owner))).mask_key
        _expect(public_key(secret) == known, owner, "mask key")
        own = PairKeys(secret, names[owner], context)
        for i in places.neighbours(owner):
            if i in arrived:
                yield owner < i, pair_seed(own, names[i], facts.keys[i][32:64])


def _expect(good: bool, dealer: int, what: str) -> None:
    if not good:
        raise DealerBlamed(str(client(dealer)), what)


def reconstruct(rules: Rules, facts: Facts, owners: Collection[int], shares: Shares) -> dict[int, bytes]:
    """Return the owners' secrets, end to end. Those of one length are done together.

    shares: good ones, owner -> holder -> share; those of one owner have one length. Raises TooFewSurvivors for fewer
    than the threshold.
    """
    together: dict[int, list[tuple[int, NDArray[np.int64], bytes]]] = {}
    for j in owners:
        have = sorted(shares.get(j, ()))[: rules.threshold]
        if len(have) < rules.threshold:
            raise TooFewSurvivors(
                f"the secrets of {client(j)} need {rules.threshold} shares, {len(have)} good ones came"
            )
        dealt = facts.pledges[j].holders
        points = rules.points(dealt)[np.searchsorted(dealt, indices(have))]
        rows = b"".join(shares[j][i] for i in have)
        together.setdefault(len(rows) // len(have), []).append((j, points, rows))
    secrets: dict[int, bytes] = {}
    for length, group in together.items():
        points = np.array([at for _, at, _ in group])
        tables = np.frombuffer(b"".join(rows for *_, rows in group), np.uint8)
        found = combine_arrays(points, tables.reshape(*points.shape, length), length)
        secrets.update(zip([j for j, *_ in group], found, strict=True))
    return secrets
