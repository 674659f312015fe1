"""The chosen parameters: proven inequalities, the 128-bit table, fewest bytes, refusal beyond."""

import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from he.ckks.parameters import (
    CHECK_BITS,
    MAX_CLIENTS,
    TABLE_128,
    CKKSParameters,
    choose,
    digits,
    is_prime,
    ntt_prime,
)
from protocols.errors import CapacityError

CLIENTS = st.integers(1, MAX_CLIENTS)
BOUNDS = st.one_of(st.integers(0, 1 << 63), st.integers(0, 63).map(lambda k: (1 << k) - 1))


def test_the_largest_cohort_of_the_widest_values_is_carried() -> None:
    p = choose(MAX_CLIENTS, 1 << 20, 1 << 43, False)
    assert p.limbs > 1
    assert not p.worst_case


def worst_noise(p: CKKSParameters, clients: int) -> int:
    """The bound of docs/ckks.md, written out again."""
    fresh = 21 if p.symmetric else 21 * (1 + 2 * p.degree)
    halves = [(1 << k) // 2 for k in p.dropped]
    return clients * (fresh + halves[0] + p.degree * halves[1])


@settings(max_examples=80, deadline=None)
@given(clients=CLIENTS, dimension=st.integers(1, 1 << 24), bound=BOUNDS, symmetric=st.booleans())
def test_parameters_are_exact_secure_and_fit_in_words(
    clients: int, dimension: int, bound: int, symmetric: bool
) -> None:
    p = choose(clients, dimension, bound, symmetric)
    assert p.modulus.bit_length() <= min(TABLE_128[p.degree], 60)
    assert (2 * clients * p.digit_bound + 1) * p.scale <= p.modulus, "the sum could wrap"
    assert 2 * p.sum_noise < p.scale, "rounding could fail"
    if p.worst_case:
        assert worst_noise(p, clients) <= p.sum_noise
        assert clients * p.noise <= p.sum_noise
    else:
        assert p.sum_noise < worst_noise(p, clients)
    for width, dropped in zip(p.widths, p.dropped, strict=True):
        assert not dropped or width + clients.bit_length() <= 63, "the server's words could overflow"
    assert p.checks * (64 - (4 * clients * p.digit_bound).bit_length()) >= CHECK_BITS


@settings(max_examples=200, deadline=None)
@given(value=st.integers(-(1 << 63), (1 << 63) - 1), slack=st.integers(0, 1 << 62), limbs=st.integers(1, 8))
def test_digits_stay_within_their_bound(value: int, slack: int, limbs: int) -> None:
    bound = min(1 << 63, abs(value) + slack)
    width, digit = digits(bound, limbs)
    rest, half = value, 1 << (width - 1)
    for _ in range(limbs - 1):
        low = (rest + half) % (1 << width) - half
        assert abs(low) <= digit
        rest = (rest - low) >> width
    assert abs(rest) <= digit


@pytest.mark.parametrize("dimension", [1000, 100_000])
@pytest.mark.parametrize("symmetric", [False, True])
def test_no_other_parameters_with_the_worst_case_bound_need_fewer_bits(
    symmetric: bool, dimension: int
) -> None:
    """Against a plain search over every degree, prime size, pair of dropped bits and one or two limbs."""
    clients, bound = 10, (1 << 27) - 1
    chosen = choose(clients, dimension, bound, symmetric)
    least = min(
        plain_search(clients, limbs * dimension, beta, symmetric)
        for limbs, beta in ((1, bound), (2, 1 << 13), (3, 1 << 9))
    )
    assert chosen.worst_case
    assert chosen.upload_bits == least


def plain_search(clients: int, values: int, beta: int, symmetric: bool) -> int:
    least = 1 << 62
    for degree, most in TABLE_128.items():
        count = -(-values // degree)
        for bits in range(degree.bit_length() + 1, min(most, 60) + 1):
            q = ntt_prime(degree, bits)
            for k1 in range(1 if symmetric else bits):
                for k0 in range(bits):
                    fresh = 21 if symmetric else 21 * (1 + 2 * degree)
                    noise = clients * (fresh + (1 << k0) // 2 + degree * ((1 << k1) // 2))
                    if not q or (2 * noise + 1) * (2 * clients * beta + 1) > q:
                        break
                    second = 512 * count if symmetric else (bits - k1) * count * degree
                    least = min(least, (bits - k0) * values + second)
    return least


def test_a_million_values_of_24_bits_meet_the_sizes_asked_for() -> None:
    public, seeded = (choose(10, 1_000_000, (1 << 24) - 1, symmetric) for symmetric in (False, True))
    assert public.worst_case
    assert seeded.worst_case
    assert public.upload_bits / 8e6 <= 10
    assert seeded.upload_bits / 8e6 <= 4.1


def test_beyond_the_worst_case_comes_the_statistical_bound() -> None:
    least, most = 1, MAX_CLIENTS
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if choose(middle, 1000, 1 << 23, False).worst_case else (least, middle)
    assert choose(least, 1000, 1 << 23, False).worst_case
    assert not choose(least + 1, 1000, 1 << 23, False).worst_case


def test_more_clients_than_proven_are_refused() -> None:
    assert choose(MAX_CLIENTS, 1, 1, False).limbs == 1
    with pytest.raises(CapacityError, match="clients"):
        choose(MAX_CLIENTS + 1, 1, 1, False)


def test_a_bound_beyond_eight_limbs_is_refused() -> None:
    with pytest.raises(CapacityError, match="128 bits"):
        choose(MAX_CLIENTS, 1, 1 << 400, False)


def test_the_table_is_the_one_that_seal_enforces() -> None:
    for degree, bits in TABLE_128.items():
        assert seal.CoeffModulus.MaxBitCount(degree, seal.SEC_LEVEL_TYPE.TC128) == bits


def test_primes_are_the_largest_that_seal_finds_too() -> None:
    for degree in TABLE_128:
        for bits in (27, 40, 54, 60):
            q = ntt_prime(degree, bits)
            assert q == seal.CoeffModulus.Create(degree, [bits])[0].value()
            assert q % (2 * degree) == 1
    assert [n for n in range(60) if is_prime(n)] == [
        2,
        3,
        5,
        7,
        11,
        13,
        17,
        19,
        23,
        29,
        31,
        37,
        41,
        43,
        47,
        53,
        59,
    ]
    assert not is_prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5 and 7
    assert ntt_prime(8192, 14) == 0
