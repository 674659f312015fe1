"""Threshold decryption: any t of n open, fewer do not, and a wrong partial decryption names its holder."""

from dataclasses import replace
from fractions import Fraction

import gmpy2
import pytest

from he.arrangements import Threshold
from he.paillier.cipher import encrypt, parse
from he.paillier.proofs import WrongPartial, check, multi_power, prove
from he.paillier.randomisers import Randomisers
from he.paillier.threshold import (
    KeyShare,
    Mismatch,
    ThresholdKey,
    combine,
    deal,
    lagrange_at_zero,
    partial_decrypt,
)
from protocols.codec import BigInt
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.paillier_fixed import ring, secret_key

RANDOM, CONTEXT = SystemRandom(), b"c" * 32
VALUES = [4, -4, 1 << 2000, -(1 << 1999)]


def ciphertexts(key: ThresholdKey, values: list[int]) -> list[object]:
    return parse(encrypt(values, Randomisers(key.public), RANDOM), len(values), key.public)


def dealt(t: int, n: int) -> tuple[ThresholdKey, tuple[KeyShare, ...]]:
    return deal(Threshold(t, n), secret=secret_key())


@pytest.mark.parametrize(
    "t, n, who", [(1, 1, [1]), (1, 3, [2]), (2, 3, [1, 3]), (3, 5, [5, 2, 4]), (4, 4, [1, 2, 3, 4])]
)
def test_any_t_holders_open(t: int, n: int, who: list[int]) -> None:
    key, shares = dealt(t, n)
    sent = ciphertexts(key, VALUES)
    assert combine(key, sent, {i: partial_decrypt(shares[i - 1], sent) for i in who}) == VALUES


def test_a_hundred_holders() -> None:
    key, shares = dealt(51, 100)
    sent = ciphertexts(key, [-77])
    who = list(range(100, 49, -1))
    parts = {i: partial_decrypt(shares[i - 1], sent) for i in who}
    assert combine(key, sent, parts) == [-77]
    proof = prove(shares[99], sent, parts[100], CONTEXT, RANDOM)
    check(key, 100, sent, parts[100], CONTEXT, proof)


def test_fewer_than_t_holders_do_not_open() -> None:
    key, shares = dealt(3, 5)
    sent = ciphertexts(key, [9])
    parts = {i: partial_decrypt(shares[i - 1], sent) for i in (1, 2)}
    with pytest.raises(Misuse, match="exactly 3"):
        combine(key, sent, parts)
    with pytest.raises(Mismatch):
        combine(replace(key, t=2), sent, parts)  # interpolating through two points of a parabola


def test_interpolation_at_zero_recovers_the_constant_term() -> None:
    holders, delta = [1, 4, 5], 120
    values = {i: 7 + 3 * i + 11 * i * i for i in holders}
    assert sum(lagrange_at_zero(i, holders, delta) * v for i, v in values.items()) == delta * 7


def test_wrong_partial_decryptions_never_give_a_wrong_plaintext() -> None:
    key, shares = dealt(2, 3)
    sent = ciphertexts(key, [1, 2])
    parts = {i: partial_decrypt(shares[i - 1], sent) for i in (1, 3)}
    parts[3] = parts[3][::-1]
    with pytest.raises(Mismatch, match="one of them is wrong"):
        combine(key, sent, parts)


def test_ciphertexts_with_any_quadratic_character_open() -> None:
    key, shares = dealt(2, 3)
    n = gmpy2.mpz(key.public.n)
    units = [gmpy2.mpz(u) for u in range(2, 40) if gmpy2.is_prime(u)]
    assert {gmpy2.jacobi(u, n) for u in units} == {1, -1}
    sent = [(1 + 5 * n) * gmpy2.powmod(u, n, n * n) % (n * n) for u in units]
    parts = {i: partial_decrypt(shares[i - 1], sent) for i in (1, 2)}
    assert combine(key, sent, parts) == [5] * len(units)


# -- proofs --


def proven() -> tuple[ThresholdKey, KeyShare, list[object], list[object]]:
    share = ring(Threshold(2, 3)).shares[1]
    sent = ciphertexts(share.key, VALUES)
    return share.key, share, sent, partial_decrypt(share, sent)


def test_right_partial_decryptions_are_accepted() -> None:
    key, share, sent, parts = proven()
    check(key, 2, sent, parts, CONTEXT, prove(share, sent, parts, CONTEXT, RANDOM))
    assert len(parts) == len(sent)


def test_any_wrong_partial_decryption_names_its_holder() -> None:
    key, share, sent, parts = proven()
    n = gmpy2.mpz(key.public.n)
    proof = prove(share, sent, parts, CONTEXT, RANDOM)
    for position in range(len(parts)):
        wrong = [*parts]
        wrong[position] = wrong[position] * 2 % n
        with pytest.raises(WrongPartial) as caught:
            check(key, 2, sent, wrong, CONTEXT, proof)
        assert caught.value.party == "decryptor 1"
        forged = prove(share, sent, wrong, CONTEXT, RANDOM)
        with pytest.raises(WrongPartial):
            check(key, 2, sent, wrong, CONTEXT, forged)


def test_a_proof_is_good_for_one_session_holder_and_key_only() -> None:
    key, share, sent, parts = proven()
    proof = prove(share, sent, parts, CONTEXT, RANDOM)
    other = ring(Threshold(2, 3)).shares[0]
    with pytest.raises(WrongPartial):
        check(key, 2, sent, parts, b"d" * 32, proof)
    with pytest.raises(WrongPartial):
        check(key, 1, sent, parts, CONTEXT, proof)
    with pytest.raises(WrongPartial):
        check(key, 1, sent, partial_decrypt(other, sent), CONTEXT, proof)
    with pytest.raises(WrongPartial):
        check(key, 2, [*sent[1:], sent[0]], parts, CONTEXT, proof)


def test_another_share_cannot_prove_its_partial_decryptions_for_this_holder() -> None:
    key, _, sent, _ = proven()
    other = ring(Threshold(2, 3)).shares[0]
    parts = partial_decrypt(other, sent)
    disguised = KeyShare(key, 2, other.value, ring(Threshold(2, 3)).shares[1].vote)
    with pytest.raises(WrongPartial):
        check(key, 2, sent, parts, CONTEXT, prove(disguised, sent, parts, CONTEXT, RANDOM))


def test_proofs_out_of_range_are_refused() -> None:
    key, share, sent, parts = proven()
    proof = prove(share, sent, parts, CONTEXT, RANDOM)
    for bad in (
        replace(proof, answer=BigInt(-1)),
        replace(proof, answer=BigInt(1 << 9000)),
        replace(proof, challenge=b""),
        replace(proof, challenge=bytes(32)),
    ):
        with pytest.raises(WrongPartial, match="range"):
            check(key, 2, sent, parts, CONTEXT, bad)


@pytest.mark.parametrize("count", [1, 5, 60])
def test_products_of_powers(count: int) -> None:
    modulus = (1 << 521) - 1
    bases = [gmpy2.mpz(3 + 2 * i) for i in range(count)]
    exponents = [RANDOM.bytes(16) for _ in bases]
    expected = gmpy2.mpz(1)
    for base, exponent in zip(bases, exponents, strict=True):
        expected = expected * pow(base, int.from_bytes(exponent, "big"), modulus) % modulus
    assert multi_power(bases, exponents, modulus) == expected


# -- what parts must not tell --


@pytest.mark.parametrize("t, n", [(1, 1), (2, 3), (3, 5)])
def test_parts_of_a_chosen_ciphertext_give_no_root_that_factors_the_modulus(t: int, n: int) -> None:
    """Whoever makes a ciphertext knows its u and chooses its Jacobi symbol. A square root of u^2 among the squares
    modulo n, which are of order p'q', would differ from u and -u: its difference to u would share a factor with n.
    """
    key, shares = dealt(t, n)
    modulus = gmpy2.mpz(key.public.n)
    u = next(u for u in range(2, 100) if gmpy2.jacobi(u, modulus) == -1)
    sent = [(1 + 5 * modulus) * gmpy2.powmod(u, modulus, modulus**2) % modulus**2]
    parts = {s.index: partial_decrypt(s, sent)[0] for s in shares[:t]}
    whole = gmpy2.mpz(1)
    for i, part in parts.items():
        whole = whole * gmpy2.powmod(part, lagrange_at_zero(i, list(parts), key.delta), modulus) % modulus
    assert combine(key, sent, {i: [p] for i, p in parts.items()}) == [5]
    # `whole` is u to a public even power (4 delta^2), which everybody who knows u can compute, and no root of that.
    assert whole == gmpy2.powmod(u, 4 * key.delta**2, modulus)
    for divisor in range(1, 50):
        assert gmpy2.gcd(whole - gmpy2.powmod(u, divisor, modulus), modulus) in (1, modulus)
        assert gmpy2.gcd(gmpy2.powmod(whole, divisor, modulus) - u, modulus) in (1, modulus)


def test_parts_can_be_simulated_from_the_result_and_fewer_than_t_shares() -> None:
    """Shoup's simulation (EUROCRYPT 2000, section 2): the plaintext's ciphertext c, u^2 and t - 1 shares give every
    other holder's part, without a root.
    """
    key, shares = dealt(3, 5)
    n = gmpy2.mpz(key.public.n)
    (c,) = sent = ciphertexts(key, [-3])
    d = gmpy2.invert(n, (secret_key().p >> 1) * (secret_key().q >> 1))
    x = c % n * (c % n) % n
    result = gmpy2.powmod(x, d, n)  # u^2, which opening tells everybody
    corrupt = [2, 5]
    for holder in (1, 3, 4):
        points = [0, *corrupt]
        weights = {j: key.delta * _lagrange(holder, j, points) for j in points}
        assert all(w.denominator == 1 for w in weights.values())
        part = gmpy2.powmod(result, 2 * int(weights[0]), n)
        for j in corrupt:
            part = part * gmpy2.powmod(x, 2 * int(weights[j]) * shares[j - 1].value, n) % n
        assert [part] == partial_decrypt(shares[holder - 1], sent)


def _lagrange(at: int, point: int, points: list[int]) -> Fraction:
    value = Fraction(1)
    for other in points:
        if other != point:
            value *= Fraction(at - other, point - other)
    return value
