"""Paillier: packed sums beside phe's plain use, one value per ciphertext, in the same run and under the same key."""

import statistics
from functools import partial
from itertools import cycle, islice
from typing import Any

import phe

from benchmarks.harness import ratio
from benchmarks.he.case import RANDOM, Case, Clocked, Vectors, is_exact, median, timed
from he.arrangements import KeyHolder, Threshold
from he.paillier import HolderKey, PaillierSum, make
from he.paillier.keys import DEFAULT_BITS, PublicKey, SecretKey, generate
from he.roles.messages import INPUT

OPENINGS = 3


def measure(case: Case) -> dict[str, Any]:
    """Return the figures of one case; seconds, bytes and ratios (above 1: ours is better)."""
    key_bits = case.key_bits or DEFAULT_BITS
    keys, keys_s = timed(partial(make, case.arrangement, key_bits))
    protocol = PaillierSum(case.arrangement, key_bits=key_bits, keys=keys)
    vectors = case.vectors()
    # The plain use needs a whole key; a dealt one is forgotten by then, and every key of one length costs the same.
    plain = Plain(keys.holder.secret if keys.holder else generate(key_bits), case, vectors)
    part = max(1, case.naive_sample // (case.clients + OPENINGS))
    plain.sample(part)
    clocked = Clocked(protocol, case, between=partial(plain.sample, part), openings=OPENINGS)
    total = clocked.run(vectors)
    figures: dict[str, Any] = {
        "exact": is_exact(total, vectors),
        "encrypt_s": median(clocked.client),
        "encrypt_first_s": clocked.client[0],  # makes the table of powers, once per key and process
        "add_s": clocked.receive[INPUT],
        **_opening(case, clocked),
        "bytes_per_value": clocked.upload / case.values,
        "keys_s": keys_s,
        **_prepared(protocol, case, vectors),
    }
    if keys.holder is not None:
        figures["foreign_key_encrypt_s"] = _foreign(keys.holder.secret, case, vectors)
    naive = plain.extrapolated()
    figures["naive"] = naive
    names = ("encrypt_s", "add_s", "decrypt_s", "bytes_per_value")
    figures["ratios"] = {name.removesuffix("_s"): ratio(naive[name], figures[name]) for name in names}
    return figures


def _opening(case: Case, clocked: Clocked) -> dict[str, float]:
    """Seconds until the sum is open: the holder's; or one decryptor's part, and the server's checks and combination."""
    if not isinstance(case.arrangement, Threshold):
        return {"decrypt_s": median(clocked.opener)}
    part, combined = median(clocked.opener), clocked.close["decrypt"]
    return {"partial_s": part, "combine_s": combined, "decrypt_s": part + combined}


def _prepared(protocol: PaillierSum, case: Case, vectors: Vectors) -> dict[str, float]:
    """One client's vector with randomisers prepared ahead."""
    names = [str(i) for i in range(case.clients)]
    session = protocol.session(names, case.values, case.bound, random=RANDOM)
    _, prepare_s = timed(partial(protocol.prepare, session))
    _, encrypt_s = timed(partial(protocol.client, session, 0, vectors[0], random=RANDOM))
    return {"prepare_s": prepare_s, "encrypt_prepared_s": encrypt_s}


def _foreign(secret: SecretKey, case: Case, vectors: Vectors) -> float:
    """Seconds of one client's vector under a key that was made elsewhere: exponents of |n| + 128 bits."""
    keys = HolderKey.of(SecretKey(PublicKey(secret.public.n), secret.p, secret.q))
    protocol = PaillierSum(KeyHolder(), key_bits=case.key_bits or DEFAULT_BITS, keys=keys)
    names = [str(i) for i in range(case.clients)]
    session = protocol.session(names, case.values, case.bound, random=RANDOM)
    for vector in vectors[:2]:  # the first makes the table of powers
        _, seconds = timed(partial(protocol.client, session, 0, vector, random=RANDOM))
    return seconds


class Plain:
    """phe as its documentation uses it: encrypt every value, add every ciphertext, decrypt every sum."""

    def __init__(self, secret: SecretKey, case: Case, vectors: Vectors) -> None:
        self._public = phe.PaillierPublicKey(int(secret.public.n))
        self._private = phe.PaillierPrivateKey(self._public, int(secret.p), int(secret.q))
        self._size = secret.public.ciphertext_bytes
        self._case, self._values = case, vectors[0][:1000].tolist()
        self._seconds: dict[str, list[float]] = {"encrypt": [], "add": [], "decrypt": []}

    def sample(self, count: int) -> None:
        """Time `count` values, each operation by itself."""
        for value in islice(cycle(self._values), count):
            sent, seconds = timed(partial(self._encrypted, value))
            self._seconds["encrypt"].append(seconds)
            both, seconds = timed(partial(self._added, sent))
            self._seconds["add"].append(seconds)
            opened, seconds = timed(partial(self._private.decrypt, both))
            self._seconds["decrypt"].append(seconds)
            assert opened == 2 * value

    def _encrypted(self, value: int) -> bytes:
        return int(self._public.encrypt(value).ciphertext()).to_bytes(self._size, "big")

    def _added(self, sent: bytes) -> phe.EncryptedNumber:
        number = phe.EncryptedNumber(self._public, int.from_bytes(sent, "big"))
        return number + number

    def extrapolated(self) -> dict[str, float]:
        """Seconds and bytes of the whole case: the sample's means times the number of operations."""
        each = {name: statistics.fmean(seconds) for name, seconds in self._seconds.items()}
        return {
            "sample": len(self._seconds["encrypt"]),
            "encrypt_one_s": each["encrypt"],
            "decrypt_one_s": each["decrypt"],
            "encrypt_s": each["encrypt"] * self._case.values,
            "add_s": each["add"] * self._case.values * (self._case.clients - 1),
            "decrypt_s": each["decrypt"] * self._case.values,
            "bytes_per_value": float(self._size),
        }
