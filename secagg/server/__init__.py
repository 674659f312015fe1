"""The server's states, one file each, in the order they are passed: advertising, revealing, sharing, summing, voting,
opening. With reused keys summing follows advertising, and later rounds begin with it (`enrolling`).
"""

from secagg.server.advertising import Advertising, start
from secagg.server.opening import ServerOpening
from secagg.server.revealing import ServerRevealing
from secagg.server.sharing import ServerSharing
from secagg.server.summing import Summing
from secagg.server.voting import ServerVoting

STATES = (Advertising, ServerRevealing, ServerSharing, Summing, ServerVoting, ServerOpening)

__all__ = ["STATES", "start"]
