"""First state: the client has its input and fresh keys, and waits to be asked for the public ones."""

from dataclasses import dataclass

from protocols.identity import Identity
from protocols.kernel import Message, State, Step
from protocols.protocol import ClientStart
from protocols.randomness import SecureRandom
from protocols.roles import Ask
from protocols.summation import IntVector
from secagg.client.establishing import Establishing
from secagg.client.keys import Holding, make_keys
from secagg.client.resuming import resume
from secagg.client.revealing import Revealing
from secagg.client.sharing import Sharing
from secagg.client.tries import Tries
from secagg.messages import ADVERTISE, Advertisement
from secagg.session_rules import rules_of


@dataclass(frozen=True, eq=False)
class Joining(Holding):
    """Waits to be asked for its keys."""

    TAG = 16
    STAGE = ADVERTISE

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Ask, request)
        after: State = Sharing(*self.after("advertisement", "part"), None)
        if self.rules.committed:
            after = Revealing(*self.after("advertisement"))
        elif self.rules.parameters.reuse:
            after = Establishing(*self.after("advertisement", "part"))
        return Step(after, self.answer(Advertisement(self.keys.advertisement)))


def join(start: ClientStart[IntVector], identity: Identity | None) -> Step:
    """Return a client's first step. Raises PolicyRefusal if the server drew too many graphs already, or the session
    builds on a set-up of which the client has no keys.
    """
    rules, session, index = rules_of(start.session), start.session, start.index
    if rules.parameters.epoch:
        return resume(start, identity)
    tries = Tries.kept(start.memory).next().encode() if rules.committed else None
    keys = make_keys(session, index, identity, start.random)
    return Step(Joining(session, index, start.update, start.vector, keys), memory=tries)
