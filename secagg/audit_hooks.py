"""What masked sums tell an audit about themselves: how to read a view, what is tolerated, what cheats would
send.

What does not belong here: properties (`protocols.audit`); lies (`audit_forgeries`); what a view gives away
(`audit_view`); the rule of opening (`audit_search`). An audit uses this to look deeper; no protocol code does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from protocols.audit_hooks import Elements, Forgery, Hooks, SearchHooks
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message
from protocols.roles import read
from protocols.session import Session
from secagg import messages as wire
from secagg.audit_forgeries import forgeries
from secagg.audit_search import graphs, lies, odds, rule
from secagg.audit_view import graph_seed, opened, stripped
from secagg.commitments import DEAL, dealt_bytes, signer
from secagg.masks import SEED_BYTES, add_mask
from secagg.memory import ClientMemory
from secagg.packing import unpack
from secagg.parameter_choice import Wishes
from secagg.session_rules import rules_of

Maker = Callable[[int], object]


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


def bad_answers(session: Session, answer: Message, memory: bytes | None) -> Iterable[Forgery]:
    """Answers of a cheating client that the server, or the other clients, must find and pin on it."""
    if answer.stage == wire.UNMASK and answer.recipient == SERVER:
        opened = read(wire.Opened, answer)
        if opened.shares:
            body = replace(opened, shares=bytes([opened.shares[0] ^ 1]) + opened.shares[1:])
            story = "it opens another share than it was dealt"
            yield Forgery("wrong-share", story, replace(answer, body=body.encode()))
    if answer.stage == wire.INPUT and answer.recipient == SERVER and memory:
        yield from _bad_dealings(session, answer, ClientMemory.decode(memory).sign)


def _bad_dealings(session: Session, answer: Message, sign: bytes) -> Iterable[Forgery]:
    """A dealer whose shares, which come with its vector, are not what it pledged to its first holder."""
    masked = read(wire.Masked, answer)
    if masked.dealing is None or (masked.dealing.signature and not sign):  # the roster's identity signs
        return
    dealt, boxes, digests = masked.dealing, masked.dealing.boxes, masked.dealing.digests
    box, row = (len(one) // len(dealt.holders) for one in (boxes, digests))
    bad = {
        "it pledges another share than it seals": replace(dealt, digests=bytes(row) + digests[row:]),
        "it seals no share": replace(dealt, boxes=bytes(box) + boxes[box:]),
    }
    for story, dealing in bad.items():
        signed = dealt_bytes(session.context, answer.sender.number, dealing, masked.vector)
        signature = signer(sign).sign(DEAL, signed) if dealing.signature else b""
        body = replace(masked, dealing=replace(dealing, signature=signature))
        yield Forgery("wrong-dealing", story, replace(answer, body=body.encode()))


def foreign_refused(request: Message, answer: Message) -> bool:
    """Whether a client complained about every box that it was handed."""
    boxes = len(wire.Delivery.decode(request.body).digests) // 32
    return len(wire.Masked.decode(answer.body).complaints) == boxes


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
    graphs=graphs,
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
        no["graphs-are-as-few-as-planned"] = "its graph is complete: there is nothing to choose"
    return replace(HOOKS, inapplicable=no, sparse=sparse, beacon=beacon, odds=partial(odds, wishes))
