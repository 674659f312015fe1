"""Decryptor (Threshold), its only state: it adds what the clients signed by itself, and decrypts its part
of that sum, once.

It takes no sum from the server: whatever the server and fewer than t decryptors make up, the others decrypt
the sum of at least `least` signed contributions or nothing; and each of those proves that its client knows what it
encrypted, so that none was made of another's.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.cipher import add_all, serialise_residues
from he.paillier.messages import DECRYPT, DecryptRequest, Partial, decode, expect_indices
from he.paillier.parameters import least_survivors
from he.paillier.proofs import prove
from he.paillier.threshold import KeyShare, partial_decrypt
from protocols.kernel import SERVER, Left, Message, Party, State, Step, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


def decryptor(number: int) -> Party:
    """Return the party that holds share `number` + 1."""
    return Party("decryptor", number)


@dataclass(frozen=True)
class HasShare(State):
    """Decrypts its part of the sum of at least `least` clients."""

    TAG: ClassVar[int | None] = 25

    session: Session
    share: KeyShare = field(repr=False)
    signers: bytes
    least: int

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, session, public = decryptor(self.share.index - 1), self.session, self.share.key.public
        expect(request, session.context, DECRYPT, "server", me)
        given = decode(DecryptRequest, request.body, "server").contributions
        expect_indices(list(given), max(self.least, least_survivors(session)), session.clients)
        vectors = (c.known(session, i, self.signers, public) for i, c in given.items())
        total = add_all(vectors, public)
        parts = partial_decrypt(self.share, total)
        proof = prove(self.share, total, parts, session.context, random)
        answer = message(
            session.context, DECRYPT, me, SERVER, Partial(serialise_residues(parts, public), proof).encode()
        )
        return Step(Left(), (answer,), marks=(f"answered/{session.context.hex()}",))
