"""What a server, with the insiders it has, can compute from a transcript of a masked sum: a witness for audits.

The server's side of unmasking is written here a second time, from messages alone, on purpose. What does not belong
here: what may be asked (`audit_search`), judging (`protocols.audit`).
"""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import SERVER, Message, State
from protocols.key_agreement import PairKeys
from protocols.session import Session
from secagg.advertisement import parse
from secagg.client.masking import Masking
from secagg.commitments import SEED, joint_seed, share_digest
from secagg.masking import add_mask, subtract_mask
from secagg.messages import (
    ADVERTISE,
    INPUT,
    REVEAL,
    SHARE,
    UNMASK,
    Advertisement,
    Commitments,
    Dealing,
    Delivery,
    Masked,
    Neighbourhood,
    Opened,
    items,
    unpack_bits,
)
from secagg.packing import unpack
from secagg.ring import Words
from secagg.rules import rules_of
from secagg.seeds import pair_seed, self_mask_seed
from secagg.shamir import combine

Elements = NDArray[np.uint64]
Shares = defaultdict[int, dict[int, bytes]]


def graph_seed(session: Session, transcript: Sequence[Message]) -> bytes:
    """The seed of the session's graph: its own, or what clients revealed."""
    rules = rules_of(session)
    if not rules.committed:
        return rules.seed
    listed = next(m for m in transcript if m.stage == REVEAL and m.sender == SERVER)
    told = next(m for m in transcript if m.stage == SHARE and m.sender == SERVER)
    return joint_seed(session.context, Commitments.decode(listed.body), Neighbourhood.decode(told.body).parts)


class View:
    """A transcript, read: who sent what, which secrets it opens."""

    def __init__(
        self, session: Session, transcript: Sequence[Message], insiders: Mapping[int, State]
    ) -> None:
        self.session, self.rules = session, rules_of(session)
        self.keys: dict[int, bytes] = {}
        self.lists: dict[int, list[int]] = {}
        self.vectors: dict[int, bytes] = {}
        self.shares: dict[str, Shares] = {"seed": defaultdict(dict), "key": defaultdict(dict)}
        self._dealt: dict[int, Dealing] = {}
        self.insiders = {i: state for i, state in insiders.items() if isinstance(state, Masking)}
        self.seed = graph_seed(session, transcript)
        asked: dict[int, list[Delivery]] = defaultdict(list)
        for m in transcript:
            if m.session != session.context:
                continue
            if m.sender == SERVER:
                if m.stage == INPUT:
                    asked[m.recipient.number].append(Delivery.decode(m.body))
            else:
                self._answer(m, m.sender.number, asked)
        self._asked = asked

    def _answer(self, m: Message, index: int, asked: Mapping[int, list[Delivery]]) -> None:
        if m.stage == ADVERTISE:
            self.keys[index] = Advertisement.decode(m.body).keys
        elif m.stage == SHARE:
            self._dealt[index] = Dealing.decode(m.body)
        elif m.stage == INPUT:
            self.vectors[index] = Masked.decode(m.body).vector
            self.lists[index] = self._mates(index, asked[index][-1])
        elif m.stage == UNMASK:
            opened = Opened.decode(m.body)
            for j, share in zip(opened.owners.tolist(), items(opened.shares, 32), strict=True):
                digest = share_digest(m.session, j, index, SEED, share)
                kind = "seed" if digest == self._dealt[j].digest(index, 0) else "key"
                self.shares[kind][j][index + 1] = share

    def _mates(self, index: int, delivery: Delivery) -> list[int]:
        dealers = unpack_bits(delivery.dealers, self.session.clients)
        return [j for j in self.rules.neighbours(index, self.seed) if j in dealers]

    def with_dealt(self) -> "View":
        """The insiders tell every share that was dealt to them besides, before anything else is asked."""
        for i, state in self.insiders.items():
            for delivery in self._asked[i]:
                mates = self._mates(i, delivery)
                held = state._open(delivery, mates)[0] if mates else {}
                for j, share in held.items():
                    self.shares["seed"][j][i + 1], self.shares["key"][j][i + 1] = share[:32], share[32:]
        return self

    def _secrets(self, kind: str) -> dict[int, bytes]:
        t = self.rules.threshold
        return {
            j: combine(dict(sorted(have.items())[:t]), 32)
            for j, have in self.shares[kind].items()
            if len(have) >= t
        }

    @functools.cached_property
    def opened_seeds(self) -> dict[int, bytes]:
        """The secrets behind clients' own masks."""
        return self._secrets("seed")

    @functools.cached_property
    def opened_keys(self) -> dict[int, bytes]:
        """The keys behind clients' masks with neighbours."""
        return self._secrets("key") | {i: state.keys.mask for i, state in self.insiders.items()}

    def left(self, index: int) -> Elements:
        """What is left of a client's vector once every mask that can go is off."""
        session, ring = self.session, self.rules.ring
        words = unpack(self.vectors[index], session.dimension, ring)
        if index in self.opened_seeds:
            own = self_mask_seed(self.opened_seeds[index], session.context, session.roster[index])
            subtract_mask(words, own)
        for j in self.lists[index]:
            self._take_pair_off(words, index, j)
        return ring.residues(words)

    def _take_pair_off(self, words: Words, index: int, other: int) -> None:
        """Take the mask of one edge off, if either end's key is known."""
        holder, peer = (index, other) if index in self.opened_keys else (other, index)
        if holder not in self.opened_keys:
            return
        roster = self.session.roster
        pair = PairKeys(self.opened_keys[holder], roster[holder], self.session.context)
        seed = pair_seed(pair, roster[peer], parse(self.rules, self.keys[peer], str(peer)).mask_key)
        (subtract_mask if index < other else add_mask)(words, seed)

    def tied(self, index: int) -> set[int]:
        """The clients with whom a client shares a mask that is still there."""
        return {j for j in self.lists[index] if j not in self.opened_keys and index not in self.opened_keys}

    def groups(self) -> list[frozenset[int]]:
        """The smallest sets of honest clients whose sum comes out: no mask of theirs is left that does not cancel."""
        bare = {i for i in self.opened_seeds if i in self.vectors and i not in self.insiders}
        tied = {i: self.tied(i) for i in bare}
        reached = {_reached(i, tied) for i in bare}
        return [g for g in reached if g <= bare and all(i in tied[j] for i in g for j in tied[i])]


def _reached(index: int, tied: Mapping[int, set[int]]) -> frozenset[int]:
    """A client with those whose masks are in its vector, and in theirs, and so on."""
    found: set[int] = set()
    edge = {index}
    while edge:
        found |= edge
        edge = {j for i in edge for j in tied.get(i, ())} - found
    return frozenset(found)


def stripped(
    session: Session, transcript: Sequence[Message], insiders: Mapping[int, State]
) -> dict[int, Elements]:
    """What is left of each honest client's vector (see `protocols.audit_hooks.Hooks`)."""
    view = View(session, transcript, insiders)
    return {i: view.left(i) for i in view.vectors if i not in insiders}


def opened(
    session: Session, transcript: Sequence[Message], insiders: Mapping[int, State]
) -> dict[frozenset[int], Elements]:
    """The exact sums, over the fewest honest clients each, that come out."""
    view, modulus = View(session, transcript, insiders).with_dealt(), rules_of(session).ring.modulus
    return {group: _sum([view.left(i) for i in sorted(group)], modulus) for group in view.groups()}


def _sum(vectors: Sequence[Elements], modulus: int) -> Elements:
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total % np.uint64(modulus) if modulus < 1 << 64 else total
