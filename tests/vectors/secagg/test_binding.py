"""What a sealed box is bound to, and what a pair's keys are derived for, byte for byte."""

import pytest

from protocols.errors import Misuse, ProtocolViolation
from protocols.key_agreement import PairKeys, info
from protocols.sealing import binding
from secagg.shamir import combine_arrays


def test_the_associated_data_of_a_box_is_these_bytes() -> None:
    bound = binding(b"\x11" * 32, "share-keys", "ann", "bob")
    assert bound.hex() == (
        "736563616767207365616c20763100" + "00000020" + "11" * 32 + "0000000a73686172652d6b657973"
        "00000003616e6e" "00000003626f62"
    )  # fmt: skip


def test_the_context_of_a_pair_is_these_bytes_whoever_asks() -> None:
    expected = b"secagg key v1\0" + bytes.fromhex("000000047365616c00000003616e6e00000003626f62")
    assert info("seal", "ann", "bob") == info("seal", "bob", "ann") == expected


def test_bad_a_key_under_the_own_name_names_the_peer() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        PairKeys(bytes(range(32)), "ann", bytes(32)).agree("ann", bytes(32), "seal")
    assert caught.value.party == "ann"


def test_bad_nothing_to_combine() -> None:
    import numpy as np

    with pytest.raises(Misuse, match="at least one share and one secret"):
        combine_arrays(np.empty((0, 2), np.int64), np.zeros((0, 2, 32), np.uint8), 32)
    with pytest.raises(Misuse, match="at least one share and one secret"):
        combine_arrays(np.empty((1, 0), np.int64), np.zeros((1, 0, 32), np.uint8), 32)
