"""Hostile bytes at every state of a CKKS sum: a typed error or an answer, never a crash; and SEAL never parses them."""

import random as seeded
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

import he.ckks.ciphertexts as ciphertexts
from he.arrangements import SharedByClients
from he.ckks import CKKSSum, SharedKey
from protocols import SecureSum, simulate
from protocols.errors import SecAggError, WireError
from protocols.kernel import SERVER, Message, Party, State, client
from protocols.randomness import SystemRandom
from protocols.session import Session
from tests.contracts.secure_sum import vectors

MUTATIONS = 25
RANDOM = SystemRandom()


def mutations(body: bytes, source: seeded.Random) -> Iterator[bytes]:
    """Bits flipped, bytes cut, repeated, inserted; lengths at the front made huge."""
    for _ in range(MUTATIONS):
        data = bytearray(body)
        at = source.randrange(len(data) + 1)
        kind = source.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << source.randrange(8)
        elif kind == 1:
            del data[at : at + source.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = source.randbytes(source.randrange(1, 40))
        elif kind == 3:
            data[at : at + 8] = b"\xff" * 8
        else:
            data = data[:at]
        yield bytes(data)
    yield b""
    yield body + body
    yield b"\xff" * 64


def transcript(protocol: SecureSum, session: Session) -> list[tuple[bytes, Message]]:
    """Every delivery of a session: the recipient's encoded state, and the message."""
    inputs = vectors(3, session.dimension, session.bound, 5)
    states: dict[Party, State] = {
        client(i): protocol.client(session, i, inputs[i], random=RANDOM).state for i in range(3)
    }
    for party in protocol.helpers(session):
        states[party] = protocol.helper(session, party, random=RANDOM).state
    step, seen = protocol.server(session, random=RANDOM), []
    states[SERVER], queue = step.state, step.send
    for _ in protocol.stages(session):
        for request in queue:
            seen.append((protocol.encode_state(states[request.recipient]), request))
            taken = states[request.recipient].receive(request, RANDOM)
            states[request.recipient] = taken.state
            for answer in taken.send:
                seen.append((protocol.encode_state(states[SERVER]), answer))
                states[SERVER] = states[SERVER].receive(answer, RANDOM).state
        closed = states[SERVER].close(RANDOM)
        states[SERVER], queue = closed.state, closed.send
    return seen


@pytest.mark.parametrize(
    "protocol", [CKKSSum(), CKKSSum(SharedByClients(), key=SharedKey(b"f" * 32))], ids=["keyholder", "shared"]
)
def test_mutated_messages_and_states_give_typed_errors(protocol: CKKSSum) -> None:
    session = protocol.session(["a", "b", "c"], 5, 100, random=RANDOM)
    source = seeded.Random(2026)
    refused = answered = 0
    for state, message in transcript(protocol, session):
        for body in mutations(message.body, source):
            changed = Message(
                *(getattr(message, name) for name in list(Message.__dataclass_fields__)[:-1]), body
            )
            try:
                protocol.decode_state(state).receive(changed, RANDOM)
                answered += 1
            except SecAggError:
                refused += 1
        for data in mutations(state, source):
            try:
                protocol.decode_state(data)
            except WireError:
                refused += 1
    assert refused > answered > 0


def test_no_mutated_sum_opens_to_another_total() -> None:
    """Bits flipped in what goes to the holder: the same total (a dropped bit's worth of noise), or none."""
    protocol, source = CKKSSum(), seeded.Random(7)
    inputs = vectors(3, 5, 100, 8)
    exact = np.sum(inputs, axis=0).tolist()
    for _ in range(60):

        def flip(sent: Message) -> Message:
            if sent.stage != "open" or sent.sender != SERVER:
                return sent
            body = bytearray(sent.body)
            body[source.randrange(len(body))] ^= 1 << source.randrange(8)
            return Message(
                *(getattr(sent, name) for name in list(Message.__dataclass_fields__)[:-1]), bytes(body)
            )

        with suppress(SecAggError):
            assert simulate(protocol, inputs, bound=100, tamper=flip).total.tolist() == exact


def test_sizes_are_checked_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that announces gigabytes costs nothing: its length decides, before any array is made."""
    protocol = CKKSSum()
    parameters = protocol.scheme_parameters(3, 5, 100, 0)
    adder = ciphertexts.Adder.empty(parameters)

    def forbidden(*_: object) -> None:
        raise AssertionError("an array was made")

    monkeypatch.setattr(ciphertexts.np, "frombuffer", forbidden)
    for upload in (ciphertexts.Upload(b"", b"", b""), ciphertexts.Upload(*[bytes(1 << 20)] * 3)):
        with pytest.raises(WireError, match="bytes"):
            adder.add(upload)
