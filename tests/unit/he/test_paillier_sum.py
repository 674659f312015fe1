"""PaillierSum as a whole: the bounds it reaches and refuses, keys from elsewhere, options, statements."""

import numpy as np
import phe
import pytest

from he import KeyHolder, PaillierSum, SharedByClients, Threshold
from he.arrangements import Arrangement
from he.paillier import HolderKey, from_phe
from he.paillier.keys import SecretKey
from he.paillier.parameters import scheme
from he.roles.messages import INPUT
from protocols import Policy, simulate
from protocols.errors import CapacityError, Misuse
from protocols.randomness import SystemRandom
from tests.deterministic import DeterministicRandom
from tests.paillier_fixed import fixed, keyholder, ring

ALL = pytest.mark.parametrize("arrangement", [KeyHolder(), SharedByClients(), Threshold(2, 3)], ids=str)
RANDOM = SystemRandom()


@ALL
def test_the_largest_sum_is_exact_and_one_more_is_refused(arrangement: Arrangement) -> None:
    protocol, bound = fixed(arrangement), ((1 << 63) - 1) // 7
    for sign in (1, -1):
        inputs = [np.array([sign * bound, -sign * bound, 0])] * 7
        assert simulate(protocol, inputs, bound=bound).total.tolist() == [
            7 * sign * bound,
            -7 * sign * bound,
            0,
        ]
    with pytest.raises(CapacityError):
        protocol.session([str(i) for i in range(7)], 3, bound + 1, random=RANDOM)


@ALL
@pytest.mark.parametrize("modulus", [2, 3, 1 << 24, (1 << 24) - 3, (1 << 62) - 57, 1 << 63, 1 << 64])
def test_every_ring_up_to_64_bits(arrangement: Arrangement, modulus: int) -> None:
    generator = np.random.default_rng(modulus % 1000)
    inputs = [generator.integers(-(1 << 63), 1 << 63, 5) for _ in range(3)]
    inputs[0][:2] = [-(1 << 63), (1 << 63) - 1]
    one_bit = Policy(min_ring_bits=1)
    outcome = simulate(fixed(arrangement), inputs, bound=0, modulus=modulus, policy=one_bit)
    half = modulus // 2
    exact = [(sum(int(v[j]) for v in inputs) + half) % modulus - half for j in range(5)]
    assert outcome.total.tolist() == exact


def test_wraps_stay_hidden_from_a_server_that_combines() -> None:
    """Under Threshold each client adds random multiples of M, so that the sum over Z differs from run to run."""
    told = scheme(fixed(Threshold(2, 3)).session(["a", "b"], 100, 0, random=RANDOM, modulus=1 << 16))
    assert told.wrap_bits >= 64
    assert told.width >= 16 + told.wrap_bits
    held = keyholder().session(["a", "b"], 100, 0, random=RANDOM, modulus=1 << 16)
    assert scheme(held).wrap_bits == 0


def test_a_key_of_phe_serves_a_whole_session() -> None:
    _, private = phe.generate_paillier_keypair(n_length=2048)
    secret = from_phe(private)
    assert isinstance(secret, SecretKey)
    for arrangement in (KeyHolder(), SharedByClients()):
        protocol = PaillierSum(arrangement, key_bits=2048, keys=HolderKey.of(secret))
        outcome = simulate(protocol, [[5, -6], [7, 8], [-1, -1]], drop={INPUT: {2}})
        assert outcome.total.tolist() == [12, 2]
        assert any("made elsewhere" in text for text in outcome.protection.assumptions)


def test_short_exponents_are_named_in_the_statement_and_refused_by_others() -> None:
    keys = ring(KeyHolder())
    short = PaillierSum(KeyHolder(), key_bits=2048, keys=keys, exponent_bits=512)
    session = short.session(["a", "b"], 1, 5, random=RANDOM)
    assert any("512 bits" in text for text in short.protection(session).assumptions)
    with pytest.raises(Misuse, match="same ones"):
        keyholder().client(session, 0, np.array([1]), random=RANDOM)


def test_prepared_randomisers_serve_a_session() -> None:
    protocol = PaillierSum(KeyHolder(), key_bits=2048, keys=ring(KeyHolder()))
    session = protocol.session(["a", "b"], 200, 1 << 23, random=RANDOM)
    protocol.prepare(session, vectors=2)
    ready = protocol.randomisers.prepared
    assert ready == 2 * scheme(session).packing.plaintexts(200)
    outcome = simulate(protocol, [np.full(200, 3), np.full(200, -4)], session=session)
    assert outcome.total.tolist() == [-1] * 200
    assert protocol.randomisers.prepared == 0


def test_equal_seeds_give_equal_sums_and_the_session_says_simulated() -> None:
    inputs = [np.array([1, 2]), np.array([3, 4])]
    totals = [simulate(keyholder(), inputs, rng=DeterministicRandom(3)).total.tolist() for _ in range(2)]
    assert totals == [[4, 6]] * 2


def test_statements_name_the_arrangement_and_who_reads_what() -> None:
    def told(arrangement: Arrangement) -> str:
        protocol = fixed(arrangement)
        return repr(protocol.protection(protocol.session(["a", "b", "c"], 1, 1, random=RANDOM)))

    assert "one client together with the server reads every" in told(SharedByClients())
    assert "simulated parties" in told(KeyHolder())
    assert "key dealer" in told(Threshold(2, 3))
    assert "no decryptor may work with the server" in told(Threshold(2, 3))
    assert "at most 1 decryptor may work with the server" in told(Threshold(3, 4))
    assert "simulated parties" in repr(
        PaillierSum("shared", key_bits=2048).protection(
            PaillierSum("shared", key_bits=2048).session(["a", "b"], 1, 1, random=RANDOM)
        )
    )


def test_a_public_ring_serves_server_and_clients_but_opens_nothing() -> None:
    holder = ring(KeyHolder()).holder
    assert holder is not None
    public = PaillierSum(KeyHolder(), key_bits=2048, keys=holder.published)
    session = public.session(["a", "b"], 1, 5, random=RANDOM)
    assert public.client(session, 0, np.array([1]), random=RANDOM)
    assert "simulated parties" not in repr(public.protection(session))
    with pytest.raises(Misuse, match="secret key"):
        public.helper(session, public.helpers(session)[0], random=RANDOM)
    shares = ring(Threshold(2, 3)).shares
    one = PaillierSum(Threshold(2, 3), key_bits=2048, keys=shares[1])
    session = one.session(["a", "b"], 1, 5, random=RANDOM)
    assert one.helper(session, one.helpers(session)[1], random=RANDOM)
    with pytest.raises(Misuse, match="share 1"):
        one.helper(session, one.helpers(session)[0], random=RANDOM)
    shared = PaillierSum(SharedByClients(), key_bits=2048, keys=holder.published)
    session = shared.session(["a", "b"], 1, 5, random=RANDOM)
    with pytest.raises(Misuse, match="shared key"):
        shared.client(session, 0, np.array([1]), random=RANDOM)
