"""Opening a sum with the whole key, but nothing else. What does not belong here: states, where the seeds of
tags come from.
"""

from collections.abc import Mapping

from he.paillier.cipher import Opener, parse
from he.paillier.keyring import HolderKey
from he.paillier.messages import Opened, OpenRequest, blaming, expect_indices
from he.paillier.parameters import PaillierParameters, least_survivors, total_of
from he.paillier.tags import remove_tags
from protocols.errors import PeerError, ProtocolViolation
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

    Raises PeerError for anything else: too few contributions, one that its client did not sign, or a sum
    whose tags do not fit, which shows nothing of what is inside (`tags`).
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
        raise ProtocolViolation(
            f"the server asks to open something else than the sum: {error}", "server"
        ) from None
    return Opened(total_of(digits, session))
