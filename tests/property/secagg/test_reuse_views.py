"""Reused keys on sparse graphs: a server that mixes views of who enrolled, or of who survived, to open one client.

The attack, which opened a client's exact vector while holders did not agree on one view: the victim gets the keys of
as few neighbours as a set-up used to accept; then every honest holder is shown the victim alive and, in turn, others of
those few gone. With the shares of one corrupt holder each edge of the victim then had a threshold of shares, and so had
the seed of its own mask. Here it is played against the states as they are: every one of its steps is refused.
"""

from collections import Counter
from dataclasses import dataclass, field

import pytest

from protocols.agreement import Certificate, Vote
from protocols.errors import PeerError, ProtocolViolation
from protocols.roles import read
from secagg import Credentials, SecAggPlus
from secagg.messages import (
    CONFIRM,
    UNMASK,
    Masked,
    Proceed,
    Survivors,
    Unmask,
    indices,
    items,
    pack_bits,
)
from secagg.session_rules import Rules, rules_of
from tests.property.secagg.play import Play, with_body

N, DEGREE, THRESHOLD = 24, 10, 6
CREDENTIALS = Credentials.simulated([f"c{i}" for i in range(N)])
THREATS = ["semi-malicious", "malicious"]


def protocol(threat: str) -> SecAggPlus:
    known = {"credentials": CREDENTIALS, "beacon": b"light"} if threat == "malicious" else {}
    return SecAggPlus(threat=threat, setup="reuse", neighbours=DEGREE, threshold=THRESHOLD, **known)  # type: ignore[arg-type]  # options by name


@dataclass
class Attack:
    """victim: an honest client. few: the neighbours that it is to have. corrupt: a holder that answers anything."""

    play: Play
    victim: int = -1
    few: list[int] = field(default_factory=list)
    corrupt: int = -1
    deposits: dict[int, Masked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules = self.rules
        for i in range(N):
            around = rules.neighbours(i, rules.seed)
            inside = [j for j in around if j in rules.holders]
            if i not in rules.holders and len(inside) <= THRESHOLD:
                self.victim, self.few = i, [*inside, *(j for j in around if j not in inside)][:THRESHOLD]
        self.corrupt = next(i for i in sorted(rules.holders) if i not in self.few)

    @property
    def rules(self) -> Rules:
        return rules_of(self.play.session)

    def known(self) -> set[int]:
        """Whom the victim is told of: its few neighbours and the holders."""
        return {*self.few, *self.rules.holders} - {self.victim}

    def own_list(self) -> set[int]:
        """Who enrolled, as the victim is told: none of its neighbours that it does not know."""
        return set(range(N)) - (set(self.rules.neighbours(self.victim, self.rules.seed)) - self.known())

    def set_up(self, enrolled: set[int] | None) -> None:
        """Few neighbours' keys for the victim, under the whole list of who enrolled or one made for it; honest lists
        for the others. Everybody's masked vector comes.
        """
        self.play.trip()
        for request in self.play.queue:
            index, body = request.recipient.number, read(Proceed, request)
            if index == self.victim:
                each = len(body.keys) // len(body.clients)
                given = dict(zip(body.clients.tolist(), items(body.keys, each), strict=True))
                some = sorted(self.known())
                listed = body.enrolled if enrolled is None else pack_bits(enrolled, N)
                body = Proceed(listed, indices(some), b"".join(given[j] for j in some))
            (answer,) = self.play.tell(with_body(request, body))
            self.deposits[index] = read(Masked, answer)

    def views(self) -> dict[int, set[int]]:
        """Honest holder -> survivors that it is shown: in turn, others of the few are gone."""
        needed = dict.fromkeys(self.few, THRESHOLD - 1)
        views: dict[int, set[int]] = {}
        for holder in sorted(self.rules.holders - {self.corrupt}):
            gone = sorted((j for j in self.few if j != holder), key=lambda j: -needed[j])[
                : DEGREE - THRESHOLD
            ]
            views[holder] = set(range(N)) - set(gone)
            needed.update({j: needed[j] - 1 for j in gone})
        assert max(needed.values()) <= 0  # each is gone often enough, as holders used to count
        return views

    def release(self, holder: int, alive: set[int], certificate: Certificate | None) -> Unmask:
        """The request to open the victim and whoever else is alive, for one holder."""
        voted = set(certificate.voters.tolist()) if certificate is not None else set()
        others = sorted(alive - {holder})
        inputs = b"".join(self.deposits[i].signature for i in others if i not in voted)
        boxes = {i: self.box(i, holder) for i in others}
        return Unmask(pack_bits(alive, N), certificate, inputs, boxes)

    def box(self, owner: int, holder: int) -> bytes:
        rows = [m for m in sorted(self.rules.holders) if m != owner]
        dealing = self.deposits[owner].dealing
        assert dealing is not None
        boxes = items(dealing.boxes, len(dealing.boxes) // len(rows))
        return boxes[rows.index(holder)]


def attack(threat: str) -> Attack:
    """On a graph where the victim's few can be chosen so that the attack would have gone through."""
    for round in range(1, 1000):
        found = Attack(Play(protocol(threat), N, round=round))
        if found.victim >= 0 and not any(
            found.rules.shortfall(view, found.rules.seed)
            for view in (found.own_list(), *found.views().values())
        ):
            return found
    raise AssertionError("no such graph")


@pytest.mark.parametrize("threat", THREATS)
def test_a_set_up_that_lacks_a_key_is_refused(threat: str) -> None:
    with pytest.raises(ProtocolViolation, match="exactly the enrolled neighbours"):
        attack(threat).set_up(None)


@pytest.mark.parametrize("threat", THREATS)
def test_a_victim_with_a_list_of_its_own_is_opened_by_nobody(threat: str) -> None:
    """It signs with whom it masked: holders who enrolled with others do not open it."""
    found = attack(threat)
    found.set_up(found.own_list())
    everybody = set(range(N))
    votes: dict[int, bytes] = {}
    for holder in sorted(found.rules.holders):
        (answer,) = found.play.ask(CONFIRM, holder, Survivors(pack_bits(everybody, N)))
        votes[holder] = read(Vote, answer).signature
    certificate = certified(found, votes)
    for holder in sorted(found.rules.holders - {found.corrupt}):
        with pytest.raises(PeerError) as caught:
            found.play.ask(UNMASK, holder, found.release(holder, everybody, certificate))
        assert caught.value.party == f"client {found.victim}"


@pytest.mark.parametrize("threat", THREATS)
def test_mixed_views_of_who_survived_are_certified_by_nobody(threat: str) -> None:
    found = attack(threat)
    found.play.trip()
    for request in found.play.queue:
        (answer,) = found.play.tell(request)
        found.deposits[request.recipient.number] = read(Masked, answer)
    views = found.views()
    votes: dict[bytes, dict[int, bytes]] = {}
    for holder, alive in views.items():
        bits = pack_bits(alive, N)
        (answer,) = found.play.ask(CONFIRM, holder, Survivors(bits))
        votes.setdefault(bits, {})[holder] = read(Vote, answer).signature
        with pytest.raises(ProtocolViolation):  # it signs once
            found.play.ask(CONFIRM, holder, Survivors(pack_bits(range(N), N)))
    shown = Counter(pack_bits(alive, N) for alive in views.values())
    assert max(shown.values()) + 1 < found.rules.parameters.quorum  # with the corrupt holder's vote
    for holder, alive in views.items():
        own = votes[pack_bits(alive, N)]
        for certificate in (None, certified(found, own)):
            with pytest.raises(PeerError):
                found.play.ask(UNMASK, holder, found.release(holder, alive, certificate))
        padded = {**{m: next(iter(own.values())) for m in sorted(found.rules.holders)}, **own}
        with pytest.raises(PeerError, match="does not verify"):
            found.play.ask(UNMASK, holder, found.release(holder, alive, certified(found, padded)))


def certified(found: Attack, votes: dict[int, bytes]) -> Certificate:
    voters = sorted(votes)[: found.rules.parameters.quorum]
    return Certificate(indices(voters), b"".join(votes[m] for m in voters))


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("stage", [CONFIRM, UNMASK])
def test_a_view_that_could_cut_the_ring_is_refused(threat: str, stage: str) -> None:
    """Five in a row, of whom one is left: the graph of the others could fall apart there."""
    found = attack(threat)
    found.play.trip()
    found.play.trip()
    order = found.rules.circle(found.rules.seed).tolist()
    holder = order.index(min(found.rules.holders))
    row = [order[(holder + step) % N] for step in range(DEGREE // 2)]
    window = found.rules.parameters.window
    alive = set(range(N)) - set(row[window - 1 :])
    bits = pack_bits(alive, N)
    body = Survivors(bits) if stage == CONFIRM else Unmask(bits, None, b"", {})
    with pytest.raises(ProtocolViolation, match="in a row on the ring"):
        found.play.ask(stage, order[holder], body)


@pytest.mark.parametrize("threat", THREATS)
def test_the_honest_course_opens_whoever_leaves(threat: str) -> None:
    """The same arrangement without an attack: some leave at every trip, and the total is exact."""
    play = Play(protocol(threat), N)
    holders = sorted(rules_of(play.session).holders)
    play.trip()
    play.trip(absent=[next(i for i in range(N) if i not in holders)])
    play.trip(absent=holders[:1])
    total = play.finish(absent=holders[1:2])
    assert len(total.survivors) == N - 1
    assert total.total.tolist() == play.expected(total.survivors)
    later = Play(protocol(threat), N, memories=play.memories, server_memory=play.server_memory, round=2)
    assert later.stages == ["masked-input", CONFIRM, UNMASK]
    ended = later.finish(absent=[3])
    assert set(ended.survivors) == set(total.survivors) - {3}
    assert ended.total.tolist() == later.expected(ended.survivors)
