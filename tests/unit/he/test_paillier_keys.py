"""Keys: the conditions they meet, what is refused, and where their secrets never turn up."""

import hashlib
import logging
from pathlib import Path

import gmpy2
import numpy as np
import pytest

from fl.made_with import of_stack
from he import KeyHolder, PaillierSum, SharedByClients, Threshold
from he.arrangements import arrangement
from he.paillier import keyring
from he.paillier.keyring import MAGIC, HolderKey, HolderPublic, Keyring, load, save
from he.paillier.keys import PublicKey, SecretKey, blum_prime, generate, is_safe_prime, safe_prime
from he.paillier.threshold import KeyShare, ThresholdKey, deal
from protocols import simulate
from protocols.codec import BigInt
from protocols.errors import Misuse, StoreError
from protocols.randomness import SystemRandom
from protocols.stack import Numbers, Stack
from tests.paillier_fixed import ring, secret_key


@pytest.mark.parametrize("bits", [64, 65, 128, 257])
def test_safe_primes_are_safe_and_of_full_length(bits: int) -> None:
    p = safe_prime(bits, SystemRandom())
    assert p.bit_length() == bits
    assert gmpy2.is_prime(p)
    assert gmpy2.is_prime((p - 1) // 2)
    assert p % 4 == 3


def test_blum_primes_are_3_modulo_4_with_both_upper_bits() -> None:
    for _ in range(5):
        p = blum_prime(96, SystemRandom())
        assert gmpy2.is_prime(p)
        assert p % 4 == 3
        assert p >> 94 == 3


def test_a_safe_prime_is_told_from_a_prime() -> None:
    assert is_safe_prime(23)
    assert not is_safe_prime(29)


@pytest.mark.parametrize("safe", [False, True])
def test_a_new_key_meets_the_conditions_of_damgard_jurik_and_nielsen(safe: bool) -> None:
    key = generate(2048, safe=safe)
    p, q, n, h = int(key.p), int(key.q), int(key.public.n), int(key.public.h or 0)
    assert n == p * q
    assert n.bit_length() == 2048
    assert p % 4 == q % 4 == 3
    assert gmpy2.gcd(p - 1, q - 1) == 2
    assert gmpy2.gcd(n, (p - 1) * (q - 1)) == 1
    assert gmpy2.jacobi(h, n) == 1  # -x^2 with p = q = 3 modulo 4
    assert gmpy2.legendre(h, p) == -1
    assert not safe or (is_safe_prime(p) and is_safe_prime(q))


@pytest.mark.parametrize("bits", [1024, 2046, 2047, 2049, 20000])
def test_key_lengths_that_are_too_short_or_odd_are_refused(bits: int) -> None:
    with pytest.raises(Misuse, match="2048"):
        generate(bits)
    if bits < 2048 or bits % 2:
        with pytest.raises(Misuse, match="2048"):
            PaillierSum(KeyHolder(), key_bits=bits)


def test_3072_bits_unless_chosen_otherwise() -> None:
    assert PaillierSum().key_bits == 3072
    assert PaillierSum().arrangement == Threshold(3, 4)


def test_numbers_that_are_no_key_are_refused() -> None:
    key = secret_key()
    with pytest.raises(Misuse, match="odd"):
        PublicKey(BigInt(key.public.n + 1))
    with pytest.raises(Misuse, match="base"):
        PublicKey(key.public.n, key.p)
    with pytest.raises(Misuse, match="factors"):
        SecretKey(key.public, BigInt(key.p + 2), key.q)
    with pytest.raises(Misuse, match="safe primes"):
        deal(Threshold(2, 3), secret=secret_key("blum-2048"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("keyholder", KeyHolder()),
        ("shared", SharedByClients()),
        ("threshold", Threshold()),
        ("threshold-3-of-5", Threshold(3, 5)),
        ("threshold-3-of-4", Threshold()),
        ("threshold-2-of-3-corrupt-1", Threshold(2, 3, corrupt=1)),
        ("threshold-3-of-4-corrupt-0", Threshold(3, 4, corrupt=0)),
    ],
)
def test_arrangements_by_name(text: str, expected: object) -> None:
    assert arrangement(text) == expected
    assert arrangement(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "holder",
        "threshold-3",
        "threshold-x-of-5",
        "threshold-6-of-5",
        "threshold-1-of-101",
        "threshold-2-of-3-corrupt-2",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(Misuse):
        arrangement(text)


# -- files --


def all_keys() -> list[object]:
    holder, shares = ring(KeyHolder()).holder, ring(Threshold(2, 3)).shares
    assert holder is not None
    return [holder.published, holder, shares[0].key, shares[1]]


def test_key_files_come_back_and_secret_ones_are_for_their_owner_only(tmp_path: Path) -> None:
    for number, key in enumerate(all_keys()):
        path = tmp_path / f"{number}.key"
        save(key, path)  # type: ignore[arg-type]
        assert load(path) == key
        secret = isinstance(key, HolderKey | KeyShare)
        assert path.stat().st_mode & 0o777 == (0o600 if secret else 0o644)


def test_a_secret_file_is_never_overwritten_nor_read_when_open_to_others(tmp_path: Path) -> None:
    holder = ring(KeyHolder()).holder
    assert holder is not None
    path = tmp_path / "holder.key"
    save(holder, path)
    with pytest.raises(StoreError, match="never overwritten"):
        save(holder, path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="open to others"):
        load(path)


def test_damaged_and_missing_files_give_typed_errors(tmp_path: Path) -> None:
    holder = ring(KeyHolder()).holder
    assert holder is not None
    path = tmp_path / "public.key"
    save(holder.published, path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"\0", whole[:30] + b"\xff" + whole[31:]):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            load(path)
    path.write_bytes(b"something else")
    with pytest.raises(StoreError, match="not a Paillier key file"):
        load(path)
    with pytest.raises(StoreError, match="cannot be read"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("tag", [3, 4, 5, 6])
def test_threshold_keys_of_an_earlier_form_are_refused_by_name(tmp_path: Path, tag: int) -> None:
    """Their shares were of another exponent, or came without keys for votes."""
    share = ring(Threshold(2, 3)).shares[0]
    body = tag.to_bytes(2, "big") + (share if tag in (4, 6) else share.key).encode()
    path = tmp_path / "old.key"
    path.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="no key that this version reads"):
        load(path)


def test_a_key_of_another_arrangement_is_refused() -> None:
    with pytest.raises(Misuse, match="another arrangement"):
        PaillierSum(Threshold(2, 3), keys=ring(KeyHolder()))
    with pytest.raises(Misuse, match="another arrangement"):
        PaillierSum(KeyHolder(), keys=ring(Threshold(2, 3)))
    with pytest.raises(Misuse, match="dealt as"):
        PaillierSum(Threshold(3, 3), keys=ring(Threshold(2, 3)))
    with pytest.raises(Misuse, match="one key"):
        Keyring.of(*ring(Threshold(2, 3)).shares, *ring(Threshold(3, 4)).shares)


def test_secrets_turn_up_in_no_repr_statement_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    holder, shares = ring(KeyHolder()).holder, ring(Threshold(2, 3)).shares
    assert holder is not None
    secrets = {int(x) for key in (holder.secret, secret_key()) for x in (key.p, key.q)} | {
        int(s.value) for s in shares
    }
    told = ""
    for arrangement_ in (KeyHolder(), SharedByClients(), Threshold(2, 3)):
        protocol = PaillierSum(arrangement_, key_bits=2048, keys=ring(arrangement_))
        random = SystemRandom()
        session = protocol.session(["a", "b", "c"], 1, 5, random=random)
        outcome = simulate(protocol, [[1], [2], [3]], bound=5)
        helpers = [protocol.helper(session, party, random=random) for party in protocol.helpers(session)]
        first = protocol.client(session, 0, np.array([4]), random=random)
        told += repr(
            (
                protocol,
                protocol.keys,
                protocol.randomisers,
                helpers,
                first,
                outcome,
                protocol.protection(session),
            )
        )
    told += repr((holder, shares, keyring.make)) + caplog.text
    assert not any(str(s) in told or f"{s:x}" in told for s in secrets)
    assert str(holder.sealing) not in told


def test_the_public_part_of_a_ring_holds_no_secret() -> None:
    holder = ring(KeyHolder()).holder
    assert holder is not None
    public = Keyring.of(holder.published)
    assert isinstance(public.public, HolderPublic)
    assert not public.opens
    assert ring(KeyHolder()).opens
    key = ring(Threshold(2, 3)).public
    assert isinstance(key, ThresholdKey)
    assert not Keyring.of(key).opens
    assert not Keyring.of(ring(Threshold(2, 3)).shares[0]).opens


def test_a_run_is_held_to_the_bits_of_the_key_that_it_is_given() -> None:
    """A resumed run with a longer key promised that key for all of its rounds."""
    given = PaillierSum(KeyHolder(), key_bits=3072, keys=ring(KeyHolder()))
    assert given.key_bits == ring(KeyHolder()).encryption.bits == 2048
    made = PaillierSum(KeyHolder(), key_bits=3072)
    assert of_stack(Stack([given], Numbers())) != of_stack(Stack([made], Numbers()))


def test_a_simulation_shares_keys_and_nothing_else_of_the_sum_changes() -> None:
    """It was built anew without `min_survivors`: parties demanded 6 of 10 where 9 were asked for."""
    least = [9, 9]
    asked = PaillierSum(SharedByClients(), keys=secret_key("blum-2048"), min_survivors=9)
    for one in (asked, asked.shared_keys()):
        session = one.session([str(i) for i in range(10)], 2, 9, random=SystemRandom(), simulated=True)
        least.remove(one.demands(session).survivors)
    assert not least


def test_shared_keys_of_a_simulation_are_still_said_to_be_simulated() -> None:
    asked = PaillierSum(SharedByClients(), key_bits=2048)
    limits = []
    for one in (asked, asked.shared_keys(), asked.shared_keys().shared_keys()):
        session = one.session(["a", "b", "c"], 2, 9, random=SystemRandom(), simulated=True)
        limits.append(one.protection(session).limits)
    assert limits[0] == limits[1] == limits[2]
    assert any("simulated parties" in limit for limit in limits[0])


def test_a_given_key_has_the_bits_that_it_has() -> None:
    """The product of two primes of 1024 bits may have 2047, and a key that others made 2049."""
    odd = gmpy2.next_prime(gmpy2.mpz(3) << 1023), gmpy2.next_prime((gmpy2.mpz(3) << 1022) + 12345)
    key = SecretKey(PublicKey(BigInt(int(odd[0] * odd[1]))), *(BigInt(int(p)) for p in odd))
    made = PaillierSum(SharedByClients(), keys=key)
    assert made.key_bits == key.public.bits == 2049
    assert made.shared_keys().key_bits == 2049
