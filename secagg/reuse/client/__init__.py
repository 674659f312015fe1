"""A client's states where keys are reused: enrolling, establishing or resuming; a holder then votes, or guards."""

from secagg.reuse.client.establishing import Enrolling, Establishing, enrol
from secagg.reuse.client.guarding import Guarding, Voting
from secagg.reuse.client.resuming import Resuming, resume

STATES = (Enrolling, Establishing, Resuming, Voting, Guarding)

__all__ = ["STATES", "enrol", "resume"]
