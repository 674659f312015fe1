"""Shares between clients: what an owner seals for its holders, and what a holder finds in a box. What does not belong
here: who holds what (`places`), when anything is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from protocols.errors import PeerError
from protocols.kernel import client
from protocols.randomness import SecureRandom
from protocols.sealing import binding, seal, unseal
from secagg.client.base import ClientState
from secagg.commitments import DEAL, dealt_bytes, share_digest, signer
from secagg.messages import Dealing, indices
from secagg.places import Places
from secagg.shamir import split_array


def deal(
    owner: ClientState,
    places: Places,
    secrets: Sequence[bytes],
    keys: Mapping[int, bytes],
    pledges: bytes,
    sign: bytes,
    random: SecureRandom,
    vector: bytes = b"",
) -> Dealing:
    """Return shares of all secrets, one box for each holder under its key, with what binds the owner: signed where the
    server may be two-faced. vector: the masked one that goes along.
    """
    context, index, holders = owner.session.context, owner.index, places.holders(owner.index)
    points, kinds = owner.rules.points(indices(holders)), places.kinds(index)
    boxes, digests = [], []
    rows = split_array(b"".join(secrets), owner.rules.threshold, points, random)
    for j, row in zip(holders, rows, strict=True):
        share = row.tobytes()
        bound = binding(context, owner.boxes, owner.name, owner.session.roster[j])
        boxes.append(seal(keys[j], share, bound, random))
        parts = zip(kinds, places.cut(share), strict=True)
        digests += [share_digest(context, index, j, kind, part) for kind, part in parts]
    dealing = Dealing(indices(holders), b"".join(digests), pledges, b"".join(boxes), b"")
    if not owner.rules.voted:
        return dealing
    return replace(dealing, signature=signer(sign).sign(DEAL, dealt_bytes(context, index, dealing, vector)))


def unsealed(holder: ClientState, dealer: int, key: bytes, box: bytes) -> bytes:
    """Return what a dealer's box holds; nothing if it does not open."""
    name = holder.session.roster[dealer]
    try:
        bound = binding(holder.session.context, holder.boxes, name, holder.name)
        return unseal(key, box, bound, str(client(dealer)))
    except PeerError:
        return b""
