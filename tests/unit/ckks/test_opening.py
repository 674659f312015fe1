"""Exact at the proven extremes, refused just beyond them; ciphertexts that are no sum of ours are refused."""

from dataclasses import replace

import numpy as np
import pytest

from he.ckks.ciphertexts import Adder, Sum, Upload, encrypt, encrypt_seeded, open_sum
from he.ckks.coefficients import gather, spread
from he.ckks.keys import Context
from he.ckks.parameters import CKKSParameters, choose
from he.ckks.seal import ring
from he.residues import pack, unpack
from protocols.errors import PeerError, ProtocolViolation, WireError
from protocols.randomness import SystemRandom

RANDOM = SystemRandom()


def crafted(p: CKKSParameters, coefficients: np.ndarray, noise: np.ndarray, secret: bytes) -> Sum:
    """A sum whose phase is exactly scale x coefficients + noise: its second half is 1, so the first lacks the key."""
    second = np.zeros((p.ciphertexts, p.degree), np.uint64)
    second[:, 0] = 1
    key = ring(p.degree, p.modulus).phases(secret, np.zeros_like(second), second).ravel()[: p.coefficients]
    words = (coefficients * p.scale + noise - key.astype(np.int64)) % p.modulus
    bits = p.modulus.bit_length()
    return Sum((bits, 1), pack(words.astype(np.uint64), bits), pack(second, 1), bytes(8 * p.checks))


def undropped(clients: int, dimension: int, bound: int) -> CKKSParameters:
    """Parameters of the symmetric kind with every bit kept, so that a crafted phase is the phase."""
    return replace(choose(clients, dimension, bound, True), dropped=(0, 0))


@pytest.mark.parametrize("clients", [1, 7])
def test_noise_at_the_bound_rounds_exactly_and_beyond_is_refused(clients: int) -> None:
    p = undropped(clients, 6, 1000)
    secret = Context.make(p).secret
    values = np.zeros(p.coefficients, np.int64)
    values[-6:] = np.array([1000, -1000, 1, 0, -1, 999]) * clients
    edge = clients * p.noise
    for sign in (1, -1):
        noise = np.full(p.coefficients, sign * edge)
        assert open_sum(crafted(p, values, noise, secret), p, clients, secret).tolist() == values.tolist()
        noise[3] += sign
        with pytest.raises(ProtocolViolation):
            open_sum(crafted(p, values, noise, secret), p, clients, secret)


def test_a_digit_beyond_the_cohorts_bound_is_refused() -> None:
    p = undropped(5, 3, 1000)
    secret = Context.make(p).secret
    for sign in (1, -1):
        values = np.full(p.coefficients, sign * 5 * p.digit_bound, np.int64)
        none = np.zeros_like(values)
        assert open_sum(crafted(p, values, none, secret), p, 5, secret).tolist() == values.tolist()
        values[0] += sign
        with pytest.raises(ProtocolViolation):
            open_sum(crafted(p, values, none, secret), p, 5, secret)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("clients", "bound"), [(1, 1), (2, (1 << 62) - 1), (3, 1 << 30), (40, 1 << 20), (5, 0)]
)
def test_sums_of_extreme_vectors_are_exact(symmetric: bool, clients: int, bound: int) -> None:
    p = choose(clients, 5, bound, symmetric)
    context = Context.make(p)
    for value in (bound, -bound):
        adder = Adder.empty(p)
        for _ in range(clients):
            x = spread(np.full(5, value, np.int64), p)
            adder.add(
                encrypt_seeded(x, p, context.secret) if symmetric else encrypt(x, p, context.public_key())
            )
        opened = gather(open_sum(adder.finish(), p, clients, context.secret), p, 0)
        assert opened.tolist() == [value * clients] * 5


def test_a_cohort_too_large_for_the_worst_case_is_exact_too() -> None:
    """The statistical bound: fresh ciphertexts of every client, all at the bound."""
    clients, bound = 100, (1 << 30) - 1
    p = choose(clients, 2000, bound, False)
    assert not p.worst_case
    context, adder = Context.make(p), Adder.empty(p)
    for _ in range(clients):
        adder.add(encrypt(spread(np.full(2000, bound, np.int64), p), p, context.public_key()))
    assert gather(_opened(adder, p, clients, context), p, 0).tolist() == [clients * bound] * 2000


def _opened(adder: Adder, p: CKKSParameters, clients: int, context: Context) -> np.ndarray:
    return open_sum(adder.finish(), p, clients, context.secret)


def test_a_second_half_of_zeros_is_refused_before_seal_sees_it() -> None:
    p = choose(3, 10, 100, True)
    zeros = [pack(np.zeros(n, np.uint64), 1) for n in (p.coefficients, p.ciphertexts * p.degree)]
    with pytest.raises(ProtocolViolation, match="zero"):
        open_sum(Sum((1, 1), *zeros, bytes(8 * p.checks)), p, 1, Context.make(p).secret)


def test_a_sum_under_another_key_is_refused() -> None:
    p = choose(3, 10, 100, False)
    mine, foreign = Context.make(p), Context.make(p)
    adder = Adder.empty(p)
    for key in (mine, foreign):
        adder.add(encrypt(spread(np.ones(10, np.int64), p), p, key.public_key()))
    with pytest.raises(ProtocolViolation, match="not a sum"):
        open_sum(adder.finish(), p, 2, mine.secret)


def test_one_changed_bit_that_matters_is_refused() -> None:
    p = choose(3, 10, 100, False)
    context = Context.make(p)
    upload = encrypt(spread(np.ones(10, np.int64), p), p, context.public_key())
    words = unpack(upload.second, p.ciphertexts * p.degree, p.widths[1])
    words[0] ^= np.uint64(1 << (p.widths[1] - 2))
    adder = Adder.empty(p)
    adder.add(replace(upload, second=pack(words, p.widths[1])))
    with pytest.raises(ProtocolViolation):
        open_sum(adder.finish(), p, 1, context.secret)


@pytest.mark.parametrize("symmetric", [False, True])
def test_truncated_overlong_and_out_of_range_uploads_change_nothing(symmetric: bool) -> None:
    p = choose(3, 10, 100, symmetric)
    context = Context.make(p)
    x = spread(np.ones(10, np.int64), p)
    good = encrypt_seeded(x, p, context.secret) if symmetric else encrypt(x, p, context.public_key())
    adder = Adder.empty(p)
    adder.add(good)
    before = adder.encode()
    bad = [
        replace(good, first=good.first[:-1]),
        replace(good, first=good.first + b"\0"),
        replace(good, second=good.second[:-1]),
        replace(good, second=good.second + b"\0"),
        replace(good, checks=good.checks[:-1]),
        replace(good, checks=good.checks + bytes(8)),
        Upload(b"", b"", b""),
    ]
    for upload in bad:
        with pytest.raises(WireError):
            adder.add(upload)
        assert adder.encode() == before
    assert gather(_opened(adder, p, 1, context), p, 0).tolist() == [1] * 10


def test_words_that_are_no_residues_are_refused() -> None:
    p = replace(choose(3, 10, 100, False), dropped=(0, 0))
    adder, bits = Adder.empty(p), p.modulus.bit_length()
    fine = [np.full(n, p.modulus - 1, np.uint64) for n in (p.coefficients, p.ciphertexts * p.degree)]
    adder.add(Upload(*(pack(words, bits) for words in fine), bytes(8 * p.checks)))
    for half in (0, 1):
        words = [half_words.copy() for half_words in fine]
        words[half][-1] += np.uint64(1)
        with pytest.raises(WireError, match="below"):
            adder.add(Upload(*(pack(w, bits) for w in words), bytes(8 * p.checks)))


def test_sums_of_another_shape_are_refused() -> None:
    p = choose(3, 10, 100, False)
    context, adder = Context.make(p), Adder.empty(p)
    adder.add(encrypt(spread(np.ones(10, np.int64), p), p, context.public_key()))
    good = adder.finish()
    wide = pack(np.zeros(p.coefficients, np.uint64), 64)
    for bad in (
        replace(good, first=good.first[:-1]),
        replace(good, second=good.second + b"\0"),
        replace(good, width=(0, good.width[1])),
        replace(good, width=(-5, good.width[1])),
        replace(good, width=(64, good.width[1]), first=wide),
        replace(good, first=b"\xff" * len(good.first)),
    ):
        with pytest.raises(PeerError):
            open_sum(bad, p, 1, context.secret)
