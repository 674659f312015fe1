"""Where decryptors open: a decryptor's state, and the server's states that gather inputs, votes and parts. What does
not belong here: partial decryption and its proofs.

A decryptor takes no sum from the server: it votes for one list of contributions, adds by itself what a quorum of
decryptors voted for, and decrypts its part of that sum, once. And its part alone binds it to no list: parts are powers,
and those of different sums multiply, so that a server who had three decryptors decrypt the sums of {a, b}, {a} and {b}
could open 3a + 4b. Only a certificate that there is one list, which decryptors give before any of them decrypts,
prevents that.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from gmpy2 import mpz

from he.paillier.cipher import add_all, parse, parse_residues, serialise, serialise_residues
from he.paillier.messages import DECRYPT, DecryptRequest, Partial, ciphertexts_of, known, parse_named
from he.paillier.parameters import scheme, total_of
from he.paillier.proofs import WrongPartial, check, prove
from he.paillier.threshold import KeyShare, ThresholdKey, combine, partial_decrypt
from he.roles import voting
from he.roles.messages import AGREE, DECRYPTOR, INPUT, EncryptedInput, Listed
from he.roles.scheme import expect_clients
from he.roles.server import GathersVotes, survivors_of
from protocols.agreement import certify, check_vote, quorum
from protocols.errors import Aborted, PeerError, TooFewSurvivors
from protocols.kernel import Left, Message, Party, Step
from protocols.randomness import SecureRandom
from protocols.roles import Asked, Asking, naming, requests
from protocols.session import Session
from protocols.summation import Total


def decryptor(number: int) -> Party:
    """Return the party that holds share `number` + 1."""
    return Party(DECRYPTOR, number)


@dataclass(frozen=True)
class HoldsShare(Asked):
    """Decrypts its part of the sum of the clients that were agreed on. It need not have voted itself."""

    TAG = 25
    STAGE = DECRYPT

    session: Session
    share: KeyShare = field(repr=False)
    signers: bytes
    voted: bool = False

    @property
    def party(self) -> Party:
        return decryptor(self.share.index - 1)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        if request.stage == AGREE and not self.voted:
            me = voting.voter(self.share.vote, str(self.party))
            _, send, mark = voting.answered(self, request, me)
            return Step(replace(self, voted=True), send, marks=(mark,))
        return self._decrypt(self.take(DecryptRequest, request), random)

    def _decrypt(self, asked: DecryptRequest, random: SecureRandom) -> Step:
        session, key = self.session, self.share.key
        expect_clients(session, asked.inputs)
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


@dataclass(frozen=True)
class GathersInputs(Asking):
    """answers: by client, as they were sent: decryptors add them by themselves."""

    TAG = 34
    STAGE = INPUT

    session: Session
    key: ThresholdKey
    signers: bytes
    answers: dict[int, EncryptedInput] = field(default_factory=dict, repr=False)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        index, given = self.take(EncryptedInput, sent)
        known(given, self.session, index, self.signers, self.key.public)
        self.answers[index] = given
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        survivors_of(self.session, self.answers)
        holders = tuple(range(self.key.holders))
        listed = Listed.of({i: sent.ticket for i, sent in self.answers.items()})
        asks = requests(self.session, AGREE, {decryptor(number): listed for number in holders})
        return Step(GathersDecryptorVotes(self.session, holders, {}, self.key, listed, self.answers), asks)


@dataclass(frozen=True)
class GathersDecryptorVotes(GathersVotes):
    """A wrong vote is named and counts as none. listed: what is voted on."""

    TAG = 37
    ROLE = DECRYPTOR

    key: ThresholdKey
    listed: Listed
    inputs: dict[int, EncryptedInput] = field(repr=False)

    def check_signature(self, number: int, signature: bytes) -> None:
        digest = voting.digest(self.session.context, self.listed)
        check_vote(self.key.voters[number], digest, signature, str(decryptor(number)))

    def close(self, random: SecureRandom) -> Step:
        session, public = self.session, self.key.public
        needed = quorum(self.key.holders, scheme(session).corrupt)
        request = DecryptRequest(self.inputs, certify(self.answers, needed))
        vectors = (parse(sent.ciphertexts, ciphertexts_of(session), public) for sent in self.inputs.values())
        total = serialise(add_all(vectors, public), public)
        asks = requests(session, DECRYPT, {decryptor(number): request for number in self.voters})
        return Step(CombinesParts(session, self.key, tuple(sorted(self.inputs)), total), asks)


@dataclass(frozen=True)
class CombinesParts(Asking):
    """Names wrong parts, and combines t right ones. sum: the ciphertexts of the sum. answers: by decryptor,
    well-formed; their proofs are checked when the stage closes.
    """

    TAG = 35
    STAGE = DECRYPT
    ROLE = DECRYPTOR

    session: Session
    key: ThresholdKey
    survivors: tuple[int, ...]
    sum: bytes = field(repr=False)
    answers: dict[int, Partial] = field(default_factory=dict, repr=False)

    def asked(self) -> Collection[int]:
        return range(self.key.holders)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number, part = self.take(Partial, sent)
        self._parsed(part, str(sent.sender))
        self.answers[number] = part
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        ciphertexts = parse_named(self.sum, self.session, self.key.public, "server")
        right, blamed = self._judged(ciphertexts)
        if len(right) < self.key.t:
            wrong = f"; wrong: {', '.join(blamed)}" if blamed else ""
            raise TooFewSurvivors(
                f"expected right partial decryptions of {self.key.t} decryptors, got {len(right)}{wrong}"
            )
        opened = combine(self.key, ciphertexts, dict(list(right.items())[: self.key.t]))
        try:
            digits = scheme(self.session).packing.unpack(opened, self.session.dimension)
        except PeerError:
            raise Aborted(
                "a client encrypted something that is no vector of this session; it cannot be told which"
            ) from None
        return Step(Total(total_of(digits, self.session), self.survivors, blamed))

    def _judged(self, ciphertexts: list[mpz]) -> tuple[dict[int, list[mpz]], tuple[str, ...]]:
        """Return the right partial decryptions by holder (from 1), and who sent wrong ones."""
        right: dict[int, list[mpz]] = {}
        blamed = []
        for number, sent in sorted(self.answers.items()):
            who = str(decryptor(number))
            parts = self._parsed(sent, who)
            try:
                check(self.key, number + 1, ciphertexts, parts, self.session.context, sent.proof)
            except WrongPartial:
                blamed.append(who)
                continue
            right[number + 1] = parts
        return right, tuple(blamed)

    def _parsed(self, sent: Partial, who: str) -> list[mpz]:
        with naming(who):
            return parse_residues(sent.partials, ciphertexts_of(self.session), self.key.public)
