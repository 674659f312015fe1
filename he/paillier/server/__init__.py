"""The server's states, a file per state: Adding, Agreeing (SharedByClients) and Opening where somebody holds
the key; Gathering and Combining (Threshold).
"""

from he.paillier.server.adding import Adding
from he.paillier.server.agreeing import Agreeing
from he.paillier.server.combining import Combining
from he.paillier.server.gathering import Gathering
from he.paillier.server.opening import Opening

__all__ = ["Adding", "Agreeing", "Combining", "Gathering", "Opening"]
