"""CKKS: exact packed sums beside TenSEAL's plain use, its tutorial's parameters (N = 8192, [60, 40, 40,
60]), in the same run.
"""

from functools import partial
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

from benchmarks.harness import ratio
from benchmarks.he.case import Case, Clocked, Vectors, is_exact, median, timed
from he.arrangements import SharedByClients
from he.ckks import CKKSSum, SharedKey
from he.ckks.parameters import TABLE_128
from he.roles.messages import INPUT
from protocols.errors import Misuse

SAMPLE = 1 << 20
"""Values of the plain use that are measured; more are extrapolated, fewer are never: it fills whole
ciphertexts.
"""
WARM_UP = SLOTS = 4096


def measure(case: Case) -> dict[str, Any]:
    """Return the figures of one case; seconds, bytes and ratios (above 1: ours is better). Raises Misuse."""
    if case.key_bits is not None:
        raise Misuse("--key-bits is Paillier's: CKKS chooses its parameters from values, clients and bits")
    shared = isinstance(case.arrangement, SharedByClients)
    protocol = CKKSSum(case.arrangement, key=SharedKey.generate() if shared else None)
    vectors, plain = case.vectors(), Plain(case)
    _warm_up(protocol, case)
    plain.sample(vectors)
    clocked = Clocked(protocol, case)
    total = clocked.run(vectors)
    plain.sample(vectors)
    plain.sample(vectors)
    figures: dict[str, Any] = {
        "exact": is_exact(total, vectors),
        "encrypt_s": median(clocked.client),
        "add_s": clocked.receive[INPUT] + clocked.close[INPUT],
        "decrypt_s": clocked.opener[-1],
        "bytes_per_value": clocked.upload / case.values,
        "parameters": _parameters(protocol, case),
    }
    naive = plain.extrapolated()
    figures["naive"] = naive
    names = ("encrypt_s", "add_s", "decrypt_s", "bytes_per_value")
    figures["ratios"] = {name.removesuffix("_s"): ratio(naive[name], figures[name]) for name in names}
    return figures


def _warm_up(protocol: CKKSSum, case: Case) -> None:
    """One small session, so that neither library pays for its start."""
    small = Case(WARM_UP, 2, case.bits, None, case.arrangement, case.naive_sample, case.seed)
    Clocked(protocol, small).run(small.vectors())
    Plain(small).sample(small.vectors())


def _parameters(protocol: CKKSSum, case: Case) -> dict[str, Any]:
    p = protocol.scheme_parameters(case.clients, case.values, case.bound, 0)
    return {
        "degree": p.degree,
        "modulus_bits": p.modulus.bit_length(),
        "allowed_bits": TABLE_128[p.degree],
        "words_bits": list(p.widths),
        "limbs": p.limbs,
        "worst_case": p.worst_case,
    }


class Plain:
    """TenSEAL as its tutorial uses it: real slots, global scale 2^40, a vector of 4096 values per
    ciphertext, serialised.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60]
        )
        self._context.global_scale = 2**40
        self._size = min(case.values, SAMPLE)
        self._bytes = 0
        self._seconds: dict[str, list[float]] = {"encrypt": [], "add": [], "decrypt": []}

    def sample(self, vectors: Vectors) -> None:
        """Time one client's encryption, the server's work for one client, one decryption."""
        values = vectors[0][: self._size].astype(float)
        sent, encrypt_s = timed(partial(self._encrypted, values))
        first = [tenseal.ckks_vector_from(self._context, part) for part in sent]
        total, add_s = timed(partial(self._added, first, sent))
        opened, decrypt_s = timed(lambda: [value for part in total for value in part.decrypt()])
        assert len(opened) == self._size
        self._bytes = sum(map(len, sent))
        for name, seconds in (("encrypt", encrypt_s), ("add", add_s), ("decrypt", decrypt_s)):
            self._seconds[name].append(seconds)

    def _encrypted(self, values: NDArray[np.float64]) -> list[bytes]:
        parts = (values[at : at + SLOTS] for at in range(0, len(values), SLOTS))
        return [tenseal.ckks_vector(self._context, part).serialize() for part in parts]

    def _added(self, first: list[Any], sent: list[bytes]) -> list[Any]:
        pairs = zip(first, sent, strict=True)
        return [one + tenseal.ckks_vector_from(self._context, part) for one, part in pairs]

    def extrapolated(self) -> dict[str, float]:
        """Seconds and bytes of the whole case: the medians, times what the sample left out."""
        whole = self._case.values / self._size
        each = {name: median(seconds) * whole for name, seconds in self._seconds.items()}
        return {
            "sample": self._size,
            "encrypt_s": each["encrypt"],
            "add_s": each["add"] * self._case.clients,
            "decrypt_s": each["decrypt"],
            "bytes_per_value": self._bytes / self._size,
        }
