"""The server's states, one file each, in the order they are passed: advertising, revealing, sharing, summing, voting,
opening. With reused keys summing follows advertising, and later rounds begin with it (`enrolling`).
"""

from secagg.server.advertising import Advertising, start
from secagg.server.opening import Opening
from secagg.server.revealing import Revealing
from secagg.server.sharing import Sharing
from secagg.server.summing import Summing
from secagg.server.voting import Voting

STATES = (Advertising, Revealing, Sharing, Summing, Voting, Opening)

__all__ = ["STATES", "start"]
