"""What a protocol may tell an audit about itself, so that more can be checked. Everything here is optional.

An audit looks deeper into a SecureSum that has an attribute `audit_hooks` (a Hooks). A missing hook makes properties
"not checked", with the reason. A wrong hook cannot make a broken protocol pass a property that needs no hooks.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import Message, State
from protocols.opening import Attack, Graphs, Odds, Rule
from protocols.session import Session

Elements = NDArray[np.uint64]
Transcript = Sequence[Message]
Tamper = Callable[[Message], Message | Iterable[Message] | None]
Lies = Generator[Message, Sequence[Message], None]


@dataclass(frozen=True)
class Forgery:
    """A message that an honest party must refuse. property: whose claim it tests. story: what the forger tries.
    then: it may be answered; what follows on the answer must be refused.
    """

    property: str
    story: str
    message: Message
    then: Callable[[Message], Message] | None = None


@dataclass(frozen=True)
class SearchHooks:
    """For an adversary that searches: what opens when, as data, and how a lying server would put its requests.

    rule: the session's rule, from the transcript of its set-up (`protocols.opening`). lies: session, attack,
    transcript and the genuine requests for input -> the requests of a server that plays the attack, one by one; the
    answers to each are sent in. opened: session, transcript, states of corrupt clients (as they were when asked for
    their input) -> the exact sums (ring elements) that come out, by the honest clients in each, the fewest that can
    be told apart.
    """

    rule: Callable[[Session, Transcript], Rule]
    lies: Callable[[Session, Attack, Transcript, Transcript], Lies]
    opened: Callable[[Session, Transcript, Mapping[int, State]], Mapping[frozenset[int], Elements]]


@dataclass(frozen=True)
class Hooks:
    """elements: the ring elements that a client's input message carries (uint64, reduced), None for other
    messages. unsigned: an input message without what signs or hashes its ring elements (those alone may depend on
    the input). modulus: of that ring. stripped: client -> what is left of its input after the server removed
    all masks that the transcript, and the states of corrupt clients (as they were when asked for their
    input), let it remove. tolerated: whether the protocol promises a total although clients leave (stage ->
    indices). stream: seed, count -> mask elements over 2^8. seed_bytes: width of its seeds. forgeries: to
    clients, made from a genuine request (and the transcript so far). bad_answers: to the server, made from a genuine
    answer of one client and what that client remembers of earlier rounds; the abort or blame must name that client,
    alone or beside one other. oracles: for a session,
    (story, tamper) pairs: a server that asks the holder of a key to open something else than the sum.
    claimed: another client's contribution as a corrupt client would send it in its own name (session, its own message,
    the other's), where it takes more than a copy. foreign_refused: whether a client's answer to a request whose sealed
    content is of another session shows that it refused all of it. sent: records that states hold because they are meant
    for the wire; what these keep out of their repr is long, not secret. neighbours: session, index, transcript -> the
    clients that a client shares masks with. sparse: makes the same protocol with a sparse graph among so many clients.
    beacon: makes it with a sparse graph that public randomness fixes for so many clients.
    odds: clients, share that leaves, share that is corrupt -> what the plan for them leaves to chance; None where
    there is no plan, or nothing is left to it. graphs: among how many graphs the plan of a session lets a malicious
    server choose. opening: for an adversary that searches. corrupt: role -> how many
    parties of it the protocol withstands together with the server (missing: none).
    inapplicable: property -> why this kind of protocol has nothing it could be checked on; it is reported
    as not claimed, with this reason.
    """

    elements: Callable[[Session, Message], Elements | None] | None = None
    unsigned: Callable[[Message], Message] | None = None
    modulus: Callable[[Session], int] | None = None
    stripped: Callable[[Session, Transcript, Mapping[int, State]], Mapping[int, Elements]] | None = None
    tolerated: Callable[[Session, Mapping[str, set[int]]], bool | None] | None = None
    stream: Callable[[bytes, int], NDArray[np.uint8]] | None = None
    seed_bytes: int = 0
    forgeries: Callable[[Session, Message, Transcript], Iterable[Forgery]] | None = None
    bad_answers: Callable[[Session, Message, bytes | None], Iterable[Forgery]] | None = None
    oracles: Callable[[Session], Iterable[tuple[str, Tamper]]] | None = None
    claimed: Callable[[Session, Message, Message], Message] | None = None
    foreign_refused: Callable[[Message, Message], bool] | None = None
    sent: tuple[type, ...] = ()
    neighbours: Callable[[Session, int, Transcript], Collection[int]] | None = None
    sparse: Callable[[int], object] | None = None
    beacon: Callable[[int], object] | None = None
    odds: Callable[[int, float, float], Odds | None] | None = None
    graphs: Callable[[Session], Graphs] | None = None
    opening: SearchHooks | None = None
    corrupt: Callable[[Session], Mapping[str, int]] | None = None
    inapplicable: Mapping[str, str] = field(default_factory=dict)
