"""The toolkit on Flower: a client mod, a strategy wrapper and the two apps of a Federation.

What belongs here: everything that imports flwr. What touches more of it than its public names lies in `compat`. What
does not belong here: protocols, layers, training; they are the same in memory.
"""

import os

# A privacy toolkit reports nothing to third parties by itself: flwr and Ray read these when they are first imported.
# Whoever wants telemetry sets them.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
