"""One set-up for many rounds: keys are agreed once, later rounds take two trips, or three on sparse graphs.

`client` and `server` have the states; here lies what both know: `memory` (what is kept between rounds), `places` (who
shares what with whom), `messages`, `pledges`. Every client shares its secrets of a round (the seed of its own mask and
the seeds of its edges) with one committee, sealed, together with its masked vector; the committee agrees on who
survived and opens a survivor's own seed and the survivors' edges to those who are gone. No lasting key is ever shared.
Source: Ma et al., Flamingo (IEEE S&P 2023), sections 3 and 4, whose lasting keys and one committee this follows; the
rest differs.
"""

from secagg.reuse import client, server

STATES = (*client.STATES, *server.STATES)

__all__ = ["STATES"]
