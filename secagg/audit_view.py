"""What a server, with the insiders it has, can compute from a transcript of a masked sum: a witness for audits.

The server's side of unmasking is written here a second time, from messages alone, on purpose. What does not belong
here: what may be asked (`audit_search`), judging (`protocols.audit`).
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from protocols.audit_hooks import Elements
from protocols.errors import PeerError
from protocols.kernel import SERVER, Message, State
from protocols.key_agreement import PairKeys
from protocols.session import Session
from secagg import messages as wire
from secagg.advertisement import parse
from secagg.client.dealing import unsealed
from secagg.client.establishing import Establishing
from secagg.client.masking import Masking
from secagg.client.resuming import Resuming
from secagg.commitments import KEY, SEED, edge_kind, joint_seed
from secagg.masks import apply_masks
from secagg.messages import indices, listed, pack_bits, unpack_bits
from secagg.packing import unpack
from secagg.places import EDGE_BYTES, Places
from secagg.seeds import edge_mask_seed, pair_seed, self_mask_seed
from secagg.session_rules import rules_of
from secagg.shamir import combine

Insiders = Mapping[int, State]


def graph_seed(session: Session, transcript: Sequence[Message]) -> bytes:
    """The seed of the session's graph: its own, or what clients revealed."""
    rules = rules_of(session)
    if not rules.committed:
        return rules.seed
    asked = {m.stage: m.body for m in reversed(transcript) if m.sender == SERVER}
    listed, told = wire.Commitments.decode(asked[wire.REVEAL]), wire.Neighbourhood.decode(asked[wire.SHARE])
    return joint_seed(session.context, listed, told.parts)


class Witness:
    """A transcript, read: who sent what, which secrets it opens. shares: of each secret, by owner and kind, by point.

    With reused keys the set-up's messages say who enrolled, as each client was told; where the transcript lacks them,
    everybody.
    """

    def __init__(self, session: Session, transcript: Sequence[Message], insiders: Insiders) -> None:
        self.session, self.rules, self.insiders = session, rules_of(session), insiders
        self.keys: dict[int, bytes] = {}
        self.vectors: dict[int, bytes] = {}
        self.dealt: dict[int, wire.Dealing] = {}
        self.shares: dict[tuple[int, bytes], dict[int, bytes]] = defaultdict(dict)
        self.seed = graph_seed(session, transcript)
        self._asked: dict[tuple[bytes, str, int], list[Message]] = defaultdict(list)
        self._known: dict[tuple[int, bytes], bytes | None] = {}
        self._resumed: dict[int, Resuming] = {}
        for m in transcript:
            if m.sender == SERVER:
                self._asked[m.session, m.stage, m.recipient.number].append(m)
            elif m.session == session.context:
                self._answer(m, m.sender.number)
        self._resumed = dict(self._resuming())

    def _answer(self, m: Message, index: int) -> None:
        if m.stage == wire.ADVERTISE:
            self.keys[index] = wire.Advertisement.decode(m.body).keys
        elif m.stage == wire.SHARE:
            self.dealt[index] = wire.Dealing.decode(m.body)
        elif m.stage == wire.INPUT:
            body = wire.Masked.decode(m.body)
            self.vectors[index] = body.vector
            if body.dealing is not None:
                self.dealt[index] = body.dealing
        elif m.stage == wire.UNMASK:
            self._opened(index, wire.Opened.decode(m.body))

    def told(self, stage: str, index: int, context: bytes = b"") -> list[bytes]:
        """What the server asked a client at a stage of the session, or of its set-up."""
        return [m.body for m in self._asked[context or self.session.context, stage, index]]

    def places(self, index: int) -> Places:
        """Who shares what with whom, as a client was told who dealt or enrolled."""
        p = self.rules.parameters
        told = self.told(wire.INPUT, index, p.epoch)
        if index in self._resumed:
            bits = self._resumed[index].memory.enrolled
        elif p.reuse:
            bits = wire.Proceed.decode(told[-1]).enrolled if told else b""
        else:
            bits = wire.Delivery.decode(told[-1]).dealers if told else b""
        present = unpack_bits(bits, self.session.clients) if bits else range(self.session.clients)
        return Places(self.rules, self.seed, present)

    def _opened(self, holder: int, opened: wire.Opened) -> None:
        asked = wire.Unmask.decode(self.told(wire.UNMASK, holder)[-1])
        alive = unpack_bits(asked.survivors, self.session.clients)
        places, at = self.places(holder), 0
        for owner in opened.owners.tolist():
            kinds, opens = places.kinds(owner), places.opens(owner, alive)
            start, at = at, at + places.size(len(opens))
            for place, part in zip(opens, places.cut(opened.shares[start:at]), strict=False):
                self.shares[owner, kinds[place]][holder + 1] = part

    def _resuming(self) -> Iterator[tuple[int, Resuming]]:
        """The insiders that reuse keys, with the chains of this round: in a set-up those with all whose keys the server
        has, whatever lists it sent them.
        """
        for i, state in self.insiders.items():
            if isinstance(state, Resuming):
                yield i, state
            elif isinstance(state, Establishing):
                given = Places(self.rules, self.seed, self.keys).known(i)
                everybody = pack_bits(self.keys, self.session.clients)
                told = wire.Proceed(everybody, indices(given), b"".join(self.keys[j] for j in given))
                with contextlib.suppress(PeerError):
                    yield i, state.resuming(told)

    def with_dealt(self) -> "Witness":
        """The insiders tell every share that was dealt to them besides."""
        for i, state in self.insiders.items():
            found = self._boxes(i, self._resumed[i]) if i in self._resumed else self._held(i, state)
            for owner, share in found:
                places = self.places(owner)
                for kind, part in zip(places.kinds(owner), places.cut(share), strict=False):
                    self.shares[owner, kind][i + 1] = part
        return self

    def _held(self, index: int, state: State) -> Iterator[tuple[int, bytes]]:
        """What an insider found in its deliveries, by dealer."""
        if not isinstance(state, Masking):
            return
        for told in self.told(wire.INPUT, index):
            delivery = wire.Delivery.decode(told)
            dealers = unpack_bits(delivery.dealers, self.session.clients)
            mates = Places(self.rules, self.seed, dealers).neighbours(index)
            yield from state._open(delivery, mates)[0].items() if mates else ()

    def _boxes(self, index: int, state: Resuming) -> Iterator[tuple[int, bytes]]:
        """What lies in the boxes that others sealed for a holder, by owner."""
        channels = state._keys("seal", self.places(index).peers(index), state.memory.channels, 32)
        for owner, dealing in self.dealt.items():
            box = listed(dealing.holders, dealing.boxes).get(index)
            if box and owner in channels and (share := unsealed(state, owner, channels[owner], box)):
                yield owner, share

    def _secret(self, owner: int, kind: bytes) -> bytes | None:
        what = owner, kind
        if what not in self._known:
            have = sorted(self.shares.get(what, {}).items())[: self.rules.threshold]
            enough = len(have) == self.rules.threshold
            self._known[what] = combine(dict(have), len(have[0][1])) if enough else None
        return self._known[what]

    def own_mask(self, index: int) -> bytes | None:
        """The seed of a client's own mask, if it comes out."""
        secret = self._secret(index, SEED)
        return secret and self_mask_seed(secret, self.session.context, self.session.roster[index])

    def edge_mask(self, index: int, other: int) -> bytes | None:
        """The seed of the mask of two clients, if it comes out at either end."""
        return self._edge_at(index, other) or self._edge_at(other, index)

    def _edge_at(self, index: int, other: int) -> bytes | None:
        names, context, state = self.session.roster, self.session.context, self.insiders.get(index)
        if not self.rules.parameters.reuse:
            key = state.keys.mask if isinstance(state, Masking) else self._secret(index, KEY)
            pair = key and PairKeys(key, names[index], context)
            peer = parse(self.rules, self.keys[other], str(other)).mask_key
            return pair_seed(pair, names[other], peer) if pair else None
        edge = self._secret(index, edge_kind(other))
        if index in self._resumed:
            resumed, around = self._resumed[index], self.places(index).neighbours(index)
            edge = resumed._keys("edge", around, resumed.memory.chains, EDGE_BYTES).get(other)
        return edge and edge_mask_seed(edge, context, names[index], names[other])

    def left(self, index: int) -> Elements:
        """What is left of a client's vector once every mask that can go is off."""
        words = unpack(self.vectors[index], self.session.dimension, self.rules.ring)
        masks = {j: self.edge_mask(index, j) for j in self.places(index).neighbours(index)}
        masks[index] = self.own_mask(index)  # it was added, like those of later clients
        found = [(index <= j, seed) for j, seed in masks.items() if seed is not None]
        apply_masks(words, [seed for mine, seed in found if not mine], [seed for mine, seed in found if mine])
        return self.rules.ring.residues(words)

    def groups(self) -> list[frozenset[int]]:
        """The smallest sets of honest clients whose sum comes out: no mask of theirs is left that does not cancel."""
        honest = [i for i in self.vectors if i not in self.insiders]
        bare = {i for i in honest if self.own_mask(i) is not None}
        around = {i: self.places(i).neighbours(i) for i in bare}
        tied = {i: {j for j in around[i] if self.edge_mask(i, j) is None} for i in bare}
        reached = {_reached(i, tied) for i in bare}
        return [g for g in reached if g <= bare and all(i in tied[j] for i in g for j in tied[i])]


def _reached(index: int, tied: Mapping[int, set[int]]) -> frozenset[int]:
    """A client with those whose masks are in its vector, and in theirs, and so on."""
    found, edge = set[int](), {index}
    while edge:
        found |= edge
        edge = {j for i in edge for j in tied.get(i, ())} - found
    return frozenset(found)


def stripped(session: Session, transcript: Sequence[Message], insiders: Insiders) -> dict[int, Elements]:
    """What is left of each honest client's vector (see `protocols.audit_hooks.Hooks`)."""
    seen = Witness(session, transcript, insiders)
    return {i: seen.left(i) for i in seen.vectors if i not in insiders}


def opened(
    session: Session, transcript: Sequence[Message], insiders: Insiders
) -> dict[frozenset[int], Elements]:
    """The exact sums, over the fewest honest clients each, that come out."""
    seen = Witness(session, transcript, insiders).with_dealt()
    last = np.uint64(rules_of(session).ring.modulus - 1)
    return {group: np.sum([seen.left(i) for i in sorted(group)], axis=0) & last for group in seen.groups()}
