"""The server's states where keys are reused: enrolment in a set-up, then collecting, electing on sparse graphs,
releasing.
"""

from secagg.reuse.server.collecting import Collecting
from secagg.reuse.server.electing import Electing
from secagg.reuse.server.enrolment import Enrolment, start
from secagg.reuse.server.releasing import Releasing

STATES = (Enrolment, Collecting, Electing, Releasing)

__all__ = ["STATES", "start"]
