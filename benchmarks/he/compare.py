"""Masks and homomorphic sums side by side, on the same vectors in one run, each with whom it trusts.

A session of each protocol is driven by `protocols.simulate`; its stages are timed per role. Nobody leaves.
"""

from typing import Any

from benchmarks.he.case import Case, is_exact
from he import CKKSSum, KeyHolder, PaillierSum, Threshold
from protocols import PlainSum, SecureSum, simulate
from secagg import SecAgg, SecAggPlus

TRUST = {
    "none": "the server reads everything",
    "secagg": "a threshold of the clients is honest",
    "secagg+": "a threshold of each client's neighbours is honest",
    "paillier-threshold": "fewer than t decryptors collude",
    "paillier-keyholder": "holder and server do not collude",
    "ckks-keyholder": "holder and server do not collude",
}


def protocols(key_bits: int) -> dict[str, SecureSum]:
    """The sums that are compared, by name."""
    return {
        "none": PlainSum(),
        "secagg": SecAgg(),
        "secagg+": SecAggPlus(),
        "paillier-threshold": PaillierSum(Threshold(2, 3), key_bits=key_bits),
        "paillier-keyholder": PaillierSum(KeyHolder(), key_bits=key_bits),
        "ckks-keyholder": CKKSSum(KeyHolder()),
    }


def measure(case: Case) -> dict[str, Any]:
    """Return a row per protocol: seconds per client, of server and helpers, and what a client sends."""
    vectors = case.vectors()
    rows = [
        _row(name, protocol, case, vectors) for name, protocol in protocols(case.key_bits or 2048).items()
    ]
    return {"rows": rows, "exact": all(row["exact"] for row in rows)}


def _row(name: str, protocol: SecureSum, case: Case, vectors: list[Any]) -> dict[str, Any]:
    """One session after a small one that makes keys and compiles what is compiled at first use."""
    simulate(protocol, [v[:10] for v in vectors], bound=case.bound)
    outcome = simulate(protocol, vectors, bound=case.bound)
    helpers = {role for by_role in outcome.seconds.values() for role in by_role} - {"client", "server"}
    return {
        "protocol": name,
        "trust": TRUST[name],
        "exact": is_exact(outcome.total, vectors),
        "client_s": outcome.seconds_of("client") / case.clients,
        "server_s": outcome.seconds_of("server"),
        "helpers_s": sum(outcome.seconds_of(role) for role in helpers),
        "trips": len(protocol.stages(outcome.session)),
        "upload_bytes_per_value": outcome.bytes_of("client") / case.clients / case.values,
    }
