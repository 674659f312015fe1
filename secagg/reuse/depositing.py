"""The masked vector of a round, and the shares that go with it. What does not belong here: states,
agreeing on keys.

Edge seeds of a round are derived from the pair's chain and the round's context, so both ends have the same
one, and two clients who were shown different models have different ones.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import Left, State, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState
from secagg.commitments import SEED, seed_digest, share_digest, signer
from secagg.key_agreement import derive, info
from secagg.masking import add_mask, subtract_mask
from secagg.messages import INPUT, Indices, indices, items
from secagg.packing import pack
from secagg.reuse.guarding import Guarding
from secagg.reuse.memory import ClientMemory
from secagg.reuse.messages import EDGE_BYTES, SEED_BYTES, Deposit, Entrusted
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
    neighbours: Indices
    seed: bytes = field(repr=False)
    edges: list[bytes] = field(repr=False)
    keys: dict[int, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        return self.session.roster[self.index]


def deposit(
    state: ClientState, update: bytes, vector: NDArray[np.int64], memory: ClientMemory, random: SecureRandom
) -> Step:
    """Return the step in which the masked vector leaves; in what it remembers the chains have moved on."""
    secrets = _secrets(state.session, state.index, memory, random)
    body = _entrusted(_masked(secrets, vector), secrets, memory.sign, random)
    after: State = Left()
    if state.index in state.rules.committee:
        keys = b"".join(secrets.keys[j] for j in memory.peers.tolist())
        after = Guarding(state.session, state.index, memory.neighbours, memory.peers, keys)
    marks = (f"spent/{update.hex()}",)
    return Step(after, state.answer(body), marks=marks, memory=memory.forward(1).encode())


def _secrets(session: Session, index: int, memory: ClientMemory, random: SecureRandom) -> RoundSecrets:
    own, names = session.roster[index], session.roster
    edges = [
        derive(chain, session.context, info("edge", own, names[j]), EDGE_BYTES)
        for j, chain in zip(memory.neighbours.tolist(), items(memory.chains, 32), strict=True)
    ]
    keys = {
        j: derive(chain, session.context, info("seal", own, names[j]))
        for j, chain in zip(memory.peers.tolist(), items(memory.channels, 32), strict=True)
    }
    return RoundSecrets(session, index, memory.neighbours, random.bytes(SEED_BYTES), edges, keys)


def _masked(secrets: RoundSecrets, vector: NDArray[np.int64]) -> bytes:
    session, ring = secrets.session, rules_of(secrets.session).ring
    words = ring.embed(vector)
    add_mask(words, self_mask_seed(secrets.seed, session.context, secrets.name))
    for j, edge in zip(secrets.neighbours.tolist(), secrets.edges, strict=True):
        mask = edge_mask_seed(edge, session.context, secrets.name, session.roster[j])
        if secrets.index < j:
            add_mask(words, mask)
        else:
            subtract_mask(words, mask)
    return pack(words, ring)


def _entrusted(vector: bytes, secrets: RoundSecrets, sign: bytes, random: SecureRandom) -> Deposit:
    """The shares of all secrets, one sealed box per holder, with digests and pledges."""
    session, index, rules = secrets.session, secrets.index, rules_of(secrets.session)
    holders = indices(j for j in sorted(secrets.keys) if j in rules.committee)
    material = secrets.seed + b"".join(secrets.edges)
    shares = split_array(material, rules.threshold, rules.points(holders), random)
    boxes, digests = [], []
    for j, row in zip(holders.tolist(), shares, strict=True):
        share = row.tobytes()
        plain = Entrusted(secrets.neighbours, share[:SEED_BYTES], share[SEED_BYTES:]).encode()
        bound = binding(session.context, INPUT, secrets.name, session.roster[j])
        boxes.append(seal(secrets.keys[j], plain, bound, random))
        digests.append(share_digest(session.context, index, j, SEED, share[:SEED_BYTES]))
        for peer, edge in zip(
            secrets.neighbours.tolist(), items(share[SEED_BYTES:], EDGE_BYTES), strict=True
        ):
            digests.append(share_digest(session.context, index, j, edge_kind(peer), edge))
    pledges = [seed_digest(session.context, index, secrets.seed)]
    for peer, edge in zip(secrets.neighbours.tolist(), secrets.edges, strict=True):
        pledges.append(edge_digest(session.context, index, peer, edge))
    body = Deposit(
        vector, secrets.neighbours, holders, b"".join(boxes), b"".join(digests), b"".join(pledges), b""
    )
    if not rules.voted:
        return body
    return replace(body, signature=signer(sign).sign(DEPOSIT, deposit_bytes(session.context, index, body)))
