"""A secure sum for clients that share a key and never leave: pads that cancel in the sum of all of them."""

import hmac
import os
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from protocols import SecureSum
from protocols.codec import Record, tags
from protocols.errors import Misuse, PeerError, TooFewSurvivors
from protocols.kernel import Left, Message, Step, client, spending
from protocols.plain import PlainInput
from protocols.policy import Demands
from protocols.protocol import ClientStart, Stage
from protocols.randomness import SecureRandom
from protocols.roles import Ask, Asked, Asking, requests
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, Total, centred


def stream(key: bytes, session: Session, place: int) -> NDArray[np.uint64]:
    """AES-256-CTR under a key of this session and place. Client i adds stream i and takes stream i + 1 away."""
    own = hmac.digest(key, session.context + (place % session.clients).to_bytes(4, "big"), "sha256")
    cipher = Cipher(algorithms.AES256(own), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * session.dimension)), "<u8")


@dataclass(frozen=True, eq=False)
class Collecting(Asking):  # the server's only state
    TAG = 16
    STAGE = "input"
    session: Session
    total: NDArray[np.uint64]
    answers: dict[int, bool]

    def receive(self, message: Message, random: SecureRandom) -> Step:
        index, given = self.take(PlainInput, message)
        if given.vector.shape != self.total.shape:
            raise PeerError(
                f"expected {self.total.size} numbers, got {given.vector.size}", str(message.sender)
            )
        np.add(self.total, given.vector.view(np.uint64), out=self.total)
        self.answers[index] = True
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        if len(self.answers) < self.session.clients:
            raise TooFewSurvivors(f"expected all {self.session.clients} clients, got {len(self.answers)}")
        modulus = int(self.session.modulus) or 1 << 64
        return Step(Total(centred(self.total, modulus), tuple(sorted(self.answers))))


@dataclass(frozen=True, eq=False)
class Ready(Asked):  # a client's only state; secrets stay out of its repr
    TAG = 17
    STAGE = "input"
    session: Session
    index: int
    padded: IntVector = field(repr=False)
    update: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Ask, request)
        return Step(Left(), self.answer(PlainInput(self.padded)), marks=(spending(self.update),))


class KeyedSum(SecureSum):
    name = "keyed"
    kinds = tags(Collecting, Ready)

    # 32 bytes that clients share (None: of one process)
    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(32)

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Record:
        if modulus & (modulus - 1):
            raise Misuse(f"expected a sum over Z or modulo a power of two, got modulus {modulus}")
        return Ask()

    def stages(self, session: Session) -> tuple[Stage, ...]:
        return (Stage("input", counts=True),)

    def demands(self, session: Session) -> Demands:
        return Demands(session.clients, session.clients, 64, "semi-honest", simulated=session.simulated)

    def protection(self, session: Session) -> Protection:
        learns = {"server": "the sum over all clients", "clients": "what the server publishes"}
        limits = ("the sum itself may reveal an update", "one client that leaves ends the session")
        assumed = ("the server follows the protocol", "AES-256-CTR and HMAC-SHA256 are pseudo-random")
        collusion = "the server with any one client reads every update"
        mine = ("pads that cancel", "semi-honest", "every client's vector within the sum")
        return Protection(*mine, learns, assumed, collusion, limits)

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        asks = requests(session, "input", dict.fromkeys(map(client, range(session.clients)), Ask()))
        return Step(Collecting(session, np.zeros(session.dimension, np.uint64), {}), asks)

    def _client(self, start: ClientStart[IntVector]) -> Step:
        here, there = (stream(self._key, start.session, start.index + i) for i in (0, 1))
        return Step(
            Ready(start.session, start.index, start.vector + (here - there).view(np.int64), start.update)
        )
