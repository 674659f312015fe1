"""A decryptor's state: it votes for one list of contributions, adds by itself what a quorum of decryptors voted
for, and decrypts its part of that sum, once. What does not belong here: partial decryption itself, the server's side.

It takes no sum from the server. And its part alone binds it to no list: parts are powers, and those of different sums
multiply, so that a server who had three decryptors decrypt the sums of {a, b}, {a} and {b} could open 3a + 4b. Only a
certificate that there is one list, which decryptors give before any of them decrypts, prevents that.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from he.paillier.cipher import add_all, serialise_residues
from he.paillier.messages import DECRYPT, DecryptRequest, Partial, known
from he.paillier.parameters import scheme
from he.paillier.proofs import prove
from he.paillier.threshold import KeyShare, partial_decrypt
from he.roles import voting
from he.roles.messages import AGREE, DECRYPTOR, Listed
from he.roles.parameters import expect_clients
from protocols.kernel import Left, Message, Party, Step
from protocols.randomness import SecureRandom
from protocols.roles import Asked
from protocols.session import Session


def decryptor(number: int) -> Party:
    """Return the party that holds share `number` + 1."""
    return Party(DECRYPTOR, number)


@dataclass(frozen=True)
class HoldsShare(Asked):
    """Decrypts its part of the sum of at least `least` clients. It need not have voted itself."""

    TAG: ClassVar[int | None] = 25
    STAGE: ClassVar[str] = DECRYPT

    session: Session
    share: KeyShare = field(repr=False)
    signers: bytes
    least: int
    voted: bool = False

    @property
    def party(self) -> Party:
        return decryptor(self.share.index - 1)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        if request.stage == AGREE and not self.voted:
            me = voting.voter(self.share.vote, str(self.party))
            _, send, mark = voting.answered(self, request, me, self.least)
            return Step(replace(self, voted=True), send, marks=(mark,))
        return self._decrypt(self.take(DecryptRequest, request), random)

    def _decrypt(self, asked: DecryptRequest, random: SecureRandom) -> Step:
        session, key = self.session, self.share.key
        expect_clients(session, asked.inputs, self.least)
        listed = Listed.of({i: sent.ticket for i, sent in asked.inputs.items()})
        corrupt = scheme(session).corrupt
        voting.expect_agreement(session.context, listed, asked.certificate, key.voters, corrupt, DECRYPTOR)
        inputs = asked.inputs.items()
        vectors = (known(sent, session, i, self.signers, key.public) for i, sent in inputs)
        total = add_all(vectors, key.public)
        parts = partial_decrypt(self.share, total)
        proof = prove(self.share, total, parts, session.context, random)
        answer = self.answer(Partial(serialise_residues(parts, key.public), proof))
        return Step(Left(), answer, marks=(f"answered/{session.context.hex()}",))
