"""What a cheating server would ask the clients of a masked sum: requests that an honest one must refuse.

Each lie is made from a genuine request, as little changed as can be: what else the request holds fits the lie, so that
the one check that is meant has to find it. What does not belong here: properties (`protocols.audit`), attacks that take
more than one client (`audit_search`). An audit uses this to look deeper; no protocol code does.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols.agreement import Certificate
from protocols.audit_hooks import Forgery
from protocols.codec import Record
from protocols.kernel import SERVER, Message
from protocols.roles import R, read
from protocols.session import Session
from secagg import messages as wire
from secagg.audit_view import graph_seed
from secagg.audit_wording import delivered, listing
from secagg.commitments import joint_seed, part_commitment
from secagg.messages import DIGEST_BYTES, indices, listed, pack_bits, unpack_bits
from secagg.places import Places
from secagg.session_rules import Rules, rules_of

BOX_BYTES = 96
Then = Callable[[Message], Message]


def forgeries(session: Session, request: Message, transcript: Sequence[Message]) -> Iterator[Forgery]:
    """Requests of a cheating server that an honest client must refuse (see `protocols.audit_hooks.Hooks`)."""
    kinds: dict[str, type[_Lies]] = {
        wire.REVEAL: _CommitmentLies,
        wire.SHARE: _NeighbourhoodLies,
        wire.INPUT: _EnrolmentLies if rules_of(session).parameters.reuse else _DeliveryLies,
        wire.CONFIRM: _SurvivorLies,
        wire.UNMASK: _OpeningLies,
    }
    if request.stage in kinds:
        yield from kinds[request.stage](session, request, transcript).all()


@dataclass(frozen=True)
class _Lies(ABC):
    """Base: a genuine request, and what the server knows by then."""

    session: Session
    request: Message
    transcript: Sequence[Message]

    @abstractmethod
    def all(self) -> Iterator[Forgery]:
        """Every lie in the place of this request."""

    @functools.cached_property
    def rules(self) -> Rules:
        return rules_of(self.session)

    @property
    def me(self) -> int:
        return self.request.recipient.number

    def bits(self, some: Collection[int]) -> bytes:
        return pack_bits(some, self.session.clients)

    def lie(self, property: str, story: str, body: Record, then: Then | None = None) -> Forgery:
        return Forgery(property, story, replace(self.request, body=body.encode()), then)

    def said(self, kind: type[R], stage: str) -> dict[int, R]:
        """What every client answered at a stage."""
        sent = (m for m in self.transcript if m.stage == stage and m.recipient == SERVER)
        return {m.sender.number: read(kind, m) for m in sent}

    def asked(self, kind: type[R], stage: str) -> R:
        """What this client was asked last at a stage."""
        to = self.request.recipient
        return next(read(kind, m) for m in reversed(self.transcript) if (m.stage, m.recipient) == (stage, to))

    @functools.cached_property
    def keys(self) -> dict[int, bytes]:
        """What every client advertised."""
        return {j: told.keys for j, told in self.said(wire.Advertisement, wire.ADVERTISE).items()}

    def neighbourhood(self, committed: wire.Commitments, parts: bytes) -> wire.Neighbourhood:
        """The request for shares that fits a list of commitments and these parts."""
        around = self.rules.neighbours(self.me, joint_seed(self.session.context, committed, parts))
        nobody = wire.Neighbourhood(indices(()), b"", parts, indices(()), b"")
        return listing(nobody, {j: self.keys[j] for j in around if j in self.keys})

    def views(self, alive: set[int]) -> Iterator[tuple[str, set[int]]]:
        """Survivor sets that a client must refuse."""
        yield "a survivor set without the client itself", alive - {self.me}
        yield "a survivor set below the least", self.too_few(alive)

    def too_few(self, some: Collection[int]) -> set[int]:
        """The client itself with others of `some`, one fewer than a client may be shown."""
        return {self.me, *sorted(set(some) - {self.me})[: self.rules.shown - 2]}


class _CommitmentLies(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Commitments, self.request)
        given = listed(told.clients, told.commitments)
        mine, others = {self.me: given[self.me]}, [j for j in given if j != self.me]
        few = sorted({self.me, *others[: self.rules.threshold - 1]})
        changed = listing(told, given | {self.me: bytes(32)})
        yield self.lie("graph", "another commitment than its own", changed)
        yield self.lie("graph", "commitments of too few", listing(told, {j: given[j] for j in few}))
        if self.me != min(given):
            beyond = dict(list(given.items())[1:]) | {self.session.clients: bytes(32)}
            yield self.lie("graph", "a commitment of a stranger", listing(told, beyond))
        made = {j: part_commitment(self.session.context, j, bytes(32)) for j in given}
        forged = listing(told, made | mine)
        then = functools.partial(self._goes_on, forged)
        yield self.lie("graph", "commitments that nobody certified", forged, then)

    def _goes_on(self, forged: wire.Commitments, answer: Message) -> Message:
        """A client may answer; it then compares what its neighbours certified."""
        part = read(wire.Reveal, answer).part
        parts = b"".join(part if j == self.me else bytes(32) for j in forged.clients.tolist())
        body = self.neighbourhood(forged, parts).encode()
        return replace(self.request, stage=wire.SHARE, body=body)


class _ListingLies(_Lies):
    """Lists of other clients and their keys."""

    def lists(self, told: wire.Neighbourhood | wire.Proceed) -> Iterator[Forgery]:
        given = listed(told.clients, told.keys)
        (first, key), (second, _), *_ = each = list(given.items())
        beyond = dict(each[:-1]) | {self.session.clients + 5: each[-1][1]}
        own = X25519PrivateKey.generate().public_key().public_bytes_raw()
        fewer = listing(told, dict(each[: self.rules.threshold - 1]))
        yield self.lie("server-chosen-cohort", "keys of fewer clients than the threshold", fewer)
        yield self.lie("server-chosen-cohort", "a client outside the roster", listing(told, beyond))
        twice = listing(told, given | {second: key})
        yield self.lie("swapped-keys", "one public key given for two clients", twice)
        zeros = listing(told, given | {first: bytes(len(key))})
        yield self.lie("raw-diffie-hellman", "an all-zero public key", zeros)
        if self.rules.certified:
            mine = listing(told, given | {first: own + key[32:]})
            yield self.lie("unsigned-keys", "keys of the server's own under a certificate", mine)


class _NeighbourhoodLies(_ListingLies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Neighbourhood, self.request)
        yield from self.lists(told)
        first, *others = told.clients.tolist()
        strangers = set(self.keys) - {first, *others, self.me}
        if strangers:
            other = sorted({first, *others[:-1], min(strangers)})
            given = listing(told, {j: self.keys[j] for j in other})
            yield self.lie("server-chosen-cohort", "keys of a client that is no neighbour", given)
        if told.parts:
            yield from self._other_parts(told)
        if len(others) >= self.rules.threshold:
            story = "a neighbour dealt whose keys were kept back: no mask would be shared with it"
            less = listing(told, {j: self.keys[j] for j in others})
            yield self.lie("server-chosen-cohort", story, less, self._all_dealt)

    def _other_parts(self, told: wire.Neighbourhood) -> Iterator[Forgery]:
        """One part is not the one that was committed to; the graph that would follow is shown."""
        committed = self.asked(wire.Commitments, wire.REVEAL)
        other = next(j for j in committed.clients.tolist() if j != self.me)
        parts = listed(committed.clients, told.parts) | {other: bytes(32)}
        shown = self.neighbourhood(committed, b"".join(parts.values()))
        yield self.lie("graph", "a part of the graph's seed that was not committed to", shown)

    def _all_dealt(self, answer: Message) -> Message:
        """Everybody dealt, with boxes of those whose keys it has."""
        rows = len(read(wire.Neighbourhood, self.request).clients) - 1
        body = wire.Delivery(self.bits(self.keys), bytes(BOX_BYTES * rows), bytes(2 * DIGEST_BYTES * rows))
        return replace(self.request, stage=wire.INPUT, body=body.encode())


class _EnrolmentLies(_ListingLies):
    """In a set-up: who enrolled, and keys that do not fit. In a later round: any keys."""

    def all(self) -> Iterator[Forgery]:
        told = read(wire.Proceed, self.request)
        if not told.enrolled:
            new = wire.Proceed(self.bits({self.me}), told.clients, b"")
            yield self.lie("swapped-keys", "new keys", new)
            return
        enrolled, given = unpack_bits(told.enrolled, self.session.clients), listed(told.clients, told.keys)
        lists = {"without the client itself": enrolled - {self.me}, "of too few": self.too_few(enrolled)}
        for what, some in lists.items():
            changed = listing(told, {j: key for j, key in given.items() if j in some})
            changed = replace(changed, enrolled=self.bits(some))
            yield self.lie("server-chosen-cohort", f"an enrolment {what}", changed)
        one_less = listing(told, dict(list(given.items())[1:]))
        yield self.lie("server-chosen-cohort", "no key of a client that enrolled", one_less)
        yield from self.lists(told)


class _DeliveryLies(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Delivery, self.request)
        dealers = unpack_bits(told.dealers, self.session.clients)
        around = self.asked(wire.Neighbourhood, wire.SHARE).clients.tolist()
        dealt, others = [j for j in around if j in dealers], dealers - set(around)
        lists = {
            "fewer dealers than the threshold": {self.me, *dealt[: self.rules.threshold - 1]} | others,
            "fewer dealers than the least": self.too_few([*around, *others]),
            "dealers without the client itself": dealers - {self.me},
        }
        for story, some in lists.items():
            yield self.lie("server-chosen-cohort", story, delivered(told, dealt, some, self.bits(some)))


class _SurvivorLies(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = unpack_bits(read(wire.Survivors, self.request).bits, self.session.clients)
        for what, view in self.views(told):
            yield self.lie("survivor-sets", what, wire.Survivors(self.bits(view)))


class _OpeningLies(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Unmask, self.request)
        alive = unpack_bits(told.survivors, self.session.clients)
        for what, view in self.views(alive):
            yield self.lie("survivor-sets", what, self._about(view, told, told.certificate))
        gone = sorted(set(range(self.session.clients)) - alive)
        if told.boxes and gone:
            more = replace(told, boxes=told.boxes | {gone[0]: next(iter(told.boxes.values()))})
            yield self.lie("survivor-sets", "a box of a client that did not survive", more)
        if told.inputs:
            unsigned = replace(told, inputs=bytes(len(told.inputs)))
            yield self.lie("split-views", "survivors who did not sign their input", unsigned)
        if told.certificate is None:
            return
        yield self.lie("split-views", "survivors that nobody voted for", self._about(alive, told, None))
        other = self._about(alive - {max(alive - {self.me})}, told, told.certificate)
        yield self.lie("split-views", "votes for another survivor set", other)
        for what, certificate in _bad_certificates(told.certificate):
            yield self.lie("split-views", what, self._about(alive, told, certificate))

    def _about(self, view: set[int], told: wire.Unmask, certificate: Certificate | None) -> wire.Unmask:
        """The request about a view, with the boxes and signed inputs that fit it and the votes."""
        survivors = Places(self.rules, graph_seed(self.session, self.transcript), view)
        signed = {j: said.signature for j, said in self.said(wire.Masked, wire.INPUT).items()}
        return survivors.request_to_open(self.me, certificate, signed, told.boxes)


def _bad_certificates(good: Certificate) -> Iterator[tuple[str, Certificate]]:
    voters, signatures = good.voters, good.signatures
    yield "fewer signatures of the survivors than the quorum", Certificate(voters[:-1], signatures[:-64])
    yield "signatures in the names of others", Certificate(voters, signatures[64:] + signatures[:64])
    again = indices([*voters.tolist()[:-1], int(voters[-2])])
    twice = _unchecked(Certificate, voters=again, signatures=signatures[:-64] + signatures[-128:-64])
    yield "one signature given twice to reach the quorum", twice


def _unchecked(kind: type[R], **fields: object) -> R:
    """A record without the checks of its constructor: what a cheat can send, an honest party cannot make."""
    record = object.__new__(kind)
    vars(record).update(fields)
    return record
