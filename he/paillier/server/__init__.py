"""The server's states, a file per state: Adding, Opening and Voting where somebody holds the key;
Gathering, Combining (Threshold).
"""

from he.paillier.server.adding import Adding
from he.paillier.server.combining import Combining
from he.paillier.server.gathering import Gathering
from he.paillier.server.opening import Opening

__all__ = ["Adding", "Combining", "Gathering", "Opening"]
