"""What masked sums tell an audit about themselves: how to read a view, what is tolerated, what cheats would
send.

What does not belong here: properties (`protocols.audit`); what a view gives away (`audit_view`); the rule of opening
(`audit_search`). An audit uses this to look deeper; no protocol code does.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from protocols.agreement import Certificate
from protocols.audit_hooks import Forgery, Hooks, SearchHooks
from protocols.codec import Record
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message
from protocols.roles import R, read
from protocols.session import Session
from secagg import messages as wire
from secagg.audit_search import lies, odds, rule
from secagg.audit_view import graph_seed, opened, stripped
from secagg.choose import Wishes
from secagg.commitments import joint_seed, part_commitment
from secagg.masking import SEED_BYTES, add_mask
from secagg.messages import DIGEST_BYTES, indices, items, pack_bits, unpack_bits
from secagg.packing import unpack
from secagg.rules import rules_of

Elements = NDArray[np.uint64]
Maker = Callable[[int], object]
Lie = tuple[str, str, Record]
"""The sharp edge that it is of, what it is, and what the request says instead."""


def elements(session: Session, message: Message) -> Elements | None:
    """The ring elements of a masked vector; None for other messages, and for another set-up's."""
    if message.stage != wire.INPUT or message.recipient != SERVER:
        return None
    try:
        packed = wire.Masked.decode(message.body).vector
    except SecAggError:
        return None
    ring = rules_of(session).ring
    return ring.residues(unpack(packed, session.dimension, ring))


def neighbours(session: Session, index: int, transcript: Sequence[Message]) -> tuple[int, ...]:
    """With whom a client shares masks."""
    return rules_of(session).neighbours(index, graph_seed(session, transcript))


def tolerated(session: Session, gone: Mapping[str, set[int]]) -> bool:
    """Those left after each stage are enough to deal, to be survivors, to vote and to open."""
    rules, left, enough = rules_of(session), set(range(session.clients)), True
    holders = [set(rules.neighbours(i, rules.seed)) for i in left]
    for stage in (wire.ADVERTISE, wire.SHARE, wire.INPUT, wire.CONFIRM, wire.UNMASK):
        left -= gone.get(stage, set())
        enough &= len(left) > rules.threshold and min(len(left & some) for some in holders) >= rules.threshold
        if stage in (wire.SHARE, wire.INPUT):
            enough &= not rules.shortfall(left, rules.seed)
        if stage == wire.CONFIRM:
            enough &= len(left & set(rules.voters(rules.seed))) >= rules.parameters.quorum
    return enough


def stream(seed: bytes, count: int) -> NDArray[np.uint8]:
    """The keystream that masks are made of, as bytes."""
    words = np.zeros(-(-count // 4), np.uint32)
    add_mask(words, seed)
    return words.view(np.uint8)[:count]


def _forged(property: str, story: str, original: Message, body: Record | bytes) -> Forgery:
    encoded = body if isinstance(body, bytes) else body.encode()
    return Forgery(property, story, replace(original, body=encoded))


def forgeries(session: Session, request: Message, transcript: Sequence[Message]) -> Iterator[Forgery]:
    """Requests of a cheating server that an honest client must refuse."""
    reuse = rules_of(session).parameters.reuse
    makers: dict[str, Callable[[Session, Message], Iterator[Lie]]] = {
        wire.REVEAL: _bad_commitments,
        wire.SHARE: lambda session, request: _bad_lists(session, read(wire.Neighbourhood, request)),
        wire.INPUT: _bad_enrolments if reuse else _bad_deliveries,
        wire.CONFIRM: _bad_survivors,
        wire.UNMASK: _bad_openings,
    }
    for what, story, body in makers[request.stage](session, request) if request.stage in makers else ():
        yield _forged(what, story, request, body)
    if request.stage == wire.REVEAL:
        yield _uncertified(session, request, transcript)


def _bad_commitments(session: Session, request: Message) -> Iterator[Lie]:
    told, few = read(wire.Commitments, request), read(wire.Commitments, request).clients[:1]
    at = 32 * told.clients.tolist().index(request.recipient.number)
    swapped = told.commitments[:at] + bytes(32) + told.commitments[at + 32 :]
    yield "graph", "another commitment than the client's own", replace(told, commitments=swapped)
    yield "graph", "commitments of too few", wire.Commitments(few, told.commitments[: 32 * len(few)])


def _uncertified(session: Session, request: Message, transcript: Sequence[Message]) -> Forgery:
    """Commitments of the server's own in the others' names: a client may answer, and then compares its neighbours'."""
    told, me = read(wire.Commitments, request), request.recipient.number
    there, mine = told.clients.tolist(), told.clients.tolist().index(me)
    made = [part_commitment(session.context, j, bytes(32)) for j in there]
    made[mine] = items(told.commitments, 32)[mine]
    listed = replace(told, commitments=b"".join(made))
    keys = {
        m.sender.number: wire.Advertisement.decode(m.body).keys
        for m in transcript
        if m.stage == wire.ADVERTISE and m.recipient == SERVER
    }

    def then(answer: Message) -> Message:
        parts = bytes(32 * mine) + read(wire.Reveal, answer).part + bytes(32 * (len(there) - mine - 1))
        around = rules_of(session).neighbours(me, joint_seed(session.context, listed, parts))
        told = wire.Neighbourhood(indices(around), b"".join(keys[j] for j in around), parts, indices(()), b"")
        return replace(request, stage=wire.SHARE, body=told.encode())

    forged = _forged("graph", "commitments that nobody certified", request, listed)
    return replace(forged, then=then)


def _bad_lists(session: Session, told: wire.Neighbourhood | wire.Proceed) -> Iterator[Lie]:
    """Lists of other clients and their keys."""
    rules, size = rules_of(session), len(told.keys) // len(told.clients)
    few, twice = told.clients[: rules.threshold - 1], told.keys[:size] * 2 + told.keys[2 * size :]
    fewer = replace(told, clients=few, keys=told.keys[: size * len(few)])
    beyond = np.append(told.clients[:-1], told.clients.dtype.type(session.clients + 5))
    strangers = replace(told, clients=beyond)
    own = X25519PrivateKey.generate().public_key().public_bytes_raw()
    yield "server-chosen-cohort", "keys of fewer clients than the threshold", fewer
    yield "server-chosen-cohort", "a client outside the roster", strangers
    yield "swapped-keys", "one public key given for two clients", replace(told, keys=twice)
    yield "raw-diffie-hellman", "an all-zero public key", replace(told, keys=bytes(size) + told.keys[size:])
    if rules.certified:
        mine = replace(told, keys=own + told.keys[32:])
        yield "unsigned-keys", "keys of the server's own under a certificate", mine


def _bad_enrolments(session: Session, request: Message) -> Iterator[Lie]:
    """In a set-up: who enrolled, and keys that do not fit. In a later round: any keys."""
    told, me = read(wire.Proceed, request), request.recipient.number
    if not told.enrolled:
        yield "swapped-keys", "new keys", wire.Proceed(pack_bits({me}, session.clients), told.clients, b"")
        return
    enrolled, size = unpack_bits(told.enrolled, session.clients), len(told.keys) // len(told.clients)
    lists = {"without the client itself": enrolled - {me}, "of too few": {me, *told.clients[:1].tolist()}}
    for what, some in lists.items():
        changed = replace(told, enrolled=pack_bits(some, session.clients))
        yield "server-chosen-cohort", f"an enrolment {what}", changed
    one_less = replace(told, clients=told.clients[1:], keys=told.keys[size:])
    yield "server-chosen-cohort", "no key of a client that enrolled", one_less
    yield from _bad_lists(session, told)


def _bad_deliveries(session: Session, request: Message) -> Iterator[Lie]:
    told, me, rules = read(wire.Delivery, request), request.recipient.number, rules_of(session)
    dealers = unpack_bits(told.dealers, session.clients)
    few = [j for j in rules.neighbours(me, rules.seed) if j in dealers][: rules.threshold - 1]
    digests, box = 2 * DIGEST_BYTES * len(few), len(told.boxes) * 2 * DIGEST_BYTES // len(told.digests)
    given = told.boxes[: box * len(few)], told.digests[:digests]
    fewer = wire.Delivery(pack_bits([me, *few], session.clients), *given)
    without = replace(told, dealers=pack_bits(dealers - {me}, session.clients))
    yield "server-chosen-cohort", "fewer dealers than the threshold", fewer
    yield "server-chosen-cohort", "dealers without the client itself", without


def _bad_survivors(session: Session, request: Message) -> Iterator[Lie]:
    told = unpack_bits(read(wire.Survivors, request).bits, session.clients)
    few = sorted(told)[: rules_of(session).threshold - 1]
    views = {"without the client itself": told - {request.recipient.number}, "below the threshold": few}
    for what, view in views.items():
        yield "survivor-sets", f"a survivor set {what}", wire.Survivors(pack_bits(view, session.clients))


def _bad_openings(session: Session, request: Message) -> Iterator[Lie]:
    told, me = read(wire.Unmask, request), request.recipient.number
    alive = unpack_bits(told.survivors, session.clients)
    gone = max(alive - {me})

    def view(some: Collection[int]) -> wire.Unmask:
        return replace(told, survivors=pack_bits(some, session.clients))

    yield "survivor-sets", "a survivor set without the client itself", view(alive - {me})
    yield "survivor-sets", "a survivor set below the least", view({me, gone})
    if told.boxes:
        yield "survivor-sets", "a box of a client that did not survive", view(alive - {gone})
    if told.inputs:
        unsigned = replace(told, inputs=bytes(len(told.inputs)))
        yield "split-views", "survivors who did not sign their input", unsigned
    if told.certificate is None:
        return
    yield "split-views", "survivors that nobody signed", replace(told, certificate=None)
    yield "split-views", "signatures of another survivor set", view(alive - {gone})
    for what, certificate in _bad_certificates(told.certificate):
        yield "split-views", what, replace(told, certificate=certificate)


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


def bad_answers(session: Session, answer: Message) -> Iterable[Forgery]:
    """Answers of a cheating client that the server, or the other clients, must find and pin on it."""
    if answer.stage == wire.UNMASK and answer.recipient == SERVER:
        opened = read(wire.Opened, answer)
        if opened.shares:
            body = replace(opened, shares=bytes([opened.shares[0] ^ 1]) + opened.shares[1:])
            yield _forged("wrong-share", "it opens another share than it was dealt", answer, body)


def foreign_refused(request: Message, answer: Message) -> bool:
    """Whether a client complained about every box that it was handed."""
    return (
        len(wire.Masked.decode(answer.body).complaints)
        == len(wire.Delivery.decode(request.body).digests) // 32
    )


def unsigned(message: Message) -> Message:
    """A masked vector whose shares come without the signature over both."""
    body = wire.Masked.decode(message.body)
    if body.dealing is None:
        return message
    return replace(message, body=replace(body, dealing=replace(body.dealing, signature=b"")).encode())


HOOKS = Hooks(
    elements=elements,
    unsigned=unsigned,
    modulus=lambda session: rules_of(session).ring.modulus,
    stripped=stripped,
    opening=SearchHooks(rule, lies, opened),
    corrupt=lambda session: {"client": rules_of(session).parameters.corrupt},
    tolerated=tolerated,
    stream=stream,
    seed_bytes=SEED_BYTES,
    forgeries=forgeries,
    bad_answers=bad_answers,
    foreign_refused=foreign_refused,
    neighbours=neighbours,
    inapplicable={
        "no-decryption-oracle": "nobody holds a key that opens inputs; masks cancel in the sum alone"
    },
)


def hooks(wishes: Wishes, sparse: Maker | None = None, beacon: Maker | None = None) -> Hooks:
    """Return the hooks of a masked sum. sparse, beacon: make it with few neighbours; None on the complete graph."""
    no = dict(HOOKS.inapplicable)
    if wishes.demand.reuse:
        no["stale-shares-refused"] = "shares come with the request to open: see mixed-sessions-refused"
    if sparse is None:
        no["hidden-in-its-component"] = "its graph is complete: see hidden-from-insiders"
        no["plans-fail-as-rarely-as-promised"] = "its graph is complete: nothing is left to chance"
    return replace(HOOKS, inapplicable=no, sparse=sparse, beacon=beacon, odds=partial(odds, wishes))
