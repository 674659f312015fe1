"""The opening rule of masked sums, for an adversary that searches: what clients check, how a lying server words its
requests.

What does not belong here: the search (`protocols.audit.search`), which sums come out (`audit_view`), and code that a
session runs.
"""

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from protocols.agreement import Certificate, Vote, certify
from protocols.codec import Record
from protocols.errors import Misuse, PolicyRefusal
from protocols.kernel import SERVER, Message, client, message
from protocols.opening import Attack, Check, Graphs, Group, Odds, Rule
from protocols.roles import read
from protocols.session import Session
from secagg import messages as wire
from secagg.audit_view import graph_seed
from secagg.audit_wording import delivered, listing
from secagg.messages import listed, pack_bits, unpack_bits
from secagg.parameter_choice import Wishes, choose, insist
from secagg.parameters import Infeasible, Plan, plan
from secagg.parameters.conditions import BEACON_ROUNDS, MOST_TRIES, least_held
from secagg.places import Places
from secagg.session_rules import Rules, rules_of

Transcript = Sequence[Message]


def rule(session: Session, transcript: Transcript) -> Rule:
    """What honest clients check before they open anything."""
    rules, n = rules_of(session), session.clients
    p, seed = rules.parameters, graph_seed(session, transcript)
    ring, half = rules.circle(seed).tolist() if seed else list(range(n)), rules.degree // 2
    return Rule(
        clients=n,
        neighbours=tuple(frozenset(rules.neighbours(i, seed)) for i in range(n)),
        threshold=rules.threshold,
        least=rules.survivors,
        corrupt=p.corrupt,
        near=(least_held(p.quorum, len(rules.holders)) if p.reuse and rules.agrees else rules.threshold) - 1,
        checks=tuple(_checks(rules, n)),
        windows=tuple(frozenset((ring + ring)[at : at + half]) for at in range(n)) if p.window else (),
        in_window=max(0, p.window - 1),
        voters=frozenset(rules.voters(seed)),
        order=tuple(ring) if seed else (),
        unexamined=("per-client lists of keys and commitments", *["which clients vote"] * (p.committee > 0)),
        holders=tuple(rules.holders - {i} for i in range(n)) if p.reuse else (),
        edges=p.reuse,
    )


def _checks(rules: Rules, clients: int) -> Iterator[Check]:
    p, later = rules.parameters, bool(rules.parameters.epoch)
    yield Check("masks of what it signs", ("input",), "same")
    if not p.reuse:
        yield Check("dealers", ("input",), "least", "list", "neighbours", rules.threshold)
    yield Check("enough dealers", ("input",), "least", "list", "all", clients if later else rules.shown)
    if p.window and not later:
        yield Check("dealers in a row", ("input",), "least", "list", "windows", p.window)
    at = ("vote", "open") if rules.agrees else ("open",)
    yield Check("itself among the survivors", at, "own")
    yield Check("enough survivors", at, "least", "view", "all", rules.shown)
    yield Check("survivors dealt", at, "within", among="all")
    if p.window:
        yield Check("survivors in a row", at, "least", "view", "windows", p.window)
    yield Check("one answer", ("open",), "once")
    if rules.voted:
        yield Check("its own dealers", at, "same")
        yield Check("signed inputs", ("open",), "signed")
    if rules.agrees:
        yield Check("one vote", ("vote",), "once")
        yield Check("votes of this session", ("open",), "bound")
        yield Check("votes", ("open",), "least", "votes", "all", p.quorum)


def odds(wishes: Wishes, clients: int, dropout: float, collusion: float) -> Odds | None:
    """What the plan of a cohort leaves to chance (`protocols.audit_hooks.Hooks`)."""
    asked = wishes.asking(dropout=dropout, collusion=collusion)
    try:
        found = plan(asked.cohort(clients))
    except Infeasible:
        return None
    if found.complete:
        return None
    c, groups = found.cohort, tuple(_groups(found))
    graphs = c.graphs * (_degrees(asked, found) if c.beacon else 1)
    return Odds(clients, c.corrupt, c.survivors, groups, graphs, c.security, c.correctness)


def graphs(session: Session) -> Graphs:
    """Among how many graphs a malicious server may choose (`protocols.audit_hooks.Hooks`)."""
    if rules_of(session).committed:
        return Graphs(0, MOST_TRIES, public=False)
    return Graphs(BEACON_ROUNDS, 1, public=True)


def _degrees(wishes: Wishes, plan: Plan) -> int:
    """Among how many degrees a server that knows the seed may choose: a client that takes one more takes all."""
    more, clients = plan.degree + 2, plan.cohort.clients
    try:
        insist(wishes, clients, choose(replace(wishes, neighbours=more), clients))
    except (Misuse, PolicyRefusal):
        return 1
    return (clients - plan.degree) // 2


def _groups(plan: Plan) -> Iterator[Group]:
    n, k, t = plan.cohort.clients, plan.degree, plan.threshold
    if not plan.cohort.reuse:
        yield Group(k, n, True, t, t)
    elif not plan.cohort.two_faced:  # a holder has the others of its committee
        yield Group(k, 1, False, t, t + 1)
    if plan.window:
        yield Group(k // 2, n, False, plan.window, plan.window)
    if plan.committee:
        # so many corrupt members certify two views; with reused keys t open all
        twice = 2 * plan.quorum - plan.committee
        yield Group(plan.committee, 1, False, min(twice, t) if plan.cohort.reuse else twice, plan.quorum)


def lies(
    session: Session, attack: Attack, transcript: Transcript, requests: Transcript
) -> Generator[Message, Transcript, None]:
    """The requests of a server that plays an attack; the answers come back. requests: the genuine ones for input."""
    liar = _Liar(session, attack, graph_seed(session, transcript))
    for m in requests:
        i = m.recipient.number
        if i in attack.corrupt:
            yield m
        for dealers in liar.dealers(i):
            for answer in (yield replace(m, body=liar.delivery(m, dealers))):
                liar.heard(i, dealers, answer)
            if i in attack.corrupt:  # it votes as one who masked with these
                yield from liar.polls(i, [v for v in attack.votes.get(i, ()) if attack.named[v] == dealers])
    for i in set(attack.votes) - set(attack.corrupt):
        yield from liar.polls(i, attack.votes[i])
    for i, views in attack.answers.items():
        for v in views:
            yield liar.to(wire.UNMASK, i, liar.unmask(i, v))


class _Liar:
    """A server that plays an attack: what it has been told, and how it words its requests. Where keys are reused, the
    set-up alone says who enrolled, and holders are handed survivors' boxes.
    """

    def __init__(self, session: Session, attack: Attack, seed: bytes) -> None:
        self.session, self.attack, self.seed, self.rules = session, attack, seed, rules_of(session)
        self.everybody = frozenset(range(session.clients))
        self.around = [frozenset(self.rules.neighbours(i, seed)) for i in range(session.clients)]
        self.voters = set(self.rules.voters(seed)) if self.rules.agrees else set()
        self.votes: list[dict[int, bytes]] = [{} for _ in attack.views]
        self.inputs: dict[tuple[int, frozenset[int]], bytes] = {}
        self.boxes: dict[int, Mapping[int, bytes]] = {}

    def dealers(self, index: int) -> list[frozenset[int]]:
        """All dealers that a client is shown, to sign them: a statement's, or those of its own list and everybody who
        is no neighbour. A corrupt client signs every statement's.
        """
        attack = self.attack
        if self.rules.parameters.epoch:
            return [self.everybody]
        if index in attack.corrupt:
            return list(dict.fromkeys(attack.named))
        if index not in attack.lists:
            return []
        if index in attack.signs:
            return [attack.named[attack.signs[index]]]
        return [self.everybody - (self.around[index] - attack.lists[index])]

    def delivery(self, request: Message, dealers: frozenset[int]) -> bytes:
        """A request for input with other dealers, and with what some of the neighbours gave (a corrupt client: all)."""
        if self.rules.parameters.epoch:
            return request.body
        me, bits = request.recipient.number, self.bits(dealers)
        mates = dealers if me in self.attack.corrupt else dealers & self.attack.lists[me]
        if not self.rules.parameters.reuse:
            told = read(wire.Delivery, request)
            dealt = sorted(self.around[me] & unpack_bits(told.dealers, self.session.clients))
            return delivered(told, dealt, mates, bits).encode()
        asked = read(wire.Proceed, request)
        given = (
            mates | dealers.intersection(Places(self.rules, self.seed, dealers).peers(me)) - self.around[me]
        )
        keys = {j: key for j, key in listed(asked.clients, asked.keys).items() if j in given}
        return replace(listing(asked, keys), enrolled=bits).encode()

    def heard(self, index: int, dealers: frozenset[int], answer: Message) -> None:
        """An input came, with reused keys boxes for the holders."""
        said = read(wire.Masked, answer)
        self.inputs[index, dealers] = said.signature
        if said.dealing is not None:
            self.boxes[index] = listed(said.dealing.holders, said.dealing.boxes)

    def polls(self, index: int, views: Collection[int]) -> Generator[Message, Transcript, None]:
        """The requests to vote for some views; the votes come back."""
        for v in views if self.rules.agrees else ():
            there = self.attack.beside if v and index not in self.attack.corrupt else b""
            shown = self.to(wire.CONFIRM, index, wire.Survivors(self.bits(self.attack.views[v])))
            for answer in (yield replace(shown, session=there or self.session.context)):
                self.votes[v][index] = Vote.decode(answer.body).signature

    def unmask(self, index: int, v: int) -> wire.Unmask:
        """The request to open a view."""
        view, named, unsigned = self.attack.views[v], self.attack.named[v], bytes(64 * self.rules.voted)
        signed = {j: self.inputs.get((j, named), unsigned) for j in view}
        boxes = {i: held[index] for i, held in self.boxes.items() if index in held}
        return Places(self.rules, self.seed, view).request_to_open(index, self.certificate(v), signed, boxes)

    def certificate(self, v: int) -> Certificate | None:
        """Of the votes for a view, as many as are needed or came."""
        votes = {i: vote for i, vote in self.votes[v].items() if i in self.voters}
        needed = min(self.rules.parameters.quorum, len(votes))
        return certify(votes, needed) if self.rules.agrees else None

    def bits(self, some: Collection[int]) -> bytes:
        return pack_bits(some, self.session.clients)

    def to(self, stage: str, index: int, body: Record) -> Message:
        return message(self.session.context, stage, SERVER, client(index), body.encode())
