"""Ciphertexts: right with plain phe and its keys, randomised always, and refused with a typed error when damaged."""

import gmpy2
import phe
import pytest

from he.paillier.cipher import CrtDecryption, add, encrypt, parse, serialise
from he.paillier.keyring import from_phe
from he.paillier.keys import PublicKey, SecretKey
from he.paillier.randomisers import FixedBase, Randomisers
from protocols.codec import BigInt
from protocols.errors import Misuse, WireError
from protocols.randomness import SystemRandom
from tests.deterministic import DeterministicRandom
from tests.paillier_fixed import secret_key

RANDOM = SystemRandom()
VALUES = [0, 1, -1, 12345, -(1 << 40), (1 << 2000) + 7]


def phe_keys(secret: SecretKey) -> tuple[phe.PaillierPublicKey, phe.PaillierPrivateKey]:
    public = phe.PaillierPublicKey(int(secret.public.n))
    return public, phe.PaillierPrivateKey(public, int(secret.p), int(secret.q))


@pytest.mark.parametrize("crt", [False, True])
@pytest.mark.parametrize("count", [1, 7, 260])
def test_what_was_encrypted_is_decrypted(crt: bool, count: int) -> None:
    secret = secret_key()
    source = Randomisers(secret.public, secret=secret if crt else None)
    values = [VALUES[i % len(VALUES)] + i for i in range(count)]
    sent = encrypt(values, source, RANDOM)
    assert len(sent) == count * secret.public.ciphertext_bytes
    assert CrtDecryption(secret).decrypt(parse(sent, count, secret.public)) == values


def test_sums_of_ciphertexts_are_ciphertexts_of_sums() -> None:
    secret = secret_key()
    source = Randomisers(secret.public)
    left, right = (parse(encrypt(VALUES, source, RANDOM), len(VALUES), secret.public) for _ in range(2))
    assert CrtDecryption(secret).decrypt(add(left, right, secret.public)) == [2 * v for v in VALUES]


@pytest.mark.parametrize("value", [0, 5, -5, (1 << 23) - 1, -(1 << 60)])
def test_plain_phe_decrypts_a_ciphertext_with_one_slot(value: int) -> None:
    secret = secret_key()
    (ciphertext,) = parse(encrypt([value], Randomisers(secret.public), RANDOM), 1, secret.public)
    public, private = phe_keys(secret)
    assert private.decrypt(phe.EncryptedNumber(public, int(ciphertext))) == value


def test_keys_and_ciphertexts_of_phe_work_here() -> None:
    public, private = phe.generate_paillier_keypair(n_length=2048)
    secret, alone = from_phe(private), from_phe(public)
    assert isinstance(secret, SecretKey)
    assert isinstance(alone, PublicKey)
    source = Randomisers(alone)
    assert source.exponent_bits == alone.bits + 128
    assert "elsewhere" in source.assumption
    ours = parse(encrypt([-41, 42], source, RANDOM), 2, alone)
    assert [private.decrypt(phe.EncryptedNumber(public, int(c))) for c in ours] == [-41, 42]
    theirs = [gmpy2.mpz(public.encrypt(v).ciphertext()) for v in (7, -8)]
    assert CrtDecryption(secret).decrypt(theirs) == [7, -8]
    with pytest.raises(Misuse, match="full-length"):
        Randomisers(alone, exponent_bits=512)


def test_short_keys_of_phe_are_refused() -> None:
    public, _ = phe.generate_paillier_keypair(n_length=1024)
    with pytest.raises(Misuse, match="2048"):
        from_phe(public)
    with pytest.raises(Misuse, match="key of phe"):
        from_phe(object())


# -- randomisers --


def test_equal_plaintexts_never_give_equal_ciphertexts() -> None:
    public = secret_key().public
    source = Randomisers(public)
    source.prepare(20)
    size = public.ciphertext_bytes
    sent = b"".join(encrypt([3] * 20, source, RANDOM) for _ in range(3))
    assert source.prepared == 0
    assert len({sent[i : i + size] for i in range(0, len(sent), size)}) == 60


def test_randomisers_are_nth_residues_of_full_length_exponents() -> None:
    secret = secret_key()
    source = Randomisers(secret.public)
    assert source.exponent_bits == 1024
    for r in source.take(3, RANDOM):
        assert CrtDecryption(secret).decrypt([r.value]) == [0]
        # 2^-40 for each that it is shorter
        assert 984 <= int.from_bytes(r.exponent, "little").bit_length() <= 1024


def test_prepared_randomisers_are_given_out_once_and_in_production_only() -> None:
    source = Randomisers(secret_key().public)
    source.prepare(4)
    drawn = source.take(1, DeterministicRandom(1))
    assert source.prepared == 4
    taken = source.take(3, RANDOM) + source.take(3, RANDOM)
    assert source.prepared == 0
    assert len(set(taken + drawn)) == 7


def test_both_tables_and_both_ways_compute_the_same_randomisers() -> None:
    secret = secret_key()
    plain, crt = Randomisers(secret.public), Randomisers(secret.public, secret=secret)
    few = plain.take(3, DeterministicRandom(9))
    assert crt.take(3, DeterministicRandom(9)) == few
    plain.take(250, RANDOM)  # makes the wide table
    assert plain.take(3, DeterministicRandom(9)) == few


@pytest.mark.parametrize("wide", [False, True])
def test_powers_of_a_fixed_base_are_powers(wide: bool) -> None:
    modulus = (1 << 127) - 1
    table = FixedBase(3, modulus, 9, wide)
    for exponent in (0, 1, 255, 256, (1 << 72) - 1, 0x123456789ABCDEF012):
        assert table.power(exponent.to_bytes(9, "little")) == pow(3, exponent, modulus)


def test_short_exponents_only_by_choice_with_their_assumption_named() -> None:
    public = secret_key().public
    assert "short-exponent" not in Randomisers(public).assumption
    assert "exponents of 256 bits" in Randomisers(public, exponent_bits=256).assumption
    for bits in (128, 255, 1032):
        with pytest.raises(Misuse, match="exponents"):
            Randomisers(public, exponent_bits=bits)


# -- damaged bytes --


def test_damaged_ciphertexts_are_refused() -> None:
    public = secret_key().public
    sent = encrypt([1, 2], Randomisers(public), RANDOM)
    n, size = int(public.n), public.ciphertext_bytes
    bad = {
        "truncated": sent[:-1],
        "over-long": sent + b"\0",
        "a ciphertext too many": sent + sent[:size],
        "not below n^2": b"\xff" * size + sent[size:],
        "zero": bytes(size) + sent[size:],
        "a multiple of n": n.to_bytes(size, "big") + sent[size:],
    }
    for data in bad.values():
        with pytest.raises(WireError):
            parse(data, 2, public)
    assert serialise(parse(sent, 2, public), public) == sent


def test_ciphertexts_of_a_longer_foreign_key_are_refused() -> None:
    public = secret_key().public
    longer = PublicKey(BigInt((1 << 3071) + 1))
    sent = encrypt([1, 2], Randomisers(public), RANDOM)
    with pytest.raises(WireError, match="this key"):
        parse(sent, 2, longer)
