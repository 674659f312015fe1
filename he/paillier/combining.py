"""The server's states where decryptors open: it gathers what clients sent, then the decryptors' votes for that list,
then their parts, which it combines. What does not belong here: partial decryption and its proofs, decryptors.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from he.paillier.cipher import add_all, parse, parse_residues, serialise
from he.paillier.decryptor import decryptor
from he.paillier.messages import DECRYPT, DecryptRequest, Partial, ciphertexts_of, known, parse_named
from he.paillier.parameters import scheme, total_of
from he.paillier.proofs import WrongPartial, check
from he.paillier.threshold import ThresholdKey, combine
from he.roles import voting
from he.roles.messages import AGREE, INPUT, EncryptedInput, Listed, decode
from he.roles.server import GathersVotes, answering, requests, survivors_of
from protocols.agreement import certify, check_vote, quorum
from protocols.errors import Aborted, PeerError, TooFewSurvivors, WireError
from protocols.kernel import Message, Party, State, Step, client
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total


@dataclass
class GathersInputs(State):
    """inputs: by client, as they were sent: decryptors add them by themselves."""

    TAG: ClassVar[int | None] = 34

    session: Session
    key: ThresholdKey
    signers: bytes
    inputs: dict[int, EncryptedInput] = field(default_factory=dict, repr=False)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        index = answering(self.session, sent, INPUT, "client", range(self.session.clients), self.inputs)
        given = decode(EncryptedInput, sent.body, str(sent.sender))
        known(given, self.session, index, self.signers, self.key.public)
        self.inputs[index] = given
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in range(self.session.clients) if i not in self.inputs]

    def close(self, random: SecureRandom) -> Step:
        survivors_of(self.session, self.inputs)
        holders = tuple(range(self.key.holders))
        listed = Listed.of({i: sent.ticket for i, sent in self.inputs.items()})
        asks = requests(self.session, AGREE, {decryptor(number): listed for number in holders})
        return Step(GathersDecryptorVotes(self.session, holders, {}, self.key, listed, self.inputs), asks)


@dataclass(frozen=True)
class GathersDecryptorVotes(GathersVotes):
    """Any wrong vote is named and counts as none. listed: what is voted on."""

    TAG: ClassVar[int | None] = 37
    role: ClassVar[str] = "decryptor"

    key: ThresholdKey
    listed: Listed
    inputs: dict[int, EncryptedInput] = field(repr=False)

    def check_signature(self, number: int, signature: bytes) -> None:
        digest = voting.digest(self.session.context, self.listed)
        check_vote(self.key.voters[number], digest, signature, str(decryptor(number)))

    def close(self, random: SecureRandom) -> Step:
        session, public = self.session, self.key.public
        needed = quorum(self.key.holders, scheme(session).corrupt)
        request = DecryptRequest(self.inputs, certify(self.votes, needed))
        vectors = (parse(sent.ciphertexts, ciphertexts_of(session), public) for sent in self.inputs.values())
        total = serialise(add_all(vectors, public), public)
        asks = requests(session, DECRYPT, {decryptor(number): request for number in self.asked})
        return Step(CombinesParts(session, self.key, tuple(sorted(self.inputs)), total), asks)


@dataclass
class CombinesParts(State):
    """Names wrong parts, and combines t right ones. sum: the ciphertexts of the sum. partials: by decryptor,
    well-formed; their proofs are checked when the stage closes.
    """

    TAG: ClassVar[int | None] = 35

    session: Session
    key: ThresholdKey
    survivors: tuple[int, ...]
    sum: bytes = field(repr=False)
    partials: dict[int, Partial] = field(default_factory=dict, repr=False)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number = answering(self.session, sent, DECRYPT, "decryptor", range(self.key.holders), self.partials)
        part = decode(Partial, sent.body, str(sent.sender))
        self._parsed(part, str(sent.sender))
        self.partials[number] = part
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [decryptor(number) for number in range(self.key.holders) if number not in self.partials]

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

    def _judged(self, ciphertexts: list[Any]) -> tuple[dict[int, list[Any]], tuple[str, ...]]:
        """Return the right partial decryptions by holder (from 1), and who sent wrong ones."""
        right: dict[int, list[Any]] = {}
        blamed = []
        for number, sent in sorted(self.partials.items()):
            who = str(decryptor(number))
            parts = self._parsed(sent, who)
            try:
                check(self.key, number + 1, ciphertexts, parts, self.session.context, sent.proof)
            except WrongPartial:
                blamed.append(who)
                continue
            right[number + 1] = parts
        return right, tuple(blamed)

    def _parsed(self, sent: Partial, who: str) -> list[Any]:
        try:
            return parse_residues(sent.partials, ciphertexts_of(self.session), self.key.public)
        except WireError as error:
            raise WireError(f"{who}: {error}", who) from None
