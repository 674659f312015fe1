"""The masked vector of a round, and the shares that go with it. What does not belong here: agreeing on keys.

Edge seeds of a round are derived from the pair's chain and the round's context, so both ends have the same
one, and two clients who were shown different models have different ones.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import Left, State, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState, expect_vector
from secagg.client.view import View
from secagg.commitments import SEED, seed_digest, share_digest, signer
from secagg.key_agreement import derive, info
from secagg.masking import apply_masks
from secagg.messages import INPUT, indices, items, unpack_bits
from secagg.packing import pack
from secagg.reuse.client.guarding import Guarding, Voting
from secagg.reuse.memory import ClientMemory
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES, Deposit
from secagg.reuse.places import Places
from secagg.reuse.pledges import DEPOSIT, deposit_bytes, edge_digest, edge_kind
from secagg.rules import rules_of
from secagg.sealing import binding, seal
from secagg.seeds import edge_mask_seed, self_mask_seed
from secagg.shamir import split_array


@dataclass(frozen=True, eq=False)
class RoundSecrets:
    """One client's secrets of one round: its own mask's seed, an edge seed per neighbour, a sealing key
    per peer.
    """

    session: Session
    index: int
    seed: bytes = field(repr=False)
    edges: dict[int, bytes] = field(repr=False)
    keys: dict[int, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        return self.session.roster[self.index]


def deposit(
    state: ClientState,
    update: bytes,
    vector: NDArray[np.int64],
    memory: ClientMemory,
    sign: bytes,
    random: SecureRandom,
) -> Step:
    """Return the step in which the masked vector leaves; in what it remembers the chains have moved on."""
    expect_vector(vector)
    session, rules = state.session, state.rules
    places = Places(rules, unpack_bits(memory.enrolled, session.clients))
    secrets = _secrets(session, state.index, places, memory, random)
    view = View(rules.seed, memory.enrolled, memory.signers)
    body = _entrusted(_masked(secrets, vector), secrets, places.holders(state.index), random)
    if rules.voted:
        body = replace(body, input=view.sign_input(session, state.index, sign))
        signed = deposit_bytes(session.context, state.index, body)
        body = replace(body, signature=signer(sign).sign(DEPOSIT, signed))
    after: State = Left()
    if state.index in rules.holders:
        known = (session, state.index, view, b"".join(secrets.keys.values()))
        after = Voting(*known, sign) if rules.agrees else Guarding(*known)
    marks = (f"spent/{update.hex()}",)
    return Step(after, state.answer(body), marks=marks, memory=memory.forward(1).encode())


def _secrets(
    session: Session, index: int, places: Places, memory: ClientMemory, random: SecureRandom
) -> RoundSecrets:
    own, names = session.roster[index], session.roster
    edges = {
        j: derive(chain, session.context, info("edge", own, names[j]), EDGE_BYTES)
        for j, chain in zip(places.neighbours(index), items(memory.chains, 32), strict=True)
    }
    keys = {
        j: derive(chain, session.context, info("seal", own, names[j]))
        for j, chain in zip(places.peers(index), items(memory.channels, 32), strict=True)
    }
    return RoundSecrets(session, index, random.bytes(SEED_BYTES), edges, keys)


def _masked(secrets: RoundSecrets, vector: NDArray[np.int64]) -> bytes:
    session, ring = secrets.session, rules_of(secrets.session).ring
    words = ring.embed(vector)
    added, taken = [self_mask_seed(secrets.seed, session.context, secrets.name)], list[bytes]()
    for j, edge in secrets.edges.items():
        mask = edge_mask_seed(edge, session.context, secrets.name, session.roster[j])
        (added if secrets.index < j else taken).append(mask)
    apply_masks(words, added, taken)
    return pack(words, ring)


def _entrusted(vector: bytes, secrets: RoundSecrets, holders: list[int], random: SecureRandom) -> Deposit:
    """The shares of all secrets, one sealed box per holder, with digests and pledges; not signed yet."""
    session, index, rules = secrets.session, secrets.index, rules_of(secrets.session)
    context, edges = session.context, secrets.edges
    material = secrets.seed + b"".join(edges.values())
    shares = split_array(material, rules.threshold, rules.points(indices(holders)), random)
    boxes, digests = [], []
    for j, row in zip(holders, shares, strict=True):
        share = row.tobytes()
        bound = binding(context, INPUT, secrets.name, session.roster[j])
        boxes.append(seal(secrets.keys[j], share, bound, random))
        digests.append(share_digest(context, index, j, SEED, share[:SEED_BYTES]))
        for peer, part in zip(edges, items(share[SEED_BYTES:], EDGE_BYTES), strict=True):
            digests.append(share_digest(context, index, j, edge_kind(peer), part))
    pledges = [seed_digest(context, index, secrets.seed)]
    pledges += [edge_digest(context, index, peer, edge) for peer, edge in edges.items()]
    return Deposit(vector, b"".join(boxes), b"".join(digests), b"".join(pledges), b"", b"")
