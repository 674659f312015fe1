"""Opening a sum with a whole key, but nothing else. What does not belong here: states, a scheme's mathematics.

What is wrong before anything is decrypted raises. What only decryption tells is answered by a refusal that ends the
session: an opener that could be asked again would be one bit of an oracle.
"""

from he.roles.messages import OpenedTotal, OpenRequest, pack_total
from he.roles.parameters import expect_clients
from he.roles.scheme import NotTheSum, OpeningKey
from protocols.session import Session


def opened(session: Session, key: OpeningKey, asked: OpenRequest, least: int) -> OpenedTotal:
    """Return the total of at least `least` contributions, or a refusal. Raises PeerError."""
    expect_clients(session, asked.tickets, least)
    try:
        return OpenedTotal(pack_total(key.open(session, asked), session))
    except NotTheSum as reason:
        return OpenedTotal(b"", f"this is something else than the sum: {reason}")
