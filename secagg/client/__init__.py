"""The client's states, one file each, in the order they are passed: joining, revealing, sharing, masking, voting,
opening; with reused keys, joining and establishing or, in later rounds, resuming, and then those who hold shares voting
and opening.
"""

from secagg.client.establishing import Establishing
from secagg.client.joining import Joining, join
from secagg.client.masking import Masking
from secagg.client.opening import Opening
from secagg.client.resuming import Resuming
from secagg.client.revealing import Revealing
from secagg.client.sharing import Sharing
from secagg.client.voting import Voting

STATES = (Joining, Revealing, Sharing, Masking, Establishing, Resuming, Voting, Opening)

__all__ = ["STATES", "join"]
