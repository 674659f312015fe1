"""The opening rule of masked sums, for an adversary that searches: what clients check, how a lying server words its
requests, and which sums come out.

What does not belong here: the search (`protocols.audit.search`), and code that a session runs.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import SERVER, Message, client, message
from protocols.opening import Attack, Check, Rule
from protocols.session import Session
from secagg.commitments import joint_seed
from secagg.graph import permutation
from secagg.messages import (
    CONFIRM,
    REVEAL,
    SHARE,
    UNMASK,
    Commitments,
    Delivery,
    Neighbourhood,
    Survivors,
    Unmask,
    Vote,
    indices,
    pack_bits,
)
from secagg.rules import Rules, rules_of

Elements = NDArray[np.uint64]
Transcript = Sequence[Message]


def graph_seed(session: Session, transcript: Transcript) -> bytes:
    """The seed of the session's graph: its own, or what clients revealed."""
    rules = rules_of(session)
    if not rules.committed:
        return rules.seed
    listed = next(m for m in transcript if m.stage == REVEAL and m.sender == SERVER)
    told = next(m for m in transcript if m.stage == SHARE and m.sender == SERVER)
    return joint_seed(session.context, Commitments.decode(listed.body), Neighbourhood.decode(told.body).parts)


def rule(session: Session, transcript: Transcript) -> Rule:
    """What honest clients check before they open anything."""
    rules = rules_of(session)
    seed, t = graph_seed(session, transcript), rules.threshold
    near = rules.parameters.corrupt
    return Rule(
        clients=session.clients,
        neighbours=tuple(frozenset(rules.neighbours(i, seed)) for i in range(session.clients)),
        threshold=t,
        least=rules.survivors,
        corrupt=near,
        near=near,
        checks=tuple(_checks(rules)),
        order=tuple(permutation(seed, session.clients).tolist()) if seed else (),
        unexamined=("per-client lists of keys",),
    )


def _checks(rules: Rules) -> Iterator[Check]:
    t = rules.threshold
    yield Check("dealers", ("input",), "least", "list", "neighbours", t)
    yield Check("itself among the survivors", ("vote",), "own")
    yield Check("enough survivors", ("vote",), "least", "view", "all", rules.survivors)
    yield Check("surviving neighbours dealt", ("vote",), "within", among="neighbours")
    yield Check("surviving neighbours", ("vote",), "least", "view", "neighbours", t)
    yield Check("one vote", ("vote",), "once")
    yield Check("votes", ("open",), "least", "votes", "neighbours", t)
    yield Check("the view it voted for", ("open",), "voted")
    yield Check("one answer", ("open",), "once")


def lies(
    session: Session, attack: Attack, transcript: Transcript, requests: Sequence[Message]
) -> Generator[Message, Sequence[Message], None]:
    """The requests of a server that plays an attack; the answers come back. requests: the genuine ones for input."""
    for m in requests:
        if m.recipient.number in attack.lists:
            yield replace(m, body=_shortened(m, attack.lists[m.recipient.number]))
    votes: list[dict[int, bytes]] = [{} for _ in attack.views]
    for i, views in attack.votes.items():
        for v in views:
            shown = Survivors(pack_bits(sorted(attack.views[v]), session.clients))
            for answer in (yield _to(session, CONFIRM, i, shown.encode())):
                votes[v][i] = Vote.decode(answer.body).signature
    rules, seed = rules_of(session), graph_seed(session, transcript)
    for i, views in attack.answers.items():
        for v in views:
            around = set(rules.neighbours(i, seed)) & attack.lists[i] & attack.views[v]
            signers = sorted(around & set(votes[v]))[: rules.threshold]
            nobody = indices(())
            body = Unmask(nobody, nobody, indices(signers), b"".join(votes[v][j] for j in signers))
            yield _to(session, UNMASK, i, body.encode())


def _to(session: Session, stage: str, index: int, body: bytes) -> Message:
    return message(session.context, stage, SERVER, client(index), body)


def _shortened(request: Message, wanted: frozenset[int]) -> bytes:
    """A delivery with fewer dealers."""
    told = Delivery.decode(request.body)
    kept = np.array([j in wanted for j in told.dealers.tolist()], bool)
    if not kept.any():
        return Delivery(indices(()), b"", b"").encode()
    rows = [np.frombuffer(part, np.uint8).reshape(len(kept), -1)[kept] for part in (told.boxes, told.digests)]
    return Delivery(told.dealers[kept], rows[0].tobytes(), rows[1].tobytes()).encode()
