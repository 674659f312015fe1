"""A client's contribution is signed under a roster, for the session's own key, and refused by name if malformed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from he import KeyHolder, PaillierSum, Threshold
from he.arrangements import Arrangement
from he.paillier.messages import Ticket
from he.roles.messages import (
    INPUT,
    EncryptedInput,
)
from protocols import simulate
from protocols.errors import (
    Misuse,
    PeerError,
    WireError,
)
from protocols.identity import Identity, Member, Roster
from protocols.kernel import Message
from tests.paillier_fixed import keyholder, ring, threshold
from tests.unit.he.oracle import INPUTS, RANDOM, forged


def with_roster(arrangement: Arrangement, names: list[str]) -> tuple[list[PaillierSum], PaillierSum]:
    """One instance per client with its own identity, and one for everybody else."""
    identities = [Identity.generate(name) for name in names]
    roster = Roster.of("f", 1, [Member(i.name, "client", i.public) for i in identities])
    keys = ring(arrangement)
    own = [PaillierSum(arrangement, key_bits=2048, keys=keys, identity=i, roster=roster) for i in identities]
    return own, PaillierSum(arrangement, key_bits=2048, keys=keys, roster=roster)


@pytest.mark.parametrize("arrangement", [KeyHolder(), Threshold(2, 3)], ids=str)
def test_contributions_are_signed_under_a_roster(arrangement: Arrangement) -> None:
    names = ["a", "b", "c"]
    clients, other = with_roster(arrangement, names)
    session = other.session(names, 3, 50, random=RANDOM)
    assert other.demands(session).threat == "malicious"
    assert other.demands(session).signed_roster
    server = other.server(session, random=RANDOM)
    steps = [clients[i].client(session, i, INPUTS[i], random=RANDOM) for i in range(3)]
    answers = [s.state.receive(m, RANDOM).send[0] for s, m in zip(steps, server.send, strict=True)]
    stolen = replace(answers[1], sender_index=2)
    with pytest.raises(PeerError, match="not signed by it"):
        server.state.receive(stolen, RANDOM)
    unsigned = EncryptedInput.decode(answers[0].body)
    bare = replace(unsigned, ticket=replace(Ticket.decode(unsigned.ticket), signature=bytes(64)).encode())
    with pytest.raises(PeerError, match="not signed by it"):
        server.state.receive(replace(answers[0], body=bare.encode()), RANDOM)
    state = server.state
    for answer in answers:
        state = state.receive(answer, RANDOM).state
    requests = state.close(RANDOM).send
    holder = other.helper(session, requests[0].recipient, random=RANDOM).state
    assert holder.receive(requests[0], RANDOM).send  # a key holder opens, a decryptor votes
    with pytest.raises(Misuse, match="identity of 'b'"):
        clients[0].client(session, 1, INPUTS[1], random=RANDOM)


# -- a client's own messages --


def test_a_client_of_another_key_is_refused_before_anything_leaves() -> None:
    session = keyholder().session(["a", "b"], 3, 50, random=RANDOM)
    other = PaillierSum(KeyHolder(), key_bits=2048)
    with pytest.raises(Misuse, match="follow from this party's key"):
        other.client(session, 0, INPUTS[0], random=RANDOM)


@pytest.mark.parametrize("make", [keyholder, threshold])
def test_bad_ciphertexts_are_refused_and_named_by_the_server(make: Callable[[], PaillierSum]) -> None:
    protocol = make()
    size = protocol.keys.encryption.ciphertext_bytes
    bad = {1: lambda c: c[:-1], 2: lambda c: c + c[:size], 3: lambda c: b"\xff" * size}

    def tamper(sent: Message) -> Message:
        if sent.stage != INPUT or sent.sender.number not in bad or sent.sender.role != "client":
            return sent
        given = EncryptedInput.decode(sent.body)
        return replace(sent, body=forged(given, bad[sent.sender.number](given.ciphertexts)).encode())

    inputs = [*INPUTS, *(np.array([1, 2, i]) for i in range(3))]
    outcome = simulate(protocol, inputs, tamper=tamper)
    assert outcome.survivors == (0, 4, 5, 6)
    assert outcome.total.tolist() == (inputs[0] + inputs[4] + inputs[5] + inputs[6]).tolist()
    for index in bad:
        assert isinstance(outcome.refusals[f"server about {index}"], WireError)
        assert outcome.refusals[f"server about {index}"].party == f"client {index}"
