"""The server before ciphertexts come, where a key holder opens: it relays keys and boxes. What does not belong here:
what follows (`he.roles.server`), anything that could decrypt.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from he.ckks.ciphertexts import Adder
from he.ckks.context import Context
from he.ckks.messages import JOIN, KEY, ClientKeys, HolderKeys, Join, Joined
from he.ckks.parameters import scheme
from he.ckks.whole_key import CKKSAccumulator
from he.roles.holder import KEY_HOLDER
from he.roles.messages import HOLDER, INPUT, decode
from he.roles.parameters import least_survivors
from he.roles.server import AddsCiphertexts, answering, requests
from protocols.errors import Aborted, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class GathersJoins(State):
    """Collects the clients' public keys for boxes."""

    TAG: ClassVar[int | None] = 38

    session: Session
    keys: dict[int, Join]

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        index = answering(self.session, sent, JOIN, "client", range(self.session.clients), self.keys)
        self.keys[index] = decode(Join, sent.body, str(sent.sender))
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in range(self.session.clients) if i not in self.keys]

    def close(self, random: SecureRandom) -> Step:
        if len(self.keys) < (least := least_survivors(self.session)):
            raise TooFewSurvivors(f"expected at least {least} clients to join, {len(self.keys)} did")
        asks = requests(self.session, KEY, {KEY_HOLDER: Joined(self.keys)})
        return Step(AwaitsHolderKeys(self.session, self.keys, None), asks)


@dataclass(frozen=True)
class AwaitsHolderKeys(State):
    """Waits for what the holder made for this session."""

    TAG: ClassVar[int | None] = 39

    session: Session
    keys: dict[int, Join]
    answer: HolderKeys | None

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        expect(sent, self.session.context, KEY, HOLDER, SERVER)
        answer = decode(HolderKeys, sent.body, str(sent.sender))
        if self.answer is not None or set(answer.boxes) != set(self.keys):
            raise ProtocolViolation(
                "expected one answer, with a box for every client that joined", str(sent.sender)
            )
        Context.load(answer.published.context, "server", str(sent.sender))
        return Step(replace(self, answer=answer))

    def waiting_for(self) -> list[Party]:
        return [] if self.answer else [KEY_HOLDER]

    def close(self, random: SecureRandom) -> Step:
        if self.answer is None:
            raise Aborted("the key holder sent no key")
        keys, session = self.answer, self.session
        bodies = {client(i): ClientKeys(keys.published, box) for i, box in keys.boxes.items()}
        adding = CKKSAccumulator(Adder.empty(scheme(session)))
        state = AddsCiphertexts(session, tuple(keys.boxes), HOLDER, adding)
        return Step(state, requests(session, INPUT, bodies))
