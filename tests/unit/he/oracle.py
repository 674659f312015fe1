"""A session of encrypted sums up to its opening, and what an attacker makes of its ciphertexts and tickets."""

import hashlib
from dataclasses import dataclass, replace

import gmpy2
import numpy as np
import pytest

from he import KeyHolder, PaillierSum, SharedByClients
from he.arrangements import Arrangement
from he.paillier.cipher import add, encrypt, parse, serialise
from he.paillier.messages import DECRYPT, DecryptRequest, Ticket
from he.paillier.randomisers import Randomisers
from he.roles.messages import (
    INPUT,
    OPEN,
    EncryptedInput,
    OpenRequest,
)
from protocols.kernel import Message, Party, State, client
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.session import Session
from tests.paillier_fixed import fixed

RANDOM = SystemRandom()
INPUTS = [np.array([10 * i, -i, 3]) for i in range(1, 5)]
POLICY = Policy(min_survivors=2)


@dataclass
class Scene:
    """A session up to the moment at which the server asks for the opening."""

    protocol: PaillierSum
    session: Session
    opener: State
    asked: Message
    contributions: dict[int, EncryptedInput]

    def ask(self, request: OpenRequest | DecryptRequest) -> Message:
        return replace(self.asked, body=request.encode())


def scene(protocol: PaillierSum, **options: int) -> Scene:
    session = protocol.session(["a", "b", "c", "d"], 3, 50, random=RANDOM, **options)
    server = protocol.server(session, random=RANDOM)
    parties: dict[Party, State] = {
        client(i): protocol.client(session, i, INPUTS[i], random=RANDOM, policy=POLICY).state
        for i in range(4)
    }
    parties |= {
        p: protocol.helper(session, p, random=RANDOM, policy=POLICY).state for p in protocol.helpers(session)
    }
    step, contributions = server, {}
    while step.send[0].stage not in (OPEN, DECRYPT):
        state = step.state
        for request in step.send:
            answered = parties[request.recipient].receive(request, RANDOM)
            parties[request.recipient] = answered.state
            if request.stage == INPUT:
                contributions[request.recipient.number] = EncryptedInput.decode(answered.send[0].body)
            state = state.receive(answered.send[0], RANDOM).state
        step = state.close(RANDOM)
    asked = step.send[0]
    return Scene(protocol, session, parties[asked.recipient], asked, contributions)


def opening(arrangement: Arrangement) -> Scene:
    return scene(fixed(arrangement))


HELD = pytest.mark.parametrize("arrangement", [KeyHolder(), SharedByClients()], ids=str)


def rerandomised(data: bytes, protocol: PaillierSum) -> bytes:
    public = protocol.keys.encryption
    values = parse(data, len(data) // public.ciphertext_bytes, public)
    zeros = parse(encrypt([0] * len(values), Randomisers(public), RANDOM), len(values), public)
    return serialise(add(values, zeros, public), public)


def plus(data: bytes, protocol: PaillierSum, amount: int) -> bytes:
    public = protocol.keys.encryption
    values = parse(data, len(data) // public.ciphertext_bytes, public)
    n = gmpy2.mpz(public.n)
    return serialise([values[0] * (1 + amount * n) % n**2, *values[1:]], public)


def forged(c: EncryptedInput, ciphertexts: bytes) -> EncryptedInput:
    given = Ticket.decode(c.ticket)
    digest = hashlib.sha256(ciphertexts).digest()
    return EncryptedInput(ciphertexts, Ticket(given.tag, digest, given.signature).encode())
