"""Sessions beside each other and after each other, and clients that use what others sent: nothing more than one sum
of each is opened, in every arrangement of both schemes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from he import CKKSSum, KeyHolder, PaillierSum, SharedByClients, Threshold
from he.ckks import SharedKey
from he.paillier.messages import DECRYPT, DecryptRequest
from he.roles.messages import (
    AGREE,
    INPUT,
    OPEN,
    EncryptedInput,
    Listed,
    OpenRequest,
)
from he.roles.sum import HomomorphicSum
from protocols import SecureSum, simulate
from protocols.errors import (
    Aborted,
    Misuse,
    PeerError,
    PolicyRefusal,
    SpentUpdate,
    TooFewSurvivors,
)
from protocols.kernel import SERVER, Message, Party, State, client
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.store import MemoryStore, Store
from protocols.summation import Total
from tests.paillier_fixed import fixed, ring

RANDOM = SystemRandom()
NAMES = ("a", "b", "c", "d")
FORMATS = Path(__file__).parents[2] / "vectors" / "formats"
INPUTS = [np.array([7, -3]), np.array([1, 1]), np.array([0, 20]), np.array([5, 5])]
SUMS: dict[str, Callable[[], SecureSum]] = {
    "paillier, key holder": lambda: fixed(KeyHolder()),
    "paillier, shared": lambda: fixed(SharedByClients()),
    "paillier, threshold": lambda: fixed(Threshold(3, 4)),
    "ckks, key holder": CKKSSum,
    "ckks, shared": lambda: CKKSSum(SharedByClients(), key=SharedKey(b"n" * 32)),
}
ALL = pytest.mark.parametrize("make", SUMS.values(), ids=list(SUMS))
Change = Callable[[Message], Message]


@dataclass
class Played:
    """A session on the stores of its parties. change: what the server makes of messages on their way."""

    protocol: SecureSum
    stores: dict[str, Store]
    change: Change = lambda sent: sent

    def __post_init__(self) -> None:
        self.session: Session = self.protocol.session(NAMES, 2, 50, random=RANDOM)
        self.inputs: dict[int, EncryptedInput] = {}
        self.refused: list[Exception] = []

    def run(self, clients: Mapping[int, np.ndarray], updates: Mapping[int, bytes]) -> State:
        runtimes: dict[Party, Runtime] = {}
        for i, vector in clients.items():
            step = self.protocol.client(self.session, i, vector, random=RANDOM, update=updates[i])
            runtimes[client(i)] = Runtime(self.protocol, self.session, self.stores[NAMES[i]])
            runtimes[client(i)].begin(step)
        for party in self.protocol.helpers(self.session):
            runtimes[party] = Runtime(self.protocol, self.session, self.stores[str(party)])
            runtimes[party].begin(self.protocol.helper(self.session, party, random=RANDOM))
        step = self.protocol.server(self.session, random=RANDOM)
        while not step.state.finished:
            state = step.state
            for request in step.send:
                if request.recipient not in runtimes:
                    continue
                try:
                    answers = runtimes[request.recipient].handle(self.change(request))
                except (PeerError, PolicyRefusal) as error:
                    self.refused.append(error)
                    continue
                for answer in answers:
                    state = self._taken(state, self.change(answer))
            step = state.close(RANDOM)
        return step.state

    def _taken(self, state: State, answer: Message) -> State:
        try:
            state = state.receive(answer, RANDOM).state
        except PeerError as error:
            self.refused.append(error)
            return state
        if answer.stage == INPUT:
            self.inputs[answer.sender.number] = EncryptedInput.decode(answer.body)
        return state


def stores() -> dict[str, Store]:
    helpers = ["key-holder 0", *(f"decryptor {i}" for i in range(4))]
    return {name: MemoryStore() for name in (*NAMES, *helpers)}


UPDATES = {i: bytes([i]) * 32 for i in range(4)}


@ALL
def test_a_feigned_abort_gives_no_second_total_of_the_same_updates(make: Callable[[], SecureSum]) -> None:
    """The server keeps the first total to itself and asks all but one for a retry: every update is spent."""
    protocol, kept = make(), stores()
    first = Played(protocol, kept).run(dict(enumerate(INPUTS)), UPDATES)
    assert isinstance(first, Total)
    retry = Played(protocol, kept)
    with pytest.raises(Aborted):
        retry.run({i: INPUTS[i] for i in (0, 1, 2)}, UPDATES)
    assert {type(error) for error in retry.refused} == {SpentUpdate}
    assert len(retry.refused) == 3


@ALL
def test_what_was_sent_in_a_session_beside_it_is_not_opened_here(make: Callable[[], SecureSum]) -> None:
    protocol, kept = make(), stores()
    beside = Played(protocol, kept)
    beside.run(dict(enumerate(INPUTS)), UPDATES)

    def moved(sent: Message) -> Message:
        if sent.stage != INPUT or sent.sender != client(2):
            return sent
        return replace(sent, body=beside.inputs[2].encode())

    here = Played(protocol, kept, moved)
    try:
        total = here.run(dict(enumerate(INPUTS)), {i: bytes([9, i]) * 16 for i in range(4)})
    except Aborted:
        return
    assert isinstance(total, Total)
    assert total.survivors == (0, 1, 3), "the server knew at once"


@ALL
@pytest.mark.parametrize("part", ["all of it", "its ciphertexts", "its ticket"])
def test_a_client_that_sends_what_another_sent_gets_no_total_with_it(
    make: Callable[[], SecureSum], part: str
) -> None:
    """Twice the victim's update beside the others' would stand in the sum."""
    played = Played(make(), stores())

    def copied(sent: Message) -> Message:
        if sent.stage != INPUT or sent.sender != client(3):
            return sent
        own, victim = EncryptedInput.decode(sent.body), played.inputs[0]
        made = {
            "all of it": victim,
            "its ciphertexts": replace(own, ciphertexts=victim.ciphertexts),
            "its ticket": replace(own, ticket=victim.ticket),
        }[part]
        return replace(sent, body=made.encode())

    played.change = copied
    try:
        total = played.run(dict(enumerate(INPUTS)), UPDATES)
    except Aborted:
        return
    assert isinstance(total, Total)
    alike = part == "its ticket" and not played.inputs[0].ticket  # CKKS has nothing in it
    assert total.survivors == ((0, 1, 2, 3) if alike else (0, 1, 2))
    assert total.total.tolist() == sum(INPUTS[i] for i in total.survivors).tolist()


@ALL
def test_whoever_opens_is_shown_one_list_and_answers_once(make: Callable[[], SecureSum]) -> None:
    """Each recipient of the request to open is sent another list, then a second request: no two lists are answered."""
    played, answered = Played(make(), stores()), []

    def other_lists(sent: Message) -> Message:
        if sent.sender != SERVER:
            if sent.stage in (OPEN, DECRYPT):
                answered.append(sent)
            return sent
        drop = {sent.recipient.number % 2} if sent.recipient.role != "key-holder" else set()
        if sent.stage == AGREE:
            tickets = Listed.decode(sent.body).tickets
            return replace(sent, body=Listed({i: t for i, t in tickets.items() if i not in drop}).encode())
        if sent.stage == OPEN:
            asked = OpenRequest.decode(sent.body)
            kept = {i: t for i, t in asked.tickets.items() if i not in drop}
            return replace(sent, body=replace(asked, tickets=kept).encode())
        if sent.stage == DECRYPT:
            request = DecryptRequest.decode(sent.body)
            inputs = {i: t for i, t in request.inputs.items() if i not in drop}
            return replace(sent, body=replace(request, inputs=inputs).encode())
        return sent

    played.change = other_lists
    try:
        total = played.run(dict(enumerate(INPUTS)), UPDATES)
    except Aborted:
        assert not answered
        return
    assert isinstance(total, Total)
    assert len(answered) == 1  # one key holder, one list
    assert total.total.tolist() == sum(INPUTS).tolist()


@ALL
def test_a_minimum_of_the_session_is_held_where_the_opening_happens(make: Callable[[], SecureSum]) -> None:
    """Noise that counts on three clients never leaves with two, whatever the server asks for."""
    protocol = make()
    for minimum in (3, 4):
        with pytest.raises(Aborted):
            simulate(protocol, INPUTS, bound=50, min_survivors=minimum, drop={INPUT: {0, 1}})
    session = protocol.session(NAMES, 2, 50, random=RANDOM, min_survivors=4)
    assert protocol.demands(session).survivors == 4

    def fewer(sent: Message) -> Message:
        if sent.sender != SERVER or sent.stage not in (AGREE, OPEN, DECRYPT):
            return sent
        if sent.stage == AGREE:
            tickets = Listed.decode(sent.body).tickets
            return replace(sent, body=Listed({i: tickets[i] for i in (0, 1, 2)}).encode())
        if sent.stage == OPEN:
            asked = OpenRequest.decode(sent.body)
            return replace(
                sent, body=replace(asked, tickets={i: asked.tickets[i] for i in (0, 1, 2)}).encode()
            )
        request = DecryptRequest.decode(sent.body)
        return replace(sent, body=replace(request, inputs={i: request.inputs[i] for i in (0, 1, 2)}).encode())

    with pytest.raises(Aborted) as caught:
        simulate(protocol, INPUTS, bound=50, min_survivors=4, tamper=fewer)
    assert "at least 4" in "".join(caught.value.__notes__)


def lying(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own code goes on with as few contributions as it likes."""
    for place in ("he.roles.server", "he.paillier.decryptors"):
        monkeypatch.setattr(f"{place}.survivors_of", lambda session, arrived: tuple(sorted(arrived)))


def only(*senders: int) -> Callable[[Message], Message | None]:
    """A server that throws away what other clients put in."""
    lost = {client(i) for i in range(4)}.difference(map(client, senders))
    return lambda sent: None if sent.stage == INPUT and sent.sender in lost else sent


@ALL
def test_by_default_the_server_and_half_of_the_clients_isolate_nobody(
    make: Callable[[], SecureSum], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody sent. The server lists the victim and one corrupt client, whose own input it takes away."""
    lying(monkeypatch)
    opened: list[Message] = []
    with pytest.raises(Aborted) as caught:
        simulate(make(), INPUTS, bound=50, tamper=only(0, 3), observe=opened.append)
    assert "at least 3 are demanded before a sum is opened, 2 came" in "".join(caught.value.__notes__)
    assert not [sent for sent in opened if sent.stage in (OPEN, DECRYPT) and sent.recipient == SERVER]
    assert simulate(make(), INPUTS, bound=50, tamper=only(0, 1, 3)).survivors == (0, 1, 3)


@ALL
def test_drop_outs_of_half_abandon_a_session_by_name_before_anything_is_opened(
    make: Callable[[], SecureSum],
) -> None:
    seen: list[Message] = []
    with pytest.raises(TooFewSurvivors, match="at least 3 clients, 2 of 4 came: min_survivors"):
        simulate(make(), INPUTS, bound=50, drop={INPUT: {1, 2}}, observe=seen.append)
    assert not [sent for sent in seen if sent.stage in (AGREE, OPEN, DECRYPT)]


CHOSEN: dict[str, Callable[[int], HomomorphicSum]] = {
    "paillier, key holder": lambda least: PaillierSum(
        KeyHolder(), key_bits=2048, keys=ring(KeyHolder()), min_survivors=least
    ),
    "paillier, threshold": lambda least: PaillierSum(
        Threshold(3, 4), key_bits=2048, keys=ring(Threshold(3, 4)), min_survivors=least
    ),
    "ckks, key holder": lambda least: CKKSSum(min_survivors=least),
}


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("least", [2, 3, 4, None])
def test_what_is_chosen_is_what_is_opened_and_what_the_statement_says(name: str, least: int | None) -> None:
    """The statement's number is exact: so many clients less one, with the server, read another's; fewer do not."""
    protocol, lowest = CHOSEN[name](least), least or 3
    session = protocol.session(NAMES, 2, 50, random=RANDOM)
    said = protocol.protection(session)
    assert protocol.demands(session).survivors == said.parameters["min_survivors"] == lowest
    who = "1 client" if lowest == 2 else f"{lowest - 1} clients"
    assert f"{who} together with the server can read any other client's update" in " ".join(said.limits)
    assert "Policy(min_cohort=...) at clients and whoever opens bounds how few" in " ".join(said.limits)
    kept = range(lowest)
    total = simulate(protocol, INPUTS, bound=50, tamper=only(*kept)).total
    corrupt = sum(INPUTS[i] for i in kept[1:])
    assert (total - corrupt).tolist() == INPUTS[0].tolist()
    with pytest.raises(TooFewSurvivors, match=f"at least {lowest} clients, {lowest - 1} of 4 came"):
        simulate(protocol, INPUTS, bound=50, tamper=only(*kept[1:]))


@pytest.mark.parametrize("name", CHOSEN)
def test_a_least_total_that_no_session_could_hold_is_refused_before_one_is_made(name: str) -> None:
    for bad in (1, 0, -2, 2.0, True, "3"):
        with pytest.raises(Misuse, match="min_survivors to be a whole number >= 2, or None"):
            CHOSEN[name](bad)  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="min_survivors=5, but the session has 4 clients"):
        CHOSEN[name](5).session(NAMES, 2, 50, random=RANDOM)


def test_parties_with_another_least_total_refuse_each_other() -> None:
    session = CHOSEN["ckks, key holder"](2).session(NAMES, 2, 50, random=RANDOM)
    for other in (CKKSSum(), CKKSSum(min_survivors=3)):
        with pytest.raises(Misuse, match="give every party the same"):
            other.client(session, 0, INPUTS[0], random=RANDOM)
        with pytest.raises(Misuse, match="give every party the same"):
            other.helper(session, Party("key-holder"), random=RANDOM)


@ALL
def test_a_client_refuses_a_session_of_fewer_than_it_insists_on(make: Callable[[], SecureSum]) -> None:
    protocol = make()
    session = protocol.session(NAMES, 2, 50, random=RANDOM, min_survivors=3)
    strict = Policy(min_survivors=4)
    with pytest.raises(PolicyRefusal, match="survivors"):
        protocol.client(session, 0, INPUTS[0], random=RANDOM, policy=strict)


# -- configurations that differ --


# -- formats --
