"""Lists, bits, rings and streams keep their one form and their ranges."""

import numpy as np
import pytest

from protocols.errors import Misuse, WireError
from secagg.masks import expand
from secagg.messages import expect_ascending, expect_items, indices, items, pack_bits, unpack_bits
from secagg.ring import Ring


class TestLists:
    def test_ascending_means_strictly(self) -> None:
        expect_ascending("x", indices([]))
        expect_ascending("x", indices([3]))
        expect_ascending("x", indices([1, 2, 9]))
        for bad in (
            indices([1, 1]),
            indices([2, 1]),
            indices([1, 2, 2]),
            np.array([1, 2]),
            np.zeros((1, 1), np.uint32),
        ):
            with pytest.raises(Misuse, match="ascending"):
                expect_ascending("x", bad)

    def test_items_are_of_one_size(self) -> None:
        assert items(b"aabbcc", 2) == [b"aa", b"bb", b"cc"]
        assert items(b"", 2) == items(b"", 0) == []
        for data, count in ((b"abc", 2), (b"a", 0), (b"", 2)):
            with pytest.raises(Misuse, match="items of one size"):
                expect_items("x", data, count)
        expect_items("x", b"abcd", 2)
        expect_items("x", b"", 0)

    @pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17])
    def test_bits_come_back_and_have_one_form(self, size: int) -> None:
        for some in ([], [0], [size - 1], list(range(size)), list(range(0, size, 3))):
            data = pack_bits(some, size)
            assert len(data) == -(-size // 8)
            assert [i for i in range(size) if data[i // 8] >> i % 8 & 1] == some
            assert unpack_bits(data, size) == set(some)
            for bad in (data + b"\0", data[:-1]):
                with pytest.raises(WireError, match="bytes for"):
                    unpack_bits(bad, size)
        if size % 8:
            with pytest.raises(WireError, match="beyond"):
                unpack_bits(pack_bits([size], size + 1), size)


class TestWords:
    @pytest.mark.parametrize("bits", [1, 2, 31, 32, 33, 63, 64])
    def test_rings_have_1_to_64_bits(self, bits: int) -> None:
        ring, top = Ring(bits), 1 << bits
        values = [0, 1, -1, top // 2 - 1, -(top // 2), top - 1]
        words = ring.embed(np.array([v % (1 << 64) for v in values], np.uint64))
        assert ring.residues(words).tolist() == [v % top for v in values]
        assert ring.centred(words).tolist() == [(v + top // 2) % top - top // 2 for v in values]
        assert [ring.packed_bytes(n) for n in (0, 1, 7, 8)] == [-(-n * bits // 8) for n in (0, 1, 7, 8)]

    @pytest.mark.parametrize("bits", [0, 65])
    def test_no_other_ring(self, bits: int) -> None:
        with pytest.raises(Misuse, match="1 to 64"):
            Ring(bits)

    def test_other_arrays_are_misuse(self) -> None:
        ring = Ring(8)
        for vector in (np.zeros(2), np.zeros((1, 2), np.int64)):
            with pytest.raises(Misuse, match="vector of integers"):
                ring.embed(vector)
        for words in (np.zeros(2, np.uint64), np.zeros((1, 2), np.uint32), np.zeros(4, np.uint32)[::2]):
            with pytest.raises(Misuse, match="contiguous"):
                ring.check(words)
        ring.check(np.zeros(2, ring.dtype))

    def test_streams_take_seeds_of_16_to_64_bytes_and_any_count(self) -> None:
        assert expand(b"s" * 16, b"", 0) == b""
        assert len({expand(b"s" * n, b"", 16) for n in (16, 17, 63, 64)}) == 4
        for size in (15, 65):
            with pytest.raises(Misuse, match="16 to 64"):
                expand(b"s" * size, b"", 1)
        with pytest.raises(Misuse, match="at least 0"):
            expand(b"s" * 16, b"", -1)
