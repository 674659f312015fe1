"""What masked sums tell an audit about themselves: how to read a view, what is tolerated, what cheats would
send.

What does not belong here: properties (`protocols.audit`); what a view gives away (`audit_view`); the rule of opening
(`audit_search`). An audit uses this to look deeper; no protocol code does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

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
from secagg.audit_search import lies, rule
from secagg.audit_view import opened, stripped
from secagg.masking import SEED_BYTES, add_mask
from secagg.messages import (
    ADVERTISE,
    CONFIRM,
    DIGEST_BYTES,
    INPUT,
    SHARE,
    UNMASK,
    Delivery,
    Masked,
    Neighbourhood,
    Opened,
    Survivors,
    Unmask,
    indices,
    pack_bits,
    unpack_bits,
)
from secagg.packing import unpack
from secagg.rules import rules_of

Elements = NDArray[np.uint64]


def elements(session: Session, message: Message) -> Elements | None:
    """The ring elements of a masked vector; None for other messages, and for another set-up's."""
    if message.stage != INPUT or message.recipient != SERVER:
        return None
    try:
        packed = Masked.decode(message.body).vector
    except SecAggError:
        return None
    ring = rules_of(session).ring
    return ring.residues(unpack(packed, session.dimension, ring))


def modulus(session: Session) -> int:
    return rules_of(session).ring.modulus


def corrupt(session: Session) -> dict[str, int]:
    """How many clients may work with the server."""
    return {"client": rules_of(session).parameters.corrupt}


def neighbours(session: Session, index: int) -> tuple[int, ...]:
    """With whom a client shares masks."""
    rules = rules_of(session)
    return rules.neighbours(index, rules.seed)


def tolerated(session: Session, gone: Mapping[str, set[int]]) -> bool:
    """Those left after each stage are enough to deal, to be survivors, to vote and to open."""
    rules = rules_of(session)
    left = set(range(session.clients))
    for stage in (ADVERTISE, SHARE, INPUT, *([CONFIRM] if rules.voted else []), UNMASK):
        left -= gone.get(stage, set())
        if len(left) <= rules.threshold or (stage in (SHARE, INPUT) and rules.shortfall(left, rules.seed)):
            return False
        if stage == CONFIRM and len(left & set(rules.voters(rules.seed))) < rules.parameters.quorum:
            return False
        if any(
            len(left & set(rules.neighbours(i, rules.seed))) < rules.threshold for i in range(session.clients)
        ):
            return False
    return True


def stream(seed: bytes, count: int) -> NDArray[np.uint8]:
    """The keystream that masks are made of, as bytes."""
    words = np.zeros(-(-count // 4), np.uint32)
    add_mask(words, seed)
    return words.view(np.uint8)[:count]


def _forged(property: str, story: str, original: Message, body: Record | bytes) -> Forgery:
    encoded = body if isinstance(body, bytes) else body.encode()
    forged = Message(original.session, original.stage, *original.sender, *original.recipient, encoded)
    return Forgery(property, story, forged)


def forgeries(session: Session, request: Message, transcript: Sequence[Message]) -> Iterator[Forgery]:
    """Requests of a cheating server that an honest client must refuse."""
    maker = {SHARE: _bad_keys, INPUT: _bad_deliveries, CONFIRM: _bad_survivors, UNMASK: _bad_openings}.get(
        request.stage
    )
    if maker is not None:
        yield from maker(session, request)


def _bad_keys(session: Session, request: Message) -> Iterator[Forgery]:
    told = read(Neighbourhood, request)
    rules = rules_of(session)
    few = told.clients[: rules.threshold - 1]
    size = len(told.keys) // len(told.clients)
    yield _forged(
        "server-chosen-cohort", "a neighbourhood shrunk below the threshold", request,
        replace(told, clients=few, keys=told.keys[: size * len(few)]),
    )  # fmt: skip
    yield _forged(
        "swapped-keys", "one public key given for two neighbours", request,
        replace(told, keys=told.keys[:size] * 2 + told.keys[2 * size :]),
    )  # fmt: skip
    yield _forged(
        "raw-diffie-hellman", "an all-zero public key", request,
        replace(told, keys=bytes(size) + told.keys[size:]),
    )  # fmt: skip
    if rules_of(session).certified:
        own = X25519PrivateKey.generate().public_key().public_bytes_raw()
        yield _forged(
            "unsigned-keys", "keys of the server's own making under a neighbour's certificate", request,
            replace(told, keys=own + told.keys[32:]),
        )  # fmt: skip
    strangers = told.clients.copy()
    strangers[-1] = session.clients + 5
    yield _forged(
        "server-chosen-cohort", "a neighbour outside the roster", request,
        replace(told, clients=strangers),
    )  # fmt: skip


def _bad_deliveries(session: Session, request: Message) -> Iterator[Forgery]:
    told, me, rules = read(Delivery, request), request.recipient.number, rules_of(session)
    dealers = unpack_bits(told.dealers, session.clients)
    few = [j for j in rules.neighbours(me, rules.seed) if j in dealers][: rules.threshold - 1]
    digests, box = 2 * DIGEST_BYTES * len(few), len(told.boxes) * 2 * DIGEST_BYTES // len(told.digests)
    yield _forged(
        "server-chosen-cohort", "fewer dealers than the threshold", request,
        Delivery(pack_bits([me, *few], session.clients), told.boxes[: box * len(few)], told.digests[:digests]),
    )  # fmt: skip
    yield _forged(
        "server-chosen-cohort", "dealers without the client itself", request,
        replace(told, dealers=pack_bits(dealers - {me}, session.clients)),
    )  # fmt: skip


def _bad_survivors(session: Session, request: Message) -> Iterator[Forgery]:
    told = unpack_bits(read(Survivors, request).bits, session.clients)
    me = request.recipient.number
    yield _forged(
        "survivor-sets", "a survivor set without the client itself", request,
        Survivors(pack_bits(told - {me}, session.clients)),
    )  # fmt: skip
    few = sorted(told)[: rules_of(session).threshold - 1]
    yield _forged(
        "survivor-sets",
        "a survivor set below the threshold",
        request,
        Survivors(pack_bits(few, session.clients)),
    )


def _bad_openings(session: Session, request: Message) -> Iterator[Forgery]:
    told, me = read(Unmask, request), request.recipient.number
    alive = unpack_bits(told.survivors, session.clients)
    views = {"without the client itself": alive - {me}, "below the least": {me, *sorted(alive)[:1]}}
    for what, view in views.items():
        yield _forged(
            "survivor-sets", f"a survivor set {what}", request,
            replace(told, survivors=pack_bits(view, session.clients)),
        )  # fmt: skip
    if told.certificate is None:
        return
    yield _forged("split-views", "survivors that nobody signed", request, replace(told, certificate=None))
    gone = max(alive - {me})
    yield _forged(
        "split-views", "signatures of another survivor set", request,
        replace(told, survivors=pack_bits(alive - {gone}, session.clients)),
    )  # fmt: skip
    for what, certificate in _bad_certificates(told.certificate):
        yield _forged("split-views", what, request, replace(told, certificate=certificate))
    if told.inputs:
        yield _forged(
            "split-views", "survivors who did not sign their input", request,
            replace(told, inputs=bytes(len(told.inputs))),
        )  # fmt: skip


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
    if answer.stage == UNMASK and answer.recipient == SERVER:
        opened = read(Opened, answer)
        if opened.shares:
            body = replace(opened, shares=bytes([opened.shares[0] ^ 1]) + opened.shares[1:])
            yield _forged("wrong-share", "it opens another share than it was dealt", answer, body)


def foreign_refused(request: Message, answer: Message) -> bool:
    """Whether a client complained about every box that it was handed."""
    return len(Masked.decode(answer.body).complaints) == len(Delivery.decode(request.body).digests) // 32


HOOKS = Hooks(
    elements=elements,
    modulus=modulus,
    stripped=stripped,
    opening=SearchHooks(rule, lies, opened),
    corrupt=corrupt,
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


def unsigned(message: Message) -> Message:
    """A masked vector whose shares come without the signature over both."""
    body = Masked.decode(message.body)
    if body.dealing is None:
        return message
    return replace(message, body=replace(body, dealing=replace(body.dealing, signature=b"")).encode())


REUSED = Hooks(
    corrupt=corrupt,
    elements=elements,
    unsigned=unsigned,
    modulus=modulus,
    tolerated=tolerated,
    stream=stream,
    seed_bytes=SEED_BYTES,
    inapplicable=HOOKS.inapplicable,
)
"""Where keys are reused, what the server can take off and what a cheat would send is not written down a second time."""


def hooks(sparse: Callable[[], object] | None, reuse: bool) -> Hooks:
    """Return the hooks of a masked sum. sparse: makes it with few neighbours; None on the complete graph."""
    if reuse:
        return REUSED
    if sparse is not None:
        return replace(HOOKS, sparse=sparse)
    why = "its graph is complete: see hidden-from-insiders"
    return replace(HOOKS, inapplicable={**HOOKS.inapplicable, "hidden-in-its-component": why})
