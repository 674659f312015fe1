"""Server, second state (Threshold): collects partial decryptions, names the wrong ones, and combines t
right ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from he.paillier.cipher import parse, parse_residues
from he.paillier.holders.decryptor import decryptor
from he.paillier.messages import DECRYPT, Partial, blaming, decode
from he.paillier.parameters import PaillierParameters, total_of
from he.paillier.proofs import WrongPartial, check
from he.paillier.threshold import ThresholdKey, combine
from protocols.errors import Aborted, PeerError, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, Step, expect
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total


@dataclass
class Combining(State):
    """sum: the ciphertexts of the sum. partials: by decryptor, well-formed; their proofs are checked when
    the stage closes.
    """

    TAG: ClassVar[int | None] = 35

    session: Session
    key: ThresholdKey
    survivors: tuple[int, ...]
    sum: bytes = field(repr=False)
    partials: dict[int, Partial] = field(default_factory=dict, repr=False)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, DECRYPT, "decryptor", SERVER)
        who = str(message.sender)
        if message.sender not in self.waiting_for():
            raise ProtocolViolation(f"{who} was not asked to decrypt, or has answered already", who)
        sent = decode(Partial, message.body, who)
        self._parsed(sent, who)
        self.partials[message.sender.number] = sent
        return Step(self)

    def waiting_for(self) -> Iterable[Party]:
        return [decryptor(number) for number in range(self.key.holders) if number not in self.partials]

    def close(self, random: SecureRandom) -> Step:
        ciphertexts = parse(self.sum, self._count, self.key.public)
        right, blamed = self._judged(ciphertexts)
        if len(right) < self.key.t:
            wrong = f"; wrong: {', '.join(blamed)}" if blamed else ""
            raise TooFewSurvivors(
                f"expected right partial decryptions of {self.key.t} decryptors, got {len(right)}{wrong}"
            )
        opened = combine(self.key, ciphertexts, dict(list(right.items())[: self.key.t]))
        packing = PaillierParameters.decode(self.session.parameters).packing
        try:
            digits = packing.unpack(opened, self.session.dimension)
        except PeerError:
            raise Aborted(
                "a client encrypted something that is no vector of this session; it cannot be told which"
            ) from None
        return Step(Total(total_of(digits, self.session), self.survivors, blamed))

    @property
    def _count(self) -> int:
        """Ciphertexts of the sum."""
        return PaillierParameters.decode(self.session.parameters).packing.plaintexts(self.session.dimension)

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
        with blaming(who):
            return parse_residues(sent.partials, self._count, self.key.public)
