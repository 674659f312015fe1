"""A client's states, a file per state."""

from he.paillier.client.encrypted import Encrypted
from he.paillier.client.may_open import MayOpen
from he.paillier.client.sent import Sent

__all__ = ["Encrypted", "MayOpen", "Sent"]
