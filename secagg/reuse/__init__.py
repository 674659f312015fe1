"""One set-up for many rounds: keys are agreed once, later rounds take two trips. States of both roles, and
what they remember.

client: enrolling, establishing or resuming, guarding. server: enrolment, collecting, releasing. Every client
shares its secrets of a round (the seed of its own mask and the seeds of its edges) with one committee,
sealed, together with its masked vector; the committee opens a survivor's own seed and the survivors' edges to
those who are gone. No lasting key is ever shared. Source: Ma et al., Flamingo (IEEE S&P 2023), sections 3 and
4, whose lasting keys and one committee this follows; the rest differs.
"""

from secagg.reuse.collecting import Collecting
from secagg.reuse.enrolling import Enrolling, enrol
from secagg.reuse.enrolment import Enrolment, start
from secagg.reuse.establishing import Establishing
from secagg.reuse.guarding import Guarding
from secagg.reuse.memory import ClientMemory, ServerMemory
from secagg.reuse.releasing import Releasing
from secagg.reuse.resuming import Resuming, resume

STATES = (Enrolling, Establishing, Resuming, Guarding, Enrolment, Collecting, Releasing)

__all__ = ["STATES", "ClientMemory", "ServerMemory", "enrol", "resume", "start"]
