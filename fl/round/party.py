"""A client's side of a session over a network: what it checks, pays and computes before its input may leave.

What belongs here: the checks in the order in which they must come, the same for every engine. What does not: messages
and files of an engine (`fl.flower`), training (`Work`), the session's steps (`protocols`).
"""

import time
from dataclasses import dataclass, replace
from functools import partial

from fl.round.broadcast import Broadcast
from fl.round.contribution import encoded
from fl.round.engine import Work
from fl.round.party_ledger import PartyLedger, party_events
from fl.round.terms import RoundTerms
from protocols.errors import PolicyRefusal, SpentUpdate, refuse
from protocols.kernel import spending
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import Start, recall
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import Store


@dataclass
class RoundParty:
    """One client in one session, with its own store, privacy ledger and policy.

    train_seconds: spent in the user's code. sent_again: the update left before, and the policy allows that.
    """

    name: str
    store: Store
    ledger: PartyLedger
    policy: Policy
    stack: Stack
    train_seconds: float = 0.0
    sent_again: bool = False

    def require_layers(self) -> None:
        """Raises PolicyRefusal for a layer that the policy does not allow."""
        allowed = self.policy.allow_layers
        for name in (*(layer.name for layer in self.stack.layers), self.stack.secure_sum.name):
            if allowed is not None and name not in allowed:
                raise PolicyRefusal(f"allow_layers: this node does not accept {name!r}, it accepts {allowed}")

    def session(self, broadcast: Broadcast, claimed: Session, told: RoundTerms) -> Session:
        """Return the claimed session where it is bound to the round as this client computes it from what it was shown.
        told: the terms that came. Raises ProtocolViolation where they differ from the broadcast's or the digests do,
        PolicyRefusal for a session that offers less than the policy or the layers demand.
        """
        if claimed.protocol != (own := self.stack.secure_sum.tag):
            raise refuse(
                f"secure sum: this node has {own}, the server says {claimed.protocol}: list the same on both sides"
            )
        told.require(broadcast.terms)
        plan, run = broadcast.plan, broadcast.plan.facts.run
        if run.dimension != broadcast.reference.schema.dimension or run.cohort < claimed.clients:
            raise refuse("the planned run does not fit the model or the cohort that was sent")
        if broadcast.digest != claimed.model:
            raise refuse(
                "the session is not bound to the round that came with it, but to other terms or layers"
            )
        if broadcast.manifest is not None:
            broadcast.manifest.require_alike(broadcast.alike, PolicyRefusal)
        if broadcast.manifest is not None and self.name in claimed.roster:
            broadcast.manifest.require_base(self.name, broadcast.reference.digest)
        offered = claimed.dimension, claimed.bound, int(claimed.modulus)
        if offered != (plan.dimension, plan.bound, plan.modulus):
            raise refuse("the session's dimension, bound or modulus is not what the layers give")
        if claimed.min_survivors < plan.min_survivors:
            raise PolicyRefusal(
                f"min_survivors: the layers demand {plan.min_survivors}, the session offers {claimed.min_survivors}"
            )
        self.policy.check(self.stack.secure_sum.demands(claimed))  # before training: it may take hours
        return claimed

    def begin(
        self, broadcast: Broadcast, session: Session, index: int, work: Work, run: str, series: str = ""
    ) -> Start:
        """Train, pay for the round, and return what makes the first step of the client at `index` from its memory.

        run: names the federation in the ledger. series: the rounds of one memory. Raises PolicyRefusal for a price
        beyond the policy's max_epsilon, SpentUpdate for an update that left before, unless the policy allows that; what
        the first step raises, where it can be made without the input: a refusal then costs neither training nor budget.
        """
        limit, protocol, policy = self.policy.max_epsilon, self.stack.secure_sum, self.policy
        if protocol.takes_input_late:
            kept = recall(self.store, protocol, series)
            protocol.client(session, index, None, random=SystemRandom(), policy=policy, memory=kept)
        self.ledger.require(party_events(broadcast.plan, self.name), limit)
        own = replace(broadcast.own(self.name, self.store), afford=partial(self.ledger.require, limit=limit))
        began = time.perf_counter()
        vector, update = encoded(broadcast, work(broadcast, own), own)
        self.train_seconds = time.perf_counter() - began
        events = party_events(broadcast.plan, self.name)  # as the layers know them now: exactly
        self.sent_again = self.store.marked(spending(update))
        if self.sent_again and not self.policy.allow_resend:  # found out now, it costs the others nothing
            raise SpentUpdate(
                "this update left this client once; it is not sent a second time: let training depend on the "
                "round, or on a seed of the run (another seed of a Federation), or allow it by `allow_resend` in this "
                "client's own policy"
            )
        self.ledger.charge(events, limit, run=run, round=broadcast.number, again=self.sent_again)
        return lambda memory: protocol.client(
            session, index, vector, random=SystemRandom(), policy=policy, update=update, memory=memory
        )
