"""What is no key, arrangement or length is refused when a sum is made, by a sentence; foreign keys are taken."""

import phe
import pytest

from he import CKKSSum, PaillierSum, SharedByClients, Threshold
from he.arrangements import KeyHolder
from he.paillier import Keyring, from_phe
from protocols import simulate
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.paillier_fixed import ring, secret_key


def foreign() -> phe.PaillierPrivateKey:
    own = secret_key("blum-2048")
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(int(own.public.n)), int(own.p), int(own.q))


def test_a_secret_key_of_phe_is_taken_as_it_is() -> None:
    for arrangement in (KeyHolder(), SharedByClients()):
        assert simulate(PaillierSum(arrangement, keys=from_phe(foreign())), [[1], [-5]]).total.tolist() == [
            -4
        ]


@pytest.mark.parametrize(
    "keys", [b"key", 5, foreign(), from_phe(foreign().public_key), secret_key().public, ("a",)]
)
def test_what_is_no_key_is_refused_at_once(keys: object) -> None:
    with pytest.raises(Misuse, match=r"expected a key of he\.paillier"):
        PaillierSum(KeyHolder(), keys=keys)  # type: ignore[arg-type]  # what a caller might pass


def test_a_share_counts_once() -> None:
    share = ring(Threshold(2, 3)).shares[0]
    for keys in ((share, share), ()):
        with pytest.raises(Misuse, match="different shares"):
            PaillierSum(Threshold(2, 3), keys=keys)
    assert not Keyring.of(share).opens


@pytest.mark.parametrize("given", [3, {"t": 2}, object()])
def test_what_is_no_arrangement_is_refused(given: object) -> None:
    for make in (PaillierSum, CKKSSum):
        with pytest.raises(Misuse):
            make(given)  # type: ignore[arg-type]  # what a caller might pass


@pytest.mark.parametrize(("t", "n"), [(2.0, 3), (True, 3), (2, 3.0), (0, 3), (4, 3), (1, 101), ("2", "3")])
def test_thresholds_are_whole_numbers_in_range(t: object, n: object) -> None:
    with pytest.raises(Misuse, match="holders"):
        Threshold(t, n)  # type: ignore[arg-type]  # what a caller might pass


@pytest.mark.parametrize("bits", [1024, 2047, 2049, 0, -2048, "3072", 3072.0, None])
def test_short_and_odd_key_lengths_are_refused(bits: object) -> None:
    with pytest.raises(Misuse, match="key length"):
        PaillierSum(KeyHolder(), key_bits=bits)  # type: ignore[arg-type]  # what a caller might pass


def test_a_shared_ckks_key_is_one() -> None:
    with pytest.raises(Misuse, match="SharedKey"):
        CKKSSum(SharedByClients(), key=b"x" * 32)  # type: ignore[arg-type]  # what a caller might pass


def test_empty_vectors_are_refused_by_their_dimension() -> None:
    for protocol in (PaillierSum(KeyHolder(), keys=ring(KeyHolder())), CKKSSum()):
        with pytest.raises(Misuse, match="dimension"):
            protocol.session(["a", "b"], 0, 1, random=SystemRandom())
