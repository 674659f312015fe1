"""Server, first state (Threshold): gathers signed contributions, for the decryptors add them by themselves."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.cipher import add_all, parse, serialise
from he.paillier.holders.decryptor import decryptor
from he.paillier.messages import DECRYPT, INPUT, Contribution, DecryptRequest, decode
from he.paillier.parameters import PaillierParameters
from he.paillier.server.combining import Combining
from he.paillier.server.survivors import enough, newcomer
from he.paillier.threshold import ThresholdKey
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass
class Gathering(State):
    """contributions: by client, as they were signed."""

    TAG: ClassVar[int | None] = 34

    session: Session
    key: ThresholdKey
    signers: bytes
    contributions: dict[int, Contribution] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """Ciphertexts per client."""
        return PaillierParameters.decode(self.session.parameters).packing.plaintexts(self.session.dimension)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, INPUT, "client", SERVER)
        index = newcomer(message, self.session, self.contributions)
        sent = decode(Contribution, message.body, str(message.sender))
        sent.known(self.session, index, self.signers, self.key.public)
        self.contributions[index] = sent
        return Step(self)

    def waiting_for(self) -> Iterable[Party]:
        return [client(i) for i in range(self.session.clients) if i not in self.contributions]

    def close(self, random: SecureRandom) -> Step:
        survivors, public = enough(self.contributions, self.session), self.key.public
        vectors = (parse(c.ciphertexts, self.count, public) for c in self.contributions.values())
        total = serialise(add_all(vectors, public), public)
        body = DecryptRequest(self.contributions).encode()
        asks = tuple(
            message(self.session.context, DECRYPT, SERVER, decryptor(number), body)
            for number in range(self.key.holders)
        )
        return Step(Combining(self.session, self.key, survivors, total), asks)
