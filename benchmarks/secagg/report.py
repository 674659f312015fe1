"""From rounds to one result: medians over repeats, ratios against a peer of the same run, sizes against the packed
vector.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.secagg.masks import mask_speed
from benchmarks.secagg.work import Round, Work, run
from protocols.quantise import Quantiser
from secagg.messages import DIGEST_BYTES, SIGNATURE_BYTES


def measured(
    work: Work, *, peer: str | None = None, repeats: int = 3, peer_repeats: int = 1
) -> dict[str, Any]:
    """The figures of `work`; with a peer, its rounds are run between ours.

    A small round of each first: imports and compiled loops are not what is measured.
    """
    small = Work(9, 20_000, 4, 3, 0.0, work.bits, work.threat, clock=work.clock)
    run(small)
    ours, theirs = [run(work)], []
    rss = harness.peak_rss_mb()  # before the peer is imported
    if peer == "flower":
        from benchmarks.secagg.flower import run_flower

        run_flower(small)
        theirs = [run_flower(work) for _ in range(peer_repeats)]
    ours += [run(work) for _ in range(repeats - 1)]
    figures = _figures(work, ours) | {"peak_rss_mb": rss}
    if theirs:
        figures["peer"] = peer
        figures |= _against(work, figures, theirs)
    return figures


def _figures(work: Work, rounds: list[Round]) -> dict[str, Any]:
    facts = rounds[-1].facts
    packed, degree = int(str(facts["packed_vector_bytes"])), int(str(facts["degree"]))
    up = _median(rounds, "bytes_up_per_client")
    voted = facts["threat"] != "semi-honest"
    return {
        **facts,
        "client_mean_s": _median(rounds, "client_mean_s"),
        "server_s": _median(rounds, "server_s"),
        "wall_s": _median(rounds, "wall_s"),
        "stages": _median_stages(rounds),
        "survivors": rounds[-1].survivors,
        "bytes_up_per_client": up,
        "bytes_down_per_client": _median(rounds, "bytes_down_per_client"),
        "bytes_up_over_packed": up / packed,
        "bytes_up_limit": 1.02 * packed + 200 * degree,
        "bytes_up_per_neighbour_beyond_vector": (up - packed) / degree,
        "of_which_commitment_bytes": 2 * DIGEST_BYTES * degree + 32,
        "of_which_signature_bytes": (2 * SIGNATURE_BYTES + 32) * voted,
        "max_abs_error": max(r.max_abs_error for r in rounds),
        **mask_speed(work.dim, int(str(facts["ring_bits"])), work.read_clock),
    }


def _against(work: Work, ours: dict[str, Any], rounds: list[Round]) -> dict[str, Any]:
    """The peer's figures and the ratios. The peer's client quantises floats; ours is charged the same work here."""
    quantiser = Quantiser.for_range(work.bits, 1.0)
    update = np.random.default_rng(work.seed).uniform(-1.0, 1.0, work.dim)
    encode = {"quantise": lambda: quantiser.encode(update)}
    quantise_s = harness.measure_together(encode, clock=work.read_clock)["quantise"].median_s
    client = _median(rounds, "client_mean_s")
    server = _median(rounds, "server_s")
    return {
        "quantise_s": quantise_s,
        "peer_client_mean_s": client,
        "peer_server_s": server,
        "peer_stages": _median_stages(rounds),
        "peer_bytes_up_per_client": _median(rounds, "bytes_up_per_client"),
        "peer_bytes_down_per_client": _median(rounds, "bytes_down_per_client"),
        "peer_max_abs_error": max(r.max_abs_error for r in rounds),
        "client_ratio": client / (ours["client_mean_s"] + quantise_s),
        "server_ratio": server / ours["server_s"],
        "bytes_up_ratio": _median(rounds, "bytes_up_per_client") / ours["bytes_up_per_client"],
    }


def arguments(work: Work) -> dict[str, Any]:
    """The work as a result's arguments."""
    return {name: value for name, value in asdict(work).items() if name != "seed"}


def _median(rounds: list[Round], name: str) -> float:
    return float(statistics.median(getattr(r, name) for r in rounds))


def _median_stages(rounds: list[Round]) -> dict[str, dict[str, float]]:
    return {
        stage: {role: statistics.median(r.stages[stage].get(role, 0.0) for r in rounds) for role in roles}
        for stage, roles in rounds[0].stages.items()
    }
