"""What a round costs: bytes on the wire, masks expanded, keys agreed. What does not belong here: seconds
(`calibration`).

Bytes are those of the protocol's own message records, encoded, with every neighbour present; nothing is estimated but
the survivors' share of the neighbours. With reused keys they are a later round's, of a client that holds shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocols.agreement import Certificate, Vote
from protocols.codec import Record
from protocols.errors import Misuse
from protocols.kernel import SERVER, client, message
from protocols.roles import Ask
from protocols.sealing import OVERHEAD
from secagg.messages import (
    ADVERTISE,
    CONFIRM,
    DIGEST_BYTES,
    INPUT,
    REVEAL,
    SHARE,
    SIGNATURE_BYTES,
    UNMASK,
    Advertisement,
    Commitments,
    Dealing,
    Delivery,
    Indices,
    Masked,
    Neighbourhood,
    Opened,
    Proceed,
    Reveal,
    Survivors,
    Unmask,
)
from secagg.parameters.plan import Infeasible, Plan
from secagg.places import EDGE_BYTES, SEED_BYTES
from secagg.ring import Ring

_SECRET, _PART = 32, 32
_BOX = 2 * _SECRET + OVERHEAD
_NO_CONTEXT = bytes(32)


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
    up, down = _reused(plan) if reuse else (_uploads(plan), _downloads(plan))
    ring_bytes = ring.packed_bytes(dimension)
    sizes = {stage: _size(stage, body, up=True) for stage, body in up}
    fixed, plain = sum(sizes.values()), Ring(bits).packed_bytes(dimension)
    dropped, survivors = plan.cohort.dropped, plan.cohort.survivors
    pairs = round(dropped * plan.degree * survivors / max(1, n - 1))
    silent = n - plan.holders if reuse else 0  # who holds no shares sends nothing but its vector
    return Costs(
        dimension=dimension,
        bits=bits,
        ring_bits=ring.bits,
        trips=len(up),
        plain_bytes=plain,
        ring_bytes=ring_bytes,
        upload_bytes=fixed + ring_bytes,
        fixed_upload_bytes=fixed,
        download_bytes=sum(_size(stage, body, up=False) for stage, body in down) + _roster_bytes(plan),
        server_received_bytes=n * fixed - silent * (fixed - sizes[INPUT]) + survivors * ring_bytes,
        expansion=(fixed + ring_bytes) / plain,
        client_mask_expansions=plan.degree + 1,
        server_mask_expansions=survivors + pairs,
        client_agreements=0 if reuse else 2 * plan.degree,
        server_agreements=0 if reuse else pairs,
        client_boxes=plan.holders - reuse,
        share_bytes=_share_bytes(plan),
        opening_request_bytes=_size(*down[-1], up=False) + (n + 7) // 8,
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


def _uploads(plan: Plan) -> list[tuple[str, Record]]:
    """One client's answers, trip by trip, with an empty vector."""
    k, threat = plan.degree, plan.cohort.threat
    voted, committed = plan.cohort.two_faced, _committed(plan)
    keys = (
        64 + 32 * (threat == "semi-malicious") + _PART * committed + SIGNATURE_BYTES * (threat == "malicious")
    )
    signature = bytes(SIGNATURE_BYTES * voted)
    answers: list[tuple[str, Record]] = [(ADVERTISE, Advertisement(bytes(keys)))]
    if committed:
        answers.append((REVEAL, Reveal(bytes(_PART))))
    everyone = _first(k)
    dealing = Dealing(everyone, bytes(2 * DIGEST_BYTES * k), bytes(_SECRET), bytes(_BOX * k), signature)
    answers += [(SHARE, dealing), (INPUT, Masked(b"", _first(0), signature))]
    if voted:
        answers.append((CONFIRM, Vote(signature)))
    opened = Opened(everyone, bytes(_SECRET * k))
    return [*answers, (UNMASK, opened)]


def _downloads(plan: Plan) -> list[tuple[str, Record]]:
    """The server's requests to one client, without what grows with the roster alone (`_roster_bytes`)."""
    n, k, threat = plan.cohort.clients, plan.degree, plan.cohort.threat
    keys = len(_uploads(plan)[0][1].encode()) - 4
    requests: list[tuple[str, Record]] = [(ADVERTISE, Ask())]
    if _committed(plan):
        requests.append((REVEAL, Commitments(_first(0), b"")))
    voters = plan.committee or n
    others = _first(round(voters * (n - 1 - k) / n) * (threat == "semi-malicious"))
    requests.append((SHARE, Neighbourhood(_first(k), bytes(keys * k), b"", others, bytes(32 * len(others)))))
    requests.append((INPUT, Delivery(b"", bytes(_BOX * k), bytes(2 * DIGEST_BYTES * k))))
    if not plan.cohort.two_faced:
        return [*requests, (UNMASK, Unmask(b"", None, b""))]
    certificate = Certificate(_first(plan.quorum), bytes(SIGNATURE_BYTES * plan.quorum))
    unmask = Unmask(b"", certificate, bytes(SIGNATURE_BYTES * _silent(plan)))
    return [*requests, (CONFIRM, Survivors(b"")), (UNMASK, unmask)]


def _reused(plan: Plan) -> tuple[list[tuple[str, Record]], list[tuple[str, Record]]]:
    """Answers and requests of a later round with reused keys, of a client that holds shares."""
    rows, share = plan.holders - 1, _share_bytes(plan)
    others, digests = plan.cohort.survivors - 1, bytes(DIGEST_BYTES * (1 + plan.degree) * rows)
    signature = bytes(SIGNATURE_BYTES * plan.cohort.two_faced)
    boxes, pledges = bytes((share + OVERHEAD) * rows), bytes(32 * (1 + plan.degree))
    dealing = Dealing(_first(rows), digests, pledges, boxes, signature)
    gone = round(others * plan.degree * plan.cohort.dropped / max(1, plan.cohort.clients - 1))
    opened = Opened(_first(others), bytes(SEED_BYTES * others + EDGE_BYTES * gone))
    certificate = Certificate(_first(plan.quorum), bytes(SIGNATURE_BYTES * plan.quorum))
    inputs, held = bytes(SIGNATURE_BYTES * _silent(plan)), bytes(share + OVERHEAD)
    unmask = Unmask(b"", certificate if plan.votes else None, inputs, dict.fromkeys(range(others), held))
    up: list[tuple[str, Record]] = [(INPUT, Masked(b"", _first(0), signature, dealing))]
    down: list[tuple[str, Record]] = [(INPUT, Proceed(b"", _first(0), b""))]
    if plan.votes:
        up, down = [*up, (CONFIRM, Vote(signature))], [*down, (CONFIRM, Survivors(b""))]
    return [*up, (UNMASK, opened)], [*down, (UNMASK, unmask)]


def _share_bytes(plan: Plan) -> int:
    """Shares of one client's secrets that a holder keeps: two, or with reused keys one per edge besides the seed."""
    return SEED_BYTES + (EDGE_BYTES * plan.degree if plan.cohort.reuse else SEED_BYTES)


def _silent(plan: Plan) -> int:
    """Clients whose shares one holds and whose vote is not in the certificate, in the mean: their signed inputs come
    beside it.
    """
    n, voted = plan.cohort.clients, plan.quorum * plan.votes
    held = plan.cohort.survivors - 1 if plan.cohort.reuse else plan.degree
    return round(held * (n - voted) / n) if plan.cohort.two_faced else 0


def _roster_bytes(plan: Plan) -> int:
    """What each client is sent about the whole roster: bits of dealers and survivors; committed, index, commitment
    and part too.
    """
    n = plan.cohort.clients
    told = 1 + plan.votes if plan.cohort.reuse else 2 + plan.cohort.two_faced
    return (n + 7) // 8 * told + (4 + 2 * _PART) * n * _committed(plan)


def _committed(plan: Plan) -> bool:
    """Commit and reveal fixes a sparse graph against a malicious server, unless there is a beacon."""
    return plan.cohort.threat == "malicious" and not plan.complete and not plan.cohort.beacon


def _first(count: int) -> Indices:
    return np.arange(count, dtype=np.uint32)


def _size(stage: str, body: Record, *, up: bool) -> int:
    ends = (client(0), SERVER) if up else (SERVER, client(0))
    return message(_NO_CONTEXT, stage, *ends, body.encode()).size
