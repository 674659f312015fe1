"""What a cheating server would ask the clients of a masked sum: requests that an honest one must refuse.

Each lie is made from a genuine request, as little changed as can be: what else the request holds fits the lie, so that
the one check that is meant has to find it. What does not belong here: properties (`protocols.audit`), attacks that take
more than one client (`audit_search`). An audit uses this to look deeper; no protocol code does.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols.agreement import Certificate
from protocols.audit_hooks import Forgery
from protocols.codec import Record
from protocols.kernel import SERVER, Message
from protocols.roles import R, read
from protocols.session import Session
from secagg import messages as wire
from secagg.audit_view import graph_seed
from secagg.commitments import joint_seed, part_commitment
from secagg.messages import DIGEST_BYTES, indices, items, pack_bits, unpack_bits
from secagg.places import Places
from secagg.rules import Rules, rules_of

BOX_BYTES = 96
Then = Callable[[Message], Message]


def forgeries(session: Session, request: Message, transcript: Sequence[Message]) -> Iterator[Forgery]:
    """Requests of a cheating server that an honest client must refuse (see `protocols.audit_hooks.Hooks`)."""
    kinds: dict[str, type[_Lies]] = {
        wire.REVEAL: _Commitments,
        wire.SHARE: _Neighbourhood,
        wire.INPUT: _Enrolment if rules_of(session).parameters.reuse else _Delivery,
        wire.CONFIRM: _Survivors,
        wire.UNMASK: _Opening,
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

    @functools.cached_property
    def keys(self) -> dict[int, bytes]:
        """What every client advertised."""
        sent = (m for m in self.transcript if m.stage == wire.ADVERTISE and m.recipient == SERVER)
        return {m.sender.number: wire.Advertisement.decode(m.body).keys for m in sent}

    def neighbourhood(self, listed: wire.Commitments, parts: bytes) -> wire.Neighbourhood:
        """The request for shares that fits a list of commitments and these parts."""
        around = self.rules.neighbours(self.me, joint_seed(self.session.context, listed, parts))
        there = [j for j in around if j in self.keys]
        given = b"".join(self.keys[j] for j in there)
        return wire.Neighbourhood(indices(there), given, parts, indices(()), b"")

    def too_few(self, some: Collection[int]) -> set[int]:
        """The client itself with others of `some`, one fewer than a client may be shown."""
        return {self.me, *sorted(set(some) - {self.me})[: self.rules.shown - 2]}


class _Commitments(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Commitments, self.request)
        there, given = told.clients.tolist(), items(told.commitments, 32)
        mine = there.index(self.me)
        few, beyond = told.clients[: self.rules.threshold], [*there[1:], self.session.clients]
        if self.me not in few:
            few = indices(sorted({self.me, *few[1:].tolist()}))
        kept = b"".join(given[there.index(j)] for j in few.tolist())
        yield self.lie("graph", "another commitment than its own", self._with(told, {mine: bytes(32)}))
        yield self.lie("graph", "commitments of too few", wire.Commitments(few, kept))
        if mine:
            shifted = wire.Commitments(indices(beyond), b"".join([*given[1:], bytes(32)]))
            yield self.lie("graph", "a commitment of a stranger", shifted)
        made = {at: part_commitment(self.session.context, j, bytes(32)) for at, j in enumerate(there)}
        listed = self._with(told, made | {mine: given[mine]})
        then = functools.partial(self._goes_on, listed, mine)
        yield self.lie("graph", "commitments that nobody certified", listed, then)

    def _with(self, told: wire.Commitments, changed: dict[int, bytes]) -> wire.Commitments:
        given = enumerate(items(told.commitments, 32))
        return replace(told, commitments=b"".join(changed.get(at, one) for at, one in given))

    def _goes_on(self, listed: wire.Commitments, mine: int, answer: Message) -> Message:
        """A client may answer; it then compares what its neighbours certified."""
        parts = bytearray(32 * len(listed.clients))
        parts[32 * mine : 32 * mine + 32] = read(wire.Reveal, answer).part
        body = self.neighbourhood(listed, bytes(parts)).encode()
        return replace(self.request, stage=wire.SHARE, body=body)


class _Listing(_Lies):
    """Lists of other clients and their keys."""

    def lists(self, told: wire.Neighbourhood | wire.Proceed) -> Iterator[Forgery]:
        size = len(told.keys) // len(told.clients)
        few, twice = told.clients[: self.rules.threshold - 1], told.keys[:size] * 2 + told.keys[2 * size :]
        fewer = replace(told, clients=few, keys=told.keys[: size * len(few)])
        beyond = np.append(told.clients[:-1], told.clients.dtype.type(self.session.clients + 5))
        own = X25519PrivateKey.generate().public_key().public_bytes_raw()
        yield self.lie("server-chosen-cohort", "keys of fewer clients than the threshold", fewer)
        yield self.lie("server-chosen-cohort", "a client outside the roster", replace(told, clients=beyond))
        yield self.lie("swapped-keys", "one public key given for two clients", replace(told, keys=twice))
        zeros = replace(told, keys=bytes(size) + told.keys[size:])
        yield self.lie("raw-diffie-hellman", "an all-zero public key", zeros)
        if self.rules.certified:
            mine = replace(told, keys=own + told.keys[32:])
            yield self.lie("unsigned-keys", "keys of the server's own under a certificate", mine)


class _Neighbourhood(_Listing):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Neighbourhood, self.request)
        yield from self.lists(told)
        strangers = set(self.keys) - set(told.clients.tolist()) - {self.me}
        if strangers:
            other = sorted({*told.clients.tolist()[:-1], min(strangers)})
            given = replace(told, clients=indices(other), keys=b"".join(self.keys[j] for j in other))
            yield self.lie("server-chosen-cohort", "keys of a client that is no neighbour", given)
        if told.parts:
            yield from self._other_parts(told)
        less = replace(told, clients=told.clients[1:], keys=told.keys[len(told.keys) // len(told.clients) :])
        if len(less.clients) >= self.rules.threshold:
            story = "a neighbour dealt whose keys were kept back: no mask would be shared with it"
            yield self.lie("server-chosen-cohort", story, less, self._all_dealt)

    def _other_parts(self, told: wire.Neighbourhood) -> Iterator[Forgery]:
        """One part is not the one that was committed to; the graph that would follow is shown."""
        asked = [
            m for m in self.transcript if m.stage == wire.REVEAL and m.recipient == self.request.recipient
        ]
        listed = wire.Commitments.decode(asked[-1].body)
        other = next(at for at, j in enumerate(listed.clients.tolist()) if j != self.me)
        parts = [*items(told.parts, 32)]
        parts[other] = bytes(32)
        shown = self.neighbourhood(listed, b"".join(parts))
        yield self.lie("graph", "a part of the graph's seed that was not committed to", shown)

    def _all_dealt(self, answer: Message) -> Message:
        """Everybody dealt, with boxes of those whose keys it has."""
        rows = len(read(wire.Neighbourhood, self.request).clients) - 1
        body = wire.Delivery(self.bits(self.keys), bytes(BOX_BYTES * rows), bytes(2 * DIGEST_BYTES * rows))
        return replace(self.request, stage=wire.INPUT, body=body.encode())


class _Enrolment(_Listing):
    """In a set-up: who enrolled, and keys that do not fit. In a later round: any keys."""

    def all(self) -> Iterator[Forgery]:
        told = read(wire.Proceed, self.request)
        if not told.enrolled:
            new = wire.Proceed(self.bits({self.me}), told.clients, b"")
            yield self.lie("swapped-keys", "new keys", new)
            return
        enrolled, size = unpack_bits(told.enrolled, self.session.clients), len(told.keys) // len(told.clients)
        lists = {"without the client itself": enrolled - {self.me}, "of too few": self.too_few(enrolled)}
        for what, some in lists.items():
            kept = [at for at, j in enumerate(told.clients.tolist()) if j in some]
            keys = b"".join(items(told.keys, size)[at] for at in kept)
            changed = wire.Proceed(self.bits(some), told.clients[kept], keys)
            yield self.lie("server-chosen-cohort", f"an enrolment {what}", changed)
        one_less = replace(told, clients=told.clients[1:], keys=told.keys[size:])
        yield self.lie("server-chosen-cohort", "no key of a client that enrolled", one_less)
        yield from self.lists(told)


class _Delivery(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Delivery, self.request)
        dealers = unpack_bits(told.dealers, self.session.clients)
        asked = [
            m for m in self.transcript if m.stage == wire.SHARE and m.recipient == self.request.recipient
        ]
        around = read(wire.Neighbourhood, asked[-1]).clients.tolist()
        few = {self.me, *[j for j in around if j in dealers][: self.rules.threshold - 1]}
        others = dealers - set(around)
        lists = {
            "fewer dealers than the threshold": few | others,
            "fewer dealers than the least": self.too_few([*around, *others]),
            "dealers without the client itself": dealers - {self.me},
        }
        for story, some in lists.items():
            yield self.lie("server-chosen-cohort", story, self._of(told, around, dealers, some))

    def _of(
        self, told: wire.Delivery, around: list[int], dealers: set[int], some: Collection[int]
    ) -> wire.Delivery:
        """The delivery of some dealers alone."""
        dealt = [j for j in around if j in dealers]
        kept = np.array([j in some for j in dealt], bool)
        rows = [
            np.frombuffer(part, np.uint8).reshape(len(dealt), -1)[kept] for part in (told.boxes, told.digests)
        ]
        return wire.Delivery(self.bits(some), rows[0].tobytes(), rows[1].tobytes())


class _Survivors(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = unpack_bits(read(wire.Survivors, self.request).bits, self.session.clients)
        views = {"without the client itself": told - {self.me}, "below the least": self.too_few(told)}
        for what, view in views.items():
            yield self.lie("survivor-sets", f"a survivor set {what}", wire.Survivors(self.bits(view)))


class _Opening(_Lies):
    def all(self) -> Iterator[Forgery]:
        told = read(wire.Unmask, self.request)
        alive = unpack_bits(told.survivors, self.session.clients)
        views = {
            "without the client itself": alive - {self.me},
            "below the least": self.too_few(alive),
        }
        for what, view in views.items():
            asked = self._about(view, told, told.certificate)
            yield self.lie("survivor-sets", f"a survivor set {what}", asked)
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
        boxes = {j: box for j, box in told.boxes.items() if j in view}
        if not self.rules.voted:
            return replace(told, survivors=self.bits(view), boxes=boxes)
        voted = set(certificate.voters.tolist()) if certificate is not None else set()
        opened = Places(self.rules, graph_seed(self.session, self.transcript), view).peers(self.me)
        silent = b"".join(self.signatures[j] for j in opened if j not in voted)
        return wire.Unmask(self.bits(view), certificate, silent, boxes)

    @functools.cached_property
    def signatures(self) -> dict[int, bytes]:
        """What each client signed with its input."""
        sent = (m for m in self.transcript if m.stage == wire.INPUT and m.recipient == SERVER)
        return {m.sender.number: wire.Masked.decode(m.body).signature for m in sent}


def _bad_certificates(good: Certificate) -> Iterator[tuple[str, Certificate]]:
    voters, signatures = good.voters, good.signatures
    yield "fewer signatures of the survivors than the quorum", Certificate(voters[:-1], signatures[:-64])
    yield "signatures in the names of others", Certificate(voters, signatures[64:] + signatures[:64])
    again = indices([*voters.tolist()[:-1], int(voters[-2])])
    yield (
        "one signature given twice to reach the quorum",
        _unchecked(Certificate, voters=again, signatures=signatures[:-64] + signatures[-128:-64]),
    )


def _unchecked(kind: type[R], **fields: object) -> R:
    """A record without the checks of its constructor: what a cheat can send, an honest party cannot make."""
    record = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(record, name, value)
    return record
