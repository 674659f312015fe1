"""Broken homomorphic sums: each a few lines over the good one."""

from typing import Any

import gmpy2

from he import CKKSSum, PaillierSum
from he.ckks import opener as ckks_opener
from he.ckks.digits import gather
from he.ckks.holder import Secrets
from he.ckks.messages import Opened, Published, Settings
from he.keys import KeyHolder, Threshold
from he.paillier.cipher import centre
from he.paillier.randomisers import Randomiser
from tests.defects.planting import Defect, put, together
from tests.paillier_fixed import fixed


def paillier() -> PaillierSum:
    return fixed(KeyHolder())


def threshold() -> PaillierSum:
    return fixed(Threshold())


def no_randomiser(self: Any, count: int, random: Any) -> list[Any]:
    return [Randomiser(gmpy2.mpz(1), bytes(1))] * count


def no_tags(plaintexts: Any, seed: bytes, n: int) -> list[int]:
    return [m % n for m in plaintexts]


def nothing_removed(opened: Any, seeds: Any, n: int) -> list[int]:
    return [centre(value % n, n) for value in opened]


def check_values_ignored(
    total: Any, clients: int, expected: Any, check_key: bytes, secret: bytes, session: Any
) -> Opened:
    parameters = Settings.decode(session.parameters).ckks
    coefficients = ckks_opener.open_sum(total, parameters, clients, secret)
    return Opened(ckks_opener.pack_total(gather(coefficients, parameters, int(session.modulus)), session))


def with_the_secret(self: Secrets, session: Any, identity: Any) -> Published:
    published = PUBLISHED(self, session, identity)
    return Published(published.context + self.private, published.key, published.signature)


PUBLISHED = Secrets.published
DEFECTS = (
    Defect(
        "deterministic encryption",
        "randomised",
        put("he.paillier.randomisers.Randomisers.take", no_randomiser),
        threshold,
    ),
    Defect(
        "single Paillier ciphertext opened",
        "no-decryption-oracle",
        together(
            put("he.paillier.tags.add_tags", no_tags),
            put("he.paillier.holders.opening.remove_tags", nothing_removed),
        ),
        paillier,
    ),
    Defect(
        "single CKKS ciphertext opened",
        "no-decryption-oracle",
        put("he.ckks.holder.open_checked", check_values_ignored),
        CKKSSum,
    ),
    Defect(
        "secret key in a context",
        "secrets-stay-with-their-owner",
        put("he.ckks.holder.Secrets.published", with_the_secret),
        CKKSSum,
    ),
)
