"""The opening rule of masked sums, for an adversary that searches: what clients check, how a lying server words its
requests, and which sums come out.

What does not belong here: the search (`protocols.audit.search`), and code that a session runs.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from protocols.agreement import Vote, certify
from protocols.codec import Record
from protocols.kernel import SERVER, Message, client, message
from protocols.opening import Attack, Check, Rule
from protocols.session import Session
from secagg.audit_view import graph_seed
from secagg.messages import CONFIRM, UNMASK, Delivery, Masked, Survivors, Unmask, pack_bits, unpack_bits
from secagg.rules import Rules, rules_of

Elements = NDArray[np.uint64]
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
        near=rules.threshold - 1,
        checks=tuple(_checks(rules)),
        windows=tuple(frozenset((ring + ring)[at : at + half]) for at in range(n)) if p.window else (),
        in_window=max(0, p.window - 1),
        voters=frozenset(rules.voters(seed)),
        order=tuple(ring) if seed else (),
        unexamined=(
            "per-client lists of keys and commitments",
            *(["which clients vote"] if p.committee else []),
        ),
    )


def _checks(rules: Rules) -> Iterator[Check]:
    p = rules.parameters
    yield Check("dealers", ("input",), "least", "list", "neighbours", rules.threshold)
    yield Check("enough dealers", ("input",), "least", "list", "all", rules.survivors)
    if p.window:
        yield Check("dealers in a row", ("input",), "least", "list", "windows", p.window)
    yield Check("itself among the survivors", ("vote", "open"), "own")
    yield Check("enough survivors", ("vote", "open"), "least", "view", "all", rules.survivors)
    yield Check("survivors dealt", ("vote", "open"), "within", among="all")
    if p.window:
        yield Check("survivors in a row", ("vote", "open"), "least", "view", "windows", p.window)
    yield Check("one answer", ("open",), "once")
    if rules.voted:
        yield Check("its own dealers", ("vote", "open"), "same")
        yield Check("one vote", ("vote",), "once")
        yield Check("votes of this session", ("open",), "bound")
        yield Check("votes", ("open",), "least", "votes", "all", p.quorum)
        yield Check("signed inputs", ("open",), "signed")


def lies(
    session: Session, attack: Attack, transcript: Transcript, requests: Transcript
) -> Generator[Message, Transcript, None]:
    """The requests of a server that plays an attack; the answers come back. requests: the genuine ones for input."""
    liar = _Liar(session, attack, graph_seed(session, transcript))
    for m in requests:
        if m.recipient.number in attack.corrupt:
            yield m
        for dealers in liar.dealers(m.recipient.number):
            for answer in (yield replace(m, body=liar.delivery(m, dealers))):
                liar.inputs[m.recipient.number, dealers] = Masked.decode(answer.body).signature
    for i, views in attack.votes.items():
        for v in views:
            there = attack.beside if v and i not in attack.corrupt else b""
            shown = replace(
                liar.to(CONFIRM, i, Survivors(liar.bits(attack.views[v]))), session=there or session.context
            )
            for answer in (yield shown):
                liar.votes[v][i] = Vote.decode(answer.body).signature
    for i, views in attack.answers.items():
        for v in views:
            yield liar.to(UNMASK, i, liar.unmask(i, v))


class _Liar:
    """A server that plays an attack: what it has been told, and how it words its requests."""

    def __init__(self, session: Session, attack: Attack, seed: bytes) -> None:
        self.session, self.attack, self.rules = session, attack, rules_of(session)
        self.around = [set(self.rules.neighbours(i, seed)) for i in range(session.clients)]
        self.voters = set(self.rules.voters(seed))
        self.votes: list[dict[int, bytes]] = [{} for _ in attack.views]
        self.inputs: dict[tuple[int, frozenset[int]], bytes] = {}

    def dealers(self, index: int) -> list[frozenset[int]]:
        """All dealers that a client is shown: those of a statement that its own list agrees with, where there is one.
        A corrupt client signs every statement's.
        """
        attack = self.attack
        if index in attack.corrupt:
            return list(dict.fromkeys(attack.named))
        if index not in attack.lists:
            return []
        mine = attack.lists[index]
        same = [named for named in attack.named if named & self.around[index] == mine and index in named]
        return [same[0] if same else frozenset(range(self.session.clients)) - (self.around[index] - mine)]

    def delivery(self, request: Message, dealers: frozenset[int]) -> bytes:
        """A delivery with other dealers."""
        told, me = Delivery.decode(request.body), request.recipient.number
        dealt = self.around[me] & unpack_bits(told.dealers, self.session.clients)
        kept = np.array([j in dealers for j in sorted(dealt)], bool)
        rows = [
            np.frombuffer(part, np.uint8).reshape(len(kept), -1)[kept] for part in (told.boxes, told.digests)
        ]
        return Delivery(self.bits(dealers), rows[0].tobytes(), rows[1].tobytes()).encode()

    def unmask(self, index: int, v: int) -> Unmask:
        view, needed = self.attack.views[v], self.rules.parameters.quorum
        if not self.rules.voted:
            return Unmask(self.bits(view), None, b"")
        votes = {i: vote for i, vote in self.votes[v].items() if i in self.voters}
        certificate = certify(votes, min(needed, len(votes)))
        silent = sorted((self.around[index] & view) - set(certificate.voters.tolist()))
        signed = [self.inputs.get((j, self.attack.named[v]), bytes(64)) for j in silent]
        return Unmask(self.bits(view), certificate, b"".join(signed))

    def bits(self, some: Collection[int]) -> bytes:
        return pack_bits(some, self.session.clients)

    def to(self, stage: str, index: int, body: Record) -> Message:
        return message(self.session.context, stage, SERVER, client(index), body.encode())
