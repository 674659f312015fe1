"""What a round costs: bytes on the wire, masks expanded, keys agreed. What does not belong here: seconds
(`calibration`).

Bytes are those of the protocol's own message records, encoded, with every neighbour present; nothing is estimated but
the survivors' share of the neighbours. With reused keys they are a later round's, of a client that holds shares.
"""

from dataclasses import dataclass

import numpy as np

from protocols.agreement import Certificate, Vote
from protocols.codec import Record
from protocols.errors import Misuse
from protocols.kernel import SERVER, client, message
from protocols.roles import Ask
from protocols.sealing import OVERHEAD
from secagg import messages as wire
from secagg.messages import DIGEST_BYTES, SIGNATURE_BYTES, Indices
from secagg.parameters.plan import Infeasible, Plan
from secagg.places import EDGE_BYTES, SEED_BYTES
from secagg.ring import Ring

_PART = 32


@dataclass(frozen=True)
class Costs:
    """What one round costs, per client and for the server.

    ring_bits: width of the ring that carries the sum. plain_bytes: the input vector, packed at its own width.
    ring_bytes: the vector packed at the ring's width. upload_bytes, download_bytes: one client's messages, complete
    (`fixed_upload_bytes`: without the vector; the download is a mean). server_received_bytes: all uploads. expansion:
    upload_bytes / plain_bytes. mask_expansions: keystreams of the vector's length. agreements: key agreements.
    client_boxes: boxes that a client seals, each with `share_bytes` of shares. trips: messages that a client who votes
    answers. opening_request_bytes: the request to open shares, survivors and certificate included, in the mean;
    opening_signatures: those that a client checks of it.
    """

    dimension: int
    bits: int
    ring_bits: int
    trips: int
    plain_bytes: int
    ring_bytes: int
    upload_bytes: int
    fixed_upload_bytes: int
    download_bytes: int
    server_received_bytes: int
    expansion: float
    client_mask_expansions: int
    server_mask_expansions: int
    client_agreements: int
    server_agreements: int
    client_boxes: int
    share_bytes: int
    opening_request_bytes: int
    opening_signatures: int


def costs(plan: Plan, dimension: int, bits: int) -> Costs:
    """The costs of one round over `dimension` coordinates of `bits` bits (signed: |x| < 2^(bits-1)).

    Raises Misuse for a dimension or width below 1 (2 bits is the least signed width), Infeasible if the sum needs a
    ring of more than 64 bits.
    """
    if dimension < 1 or not 2 <= bits <= 64:
        raise Misuse(f"expected a dimension of at least 1 and 2 to 64 bits, got {dimension} and {bits}")
    ring = Ring(ring_bits(plan.cohort.clients, bits))
    n, reuse = plan.cohort.clients, plan.cohort.reuse
    trips = _trips(plan)
    ring_bytes = ring.packed_bytes(dimension)
    sizes = {stage: _size(stage, answer, up=True) for stage, _, answer in trips}
    asked = [_size(stage, request, up=False) for stage, request, _ in trips]
    fixed, plain = sum(sizes.values()), Ring(bits).packed_bytes(dimension)
    dropped, survivors = plan.cohort.dropped, plan.cohort.survivors
    pairs = round(dropped * plan.degree * survivors / max(1, n - 1))
    silent = n - plan.holders if reuse else 0  # who holds no shares sends nothing but its vector
    return Costs(
        dimension=dimension,
        bits=bits,
        ring_bits=ring.bits,
        trips=len(trips),
        plain_bytes=plain,
        ring_bytes=ring_bytes,
        upload_bytes=fixed + ring_bytes,
        fixed_upload_bytes=fixed,
        download_bytes=sum(asked) + _roster_bytes(plan),
        server_received_bytes=n * fixed - silent * (fixed - sizes[wire.INPUT]) + survivors * ring_bytes,
        expansion=(fixed + ring_bytes) / plain,
        client_mask_expansions=plan.degree + 1,
        server_mask_expansions=survivors + pairs,
        client_agreements=0 if reuse else 2 * plan.degree,
        server_agreements=0 if reuse else pairs,
        client_boxes=plan.holders - reuse,
        share_bytes=_share_bytes(plan),
        opening_request_bytes=asked[-1] + (n + 7) // 8,
        opening_signatures=plan.quorum * plan.votes + _silent(plan),
    )


def ring_bits(clients: int, bits: int) -> int:
    """Width of the smallest ring that carries the sum of signed `bits`-bit values: 2^width > 2 x clients x
    (2^(bits-1) - 1).

    Raises Infeasible above 64.
    """
    width = _width(clients, bits)
    if width > 64:
        fits = max((b for b in range(2, bits) if _width(clients, b) <= 64), default=None)
        raise Infeasible(
            f"infeasible: the sum of {clients} values of {bits} bits needs a ring of {width} bits, of at most 64",
            (f"lower bits to {fits}",) if fits else ("have fewer clients",),
        )
    return width


def _width(clients: int, bits: int) -> int:
    return (2 * clients * ((1 << (bits - 1)) - 1)).bit_length()


def _trips(plan: Plan) -> list[tuple[str, Record, Record]]:
    """Stage, request and answer of each trip of one client, with an empty vector, without what grows with the roster
    alone (`_roster_bytes`); with reused keys, of a later round of a client that holds shares.
    """
    n, k, threat, reuse = plan.cohort.clients, plan.degree, plan.cohort.threat, plan.cohort.reuse
    signature, box = bytes(SIGNATURE_BYTES * plan.cohort.two_faced), _share_bytes(plan) + OVERHEAD
    rows, secrets, pledges = plan.holders - reuse, (1 + k if reuse else 2), (1 + k if reuse else 1)
    digests, boxes = bytes(DIGEST_BYTES * secrets * rows), bytes(box * rows)
    dealing = wire.Dealing(_first(rows), digests, bytes(32 * pledges), boxes, signature)
    certificate = Certificate(_first(plan.quorum), bytes(SIGNATURE_BYTES * plan.quorum))
    held = dict.fromkeys(range(_held(plan)), bytes(box)) if reuse else {}
    inputs = bytes(SIGNATURE_BYTES * _silent(plan))
    unmask = wire.Unmask(b"", certificate if plan.votes else None, inputs, held)
    gone = round(_held(plan) * k * plan.cohort.dropped / max(1, n - 1)) * reuse
    opened = wire.Opened(_first(_held(plan)), bytes(SEED_BYTES * _held(plan) + EDGE_BYTES * gone))
    told = wire.Proceed(b"", _first(0), b"") if reuse else wire.Delivery(b"", boxes, digests)
    vote = [(wire.CONFIRM, wire.Survivors(b""), Vote(signature))] if plan.votes else []
    masked = wire.Masked(b"", _first(0), signature, dealing if reuse else None)
    rest: list[tuple[str, Record, Record]] = [
        (wire.INPUT, told, masked),
        *vote,
        (wire.UNMASK, unmask, opened),
    ]
    if reuse:
        return rest
    keys = 64 + 32 * (threat == "semi-malicious") + _PART * plan.committed
    keys += SIGNATURE_BYTES * (threat == "malicious")
    others = round((plan.committee or n) * (n - 1 - k) / n) * (threat == "semi-malicious")
    around = wire.Neighbourhood(_first(k), bytes(keys * k), b"", _first(others), bytes(32 * others))
    reveal = [(wire.REVEAL, wire.Commitments(_first(0), b""), wire.Reveal(bytes(_PART)))] * plan.committed
    return [
        (wire.ADVERTISE, Ask(), wire.Advertisement(bytes(keys))),
        *reveal,
        (wire.SHARE, around, dealing),
        *rest,
    ]


def _held(plan: Plan) -> int:
    """Clients whose shares one holds when it opens."""
    return plan.cohort.survivors - 1 if plan.cohort.reuse else plan.degree


def _share_bytes(plan: Plan) -> int:
    """Shares of one client's secrets that a holder keeps: two, or with reused keys one per edge besides the seed."""
    return SEED_BYTES + (EDGE_BYTES * plan.degree if plan.cohort.reuse else SEED_BYTES)


def _silent(plan: Plan) -> int:
    """Clients whose shares one holds and whose vote is not in the certificate, in the mean: their signed inputs come
    beside it.
    """
    n, voted = plan.cohort.clients, plan.quorum * plan.votes
    return round(_held(plan) * (n - voted) / n) if plan.cohort.two_faced else 0


def _roster_bytes(plan: Plan) -> int:
    """What each client is sent about the whole roster: bits of dealers and survivors; committed, index, commitment
    and part too.
    """
    n = plan.cohort.clients
    told = 1 + plan.votes if plan.cohort.reuse else 2 + plan.cohort.two_faced
    return (n + 7) // 8 * told + (4 + 2 * _PART) * n * plan.committed


def _first(count: int) -> Indices:
    return np.arange(count, dtype=np.uint32)


def _size(stage: str, body: Record, *, up: bool) -> int:
    ends = (client(0), SERVER) if up else (SERVER, client(0))
    return message(bytes(32), stage, *ends, body.encode()).size
