"""Seconds of a round on this machine, from a calibration of about half a second. No promise: an order of magnitude
to plan by.

Each unit is measured on the functions that the roles call, so that their overhead is in it. What does not belong
here: how often each is needed beyond the counts of `costs`, network time.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protocols import simulate
from protocols.identity import Identity, verify
from protocols.key_agreement import PairKeys, generate
from protocols.randomness import SystemRandom
from protocols.sealing import binding, seal, unseal
from secagg.commitments import SEED, share_digest
from secagg.masks import SEED_BYTES, add_mask
from secagg.packing import accumulator, add_packed, pack
from secagg.parameters.costs import Costs
from secagg.parameters.plan import Plan
from secagg.protocol import SecAgg
from secagg.ring import Ring
from secagg.shamir import combine_arrays, split_array

_SECRET = 64
_SMALL = 24
_BUDGET_S = 0.04
_MOST_SHARES = 256
_SAMPLE = 1 << 18


@dataclass(frozen=True)
class Units:
    """Seconds per operation: agreement and signing per call, box per sealed and opened share, split per share and
    threshold, combine per squared threshold, digest per commitment to a share, relay per box that the server hands
    on, mask per expansion and per byte, pack and add per element.
    """

    agreement: float
    signature: float
    verification: float
    box: float
    split: float
    combine: float
    digest: float
    relay: float
    mask_call: float
    mask_byte: float
    pack: float
    add: float


def calibrate(degree: int, threshold: int, ring: Ring) -> Units:
    """Measure this machine. Shares are measured on at most 256 holders and scaled."""
    random, context = SystemRandom(), bytes(32)
    own, peer = PairKeys(generate(random), "a", context), PairKeys(generate(random), "b", context).public()
    identity = Identity.generate("a")
    signature = identity.sign("plan", context)
    key, bound = os.urandom(32), binding(context, "plan", "a", "b")
    k = min(degree, _MOST_SHARES)
    t = max(2, min(k, threshold * k // degree))
    points, secret = np.arange(1, k + 1), os.urandom(_SECRET)
    shares = split_array(secret, t, points, random)[:t]
    words, few = np.zeros(_SAMPLE, ring.dtype), np.zeros(1, ring.dtype)
    seed = os.urandom(SEED_BYTES)
    packed, total = pack(words, ring), accumulator(_SAMPLE, ring)
    call = _seconds(lambda: add_mask(few, seed))
    return Units(
        agreement=_seconds(lambda: own.agree("b", peer, "plan")),
        signature=_seconds(lambda: identity.sign("plan", context)),
        verification=_seconds(lambda: verify(identity.public, "plan", context, signature)),
        box=_seconds(lambda: unseal(key, seal(key, secret, bound, random), bound, "a")),
        split=_seconds(lambda: split_array(secret, t, points, random)) / (k * t),
        combine=_seconds(lambda: combine_arrays(points[None, :t], shares[None], _SECRET)) / t**2,
        digest=_seconds(lambda: share_digest(context, 1, 2, SEED, key)),
        relay=_relay(),
        mask_call=call,
        mask_byte=max(0.0, _seconds(lambda: add_mask(words, seed)) - call) / words.nbytes,
        pack=_seconds(lambda: pack(words, ring)) / _SAMPLE,
        add=_seconds(lambda: add_packed(total, packed, _SAMPLE, ring)) / _SAMPLE,
    )


def estimate(plan: Plan, cost: Costs, units: Units) -> tuple[float, float]:
    """Seconds of one client and of the server for a whole round, single-threaded, without the network."""
    k, t, cohort = plan.degree, plan.threshold, plan.cohort
    secrets = 1 + k if cohort.reuse else 2
    mask = units.mask_call + units.mask_byte * cost.dimension * Ring(cost.ring_bits).dtype.itemsize
    voted = float(cohort.two_faced)
    certified = float(cohort.threat == "malicious")
    client = (
        cost.client_agreements * units.agreement
        + cost.client_boxes * (units.box + 2 * secrets * units.digest)
        + cost.client_boxes * t * units.split * cost.share_bytes / _SECRET
        + cost.client_mask_expansions * mask
        + cost.dimension * units.pack
        + voted * (3 * units.signature + cost.opening_signatures * units.verification)
        + certified * (units.signature + k * units.verification)
    )
    server = (
        cohort.clients * (3 * voted + certified) * units.verification
        + cohort.clients * cost.client_boxes * units.relay
        + cohort.survivors * cost.dimension * units.add
        + cohort.clients * t**2 * units.combine * cost.share_bytes / _SECRET
        + cost.server_mask_expansions * mask
        + cost.server_agreements * units.agreement
    )
    return client, server


def _relay() -> float:
    """The server's seconds per client and neighbour in a small session of one coordinate: reading, checking, handing
    on.
    """
    vectors = np.zeros((_SMALL, 1), np.int64)
    sessions = [
        simulate(SecAgg(0.0, 0.0, "semi-honest"), vectors, bound=1, clock=time.thread_time) for _ in range(3)
    ]
    return min(session.seconds_of("server") for session in sessions) / (_SMALL * (_SMALL - 1))


def _seconds(work: Callable[[], object]) -> float:
    """The fastest of as many runs as fit the budget, after one to warm up, in processor time: other load only ever
    adds.
    """
    work()
    best, ends = float("inf"), time.perf_counter() + _BUDGET_S
    while True:
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
        if time.perf_counter() >= ends:
            return best
