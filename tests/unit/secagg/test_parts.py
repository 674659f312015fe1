"""Key agreement, sealing, sharing, graphs: each alone."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import Misuse, ProtocolViolation
from protocols.key_agreement import PairKeys, generate, info, public_key
from protocols.randomness import SecureRandom, SystemRandom
from protocols.sealing import OVERHEAD, binding, seal, unseal
from secagg import field16, shamir
from secagg.graph import harary, permutation
from secagg.masks import expand

RANDOM = SystemRandom()
SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def pair(session: bytes = bytes(32)) -> tuple[PairKeys, PairKeys]:
    return PairKeys(generate(RANDOM), "a", session), PairKeys(generate(RANDOM), "b", session)


def split(secret: bytes, threshold: int, points: Sequence[int], random: SecureRandom) -> list[bytes]:
    """One share per point, as byte strings."""
    return [row.tobytes() for row in shamir.split_array(secret, threshold, np.asarray(points), random)]


def times(a: int, b: int) -> int:
    """The product in GF(2^16), bit by bit."""
    product = 0
    for bit in range(16):
        product ^= a * (b >> bit & 1)
        a = a << 1 ^ (0x1100B if a >> 15 else 0)
    return product


class TestKeyAgreement:
    def test_both_ends_agree_and_every_part_of_the_context_matters(self) -> None:
        private = generate(RANDOM), generate(RANDOM)
        keys = set()
        for session in (bytes(32), b"\1" * 32):
            for purpose in ("mask", "seal"):
                for names in (("a", "b"), ("a", "c"), ("ab", "")):
                    one, two = (PairKeys(k, n, session) for k, n in zip(private, names, strict=True))
                    key = one.agree(names[1], two.public(), purpose)
                    assert key == two.agree(names[0], one.public(), purpose)
                    keys.add(key)
        assert len(keys) == 12

    def test_the_raw_result_is_never_the_key(self) -> None:
        private, peer = generate(RANDOM), generate(RANDOM)
        raw = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public_key(peer))
        )
        key = PairKeys(private, "a", bytes(32)).agree("b", public_key(peer), "mask")
        assert key not in (raw, hashlib.sha256(raw).digest())

    @pytest.mark.parametrize("point", SMALL_ORDER)
    def test_all_zero_results_are_refused_and_named(self, point: bytes) -> None:
        with pytest.raises(ProtocolViolation, match="b") as caught:
            pair()[0].agree("b", point, "mask")
        assert caught.value.party == "b"

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_keys_of_another_length_are_refused(self, length: int) -> None:
        with pytest.raises(ProtocolViolation):
            pair()[0].agree("b", bytes(length), "mask")
        with pytest.raises(Misuse):
            PairKeys(bytes(length), "a", bytes(32))

    def test_a_reflected_key_is_refused(self) -> None:
        one, _ = pair()
        with pytest.raises(ProtocolViolation, match="own name"):
            one.agree("a", one.public(), "mask")

    def test_names_cannot_be_split_differently(self) -> None:
        assert info("p", "ab", "c") != info("p", "a", "bc") != info("pa", "b", "c")


class TestSealing:
    def test_opens_in_its_place_only(self) -> None:
        key = RANDOM.bytes(32)
        place = (b"\1" * 32, "share-keys", "a", "b")
        box = seal(key, b"secret", binding(*place), RANDOM)
        assert len(box) == 6 + OVERHEAD
        assert unseal(key, box, binding(*place), "a") == b"secret"
        elsewhere = [
            (b"\2" * 32, "share-keys", "a", "b"),
            (b"\1" * 32, "unmask", "a", "b"),
            (b"\1" * 32, "share-keys", "b", "a"),
            (b"\1" * 32, "share-keys", "a", "c"),
            (b"\1" * 32, "share-keysa", "", "b"),
        ]
        for other in elsewhere:
            with pytest.raises(ProtocolViolation) as caught:
                unseal(key, box, binding(*other), "a")
            assert caught.value.party == "a"

    def test_every_changed_bit_is_noticed(self) -> None:
        key, bound = RANDOM.bytes(32), binding(bytes(32), "s", "a", "b")
        box = seal(key, b"xy", bound, RANDOM)
        for bit in range(8 * len(box)):
            changed = bytearray(box)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ProtocolViolation):
                unseal(key, bytes(changed), bound, "a")

    @pytest.mark.parametrize("length", [0, 27])
    def test_short_boxes_are_refused(self, length: int) -> None:
        with pytest.raises(ProtocolViolation, match="at least"):
            unseal(RANDOM.bytes(32), bytes(length), b"", "a")

    def test_sealing_twice_gives_different_boxes(self) -> None:
        key = RANDOM.bytes(32)
        assert seal(key, b"x", b"", RANDOM) != seal(key, b"x", b"", RANDOM)


class TestShamir:
    @settings(max_examples=60, deadline=None)
    @given(
        secret=st.binary(max_size=70),
        points=st.lists(st.integers(1, 65535), min_size=1, max_size=40, unique=True),
        data=st.data(),
    )
    def test_any_threshold_of_shares_gives_any_secret_back(
        self, secret: bytes, points: list[int], data: st.DataObject
    ) -> None:
        threshold = data.draw(st.integers(1, len(points)))
        shares = dict(zip(points, split(secret, threshold, points, RANDOM), strict=True))
        chosen = data.draw(st.permutations(points))[:threshold]
        assert shamir.combine({p: shares[p] for p in chosen}, len(secret)) == secret

    def test_ten_thousand_shares(self) -> None:
        points = list(range(1, 10_001))
        shares = split(b"k" * 32, 2000, points, RANDOM)
        some = {p: shares[p - 1] for p in points[3::5]}
        assert len(some) == 2000
        assert shamir.combine(some, 32) == b"k" * 32

    def test_one_share_too_few_fits_every_secret(self) -> None:
        """With t - 1 shares fixed, each candidate secret is completed by exactly one further share:
        nothing is learned.
        """
        shares = split(b"\x12\x34", 3, [1, 2, 3], RANDOM)
        tables = np.array([[*shares[0], *shares[1], *third.to_bytes(2, "little")] for third in range(65536)])
        points = np.array([[1, 2, 3]] * 65536)
        seen = shamir.combine_arrays(points, tables.astype(np.uint8).reshape(65536, 3, 2), 2)
        assert len(set(seen)) == 65536

    def test_many_secrets_at_once(self) -> None:
        secrets = [RANDOM.bytes(33) for _ in range(7)]
        own = [[9 + k % 3, 2, 500 - k, 65535] for k in range(7)]  # each secret's shares at its own points
        for sets in (own, own[:1] * 7):
            points = np.array(sets)
            tables = [shamir.split_array(s, 4, at, RANDOM) for s, at in zip(secrets, points, strict=True)]
            assert shamir.combine_arrays(points, np.array(tables), 33) == secrets
        with pytest.raises(Misuse, match="distinct"):
            shamir.combine_arrays(np.array([[1, 2], [3, 3]]), np.zeros((2, 2, 34), np.uint8), 33)
        with pytest.raises(Misuse, match=r"shares of shape \(7, 4, 34\)"):
            shamir.combine_arrays(points, np.array(tables)[:, :3], 33)

    @pytest.mark.parametrize("points", [[0, 1], [1, 65536], [1, 1], [-1, 2]])
    def test_bad_points_are_misuse(self, points: list[int]) -> None:
        with pytest.raises(Misuse):
            split(b"ab", 2, points, RANDOM)

    @pytest.mark.parametrize("threshold", [0, 3])
    def test_bad_thresholds_are_misuse(self, threshold: int) -> None:
        with pytest.raises(Misuse):
            split(b"ab", threshold, [1, 2], RANDOM)

    def test_bad_shares_are_refused(self) -> None:
        with pytest.raises(ProtocolViolation, match="share of 2 bytes"):
            shamir.combine({1: b"ab", 2: b"abc"}, 2)
        with pytest.raises(ProtocolViolation, match="padding"):
            shamir.combine({1: b"ab"}, 1)
        with pytest.raises(Misuse):
            shamir.combine({}, 2)

    @settings(max_examples=200, deadline=None)
    @given(a=st.integers(0, 65535), b=st.integers(0, 65535))
    def test_products_follow_the_polynomial(self, a: int, b: int) -> None:
        product = times(a, b)
        powers, logarithms = field16.tables()
        assert (powers[logarithms[a] + logarithms[b]] if a and b else 0) == product
        one, other = np.array([a], np.uint16), np.array([[b]], np.uint16)
        assert field16.weighted(one, other).tolist() == [product]

    @pytest.mark.parametrize(
        ("holders", "threshold", "width"), [(1, 1, 1), (7, 4, 32), (40, 40, 3), (99, 56, 176), (300, 9, 4100)]
    )
    def test_shares_are_values_of_the_polynomials(self, holders: int, threshold: int, width: int) -> None:
        draw = np.random.default_rng(threshold)
        polynomials = draw.integers(0, 1 << 16, (threshold, width), dtype=np.uint16)
        points = draw.choice(np.arange(1, 1 << 16), holders, replace=False).astype(np.uint16)
        rows = field16.evaluate(polynomials, points)
        for point, row in list(zip(points.tolist(), rows.tolist(), strict=True))[-3:]:
            values = [0] * width
            for coefficients in polynomials[::-1].tolist():
                values = [times(value, point) ^ c for value, c in zip(values, coefficients, strict=True)]
            assert row == values
        [weights] = field16.lagrange(points[None, :threshold])
        assert (field16.weighted(weights, rows[:threshold]) == polynomials[0]).all()


class TestGraph:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.binary(min_size=32, max_size=32), size=st.integers(3, 60), half=st.integers(1, 12))
    def test_regular_symmetric_and_connected(self, seed: bytes, size: int, half: int) -> None:
        degree = min(2 * half, size - 1)
        around = [set(harary(seed, size, degree, i)) for i in range(size)]
        assert {len(s) for s in around} == {degree}
        assert all(i in around[j] for i in range(size) for j in around[i])
        reached, todo = {0}, [0]
        while todo:
            new = around[todo.pop()] - reached
            reached |= new
            todo.extend(new)
        assert len(reached) == size

    def test_seed_fixes_it_and_another_seed_changes_it(self) -> None:
        first, second = permutation(b"a" * 32, 500), permutation(b"b" * 32, 500)
        assert sorted(first.tolist()) == list(range(500))
        assert (first == permutation(b"a" * 32, 500)).all()
        assert (first != second).sum() > 400

    @pytest.mark.parametrize("size, degree", [(1, 1), (0, 2), (10, 3), (10, 0), (5, 3), (10, 7)])
    def test_impossible_graphs_are_misuse(self, size: int, degree: int) -> None:
        with pytest.raises(Misuse):
            harary(bytes(32), size, degree, 0)

    @pytest.mark.parametrize("size, degree", [(2, 1), (3, 2), (4, 3), (5, 2)])
    def test_the_least_of_either(self, size: int, degree: int) -> None:
        assert [len(harary(bytes(32), size, degree, i)) for i in range(size)] == [degree] * size
        for outside in (-1, size):
            with pytest.raises(Misuse, match=f"client from 0 to {size - 1}"):
                harary(bytes(32), size, degree, outside)


class TestStream:
    def test_purposes_and_seeds_are_separate_and_prefixes_agree(self) -> None:
        long = expand(b"s" * 32, b"one", 3 << 20)
        assert expand(b"s" * 32, b"one", 100) == long[:100]
        assert expand(b"s" * 32, b"two", 100) != long[:100] != expand(b"t" * 32, b"one", 100)

    @pytest.mark.parametrize("seed", [b"", b"x" * 15])
    def test_short_seeds_are_misuse(self, seed: bytes) -> None:
        with pytest.raises(Misuse, match="16 to 64"):
            expand(seed, b"", 1)
