"""Opening a sum with the whole key, but nothing else. What does not belong here: states, where the seeds of
tags come from.
"""

from collections.abc import Mapping

import numpy as np

from he.paillier.cipher import Opener, parse
from he.paillier.keyring import HolderKey
from he.paillier.messages import Opened, OpenRequest, blaming, expect_indices
from he.paillier.parameters import PaillierParameters, least_survivors, total_of
from he.paillier.tags import remove_tags
from protocols.errors import PeerError
from protocols.session import Session


def open_sum(
    session: Session,
    key: HolderKey,
    asked: OpenRequest,
    seeds: Mapping[int, bytes],
    signers: bytes,
    least: int,
) -> Opened:
    """Return the sum, reduced, if the ciphertexts are exactly the sum of the contributions behind the
    request's tickets.

    What is wrong before anything is decrypted raises PeerError: too few contributions, one that its client did
    not sign, bytes that are no ciphertexts. What only decryption tells, tags that do not fit, is answered by
    a refusal that ends the session: an opener that could be asked again would be one bit of an oracle.
    """
    expect_indices(list(asked.tickets), max(least, least_survivors(session)), session.clients)
    for index, ticket in asked.tickets.items():
        ticket.check(session, index, signers)
    packing = PaillierParameters.decode(session.parameters).packing
    with blaming("server"):
        ciphertexts = parse(asked.ciphertexts, packing.plaintexts(session.dimension), key.secret.public)
    opened = remove_tags(Opener(key.secret).decrypt(ciphertexts), seeds.values(), int(key.secret.public.n))
    try:
        digits = packing.unpack(opened, session.dimension)
    except PeerError as error:
        return Opened(np.empty(0, np.int64), f"this is something else than the sum: {error}")
    return Opened(total_of(digits, session))
