"""What digests, signatures and graph seeds are made over, byte for byte, each written out a second time here.

A context, an index or a name that went missing from one of them would still run; it would only no longer bind.
"""

import hashlib

import numpy as np

from protocols import agreement
from protocols.key_agreement import PairKeys, public_key
from protocols.randomness import SystemRandom
from secagg import Credentials, SecAggPlus
from secagg.commitments import (
    CERTIFY,
    DEAL,
    KEY,
    MASK,
    SEED,
    certified_bytes,
    dealt_bytes,
    joint_seed,
    masked_bytes,
    part_commitment,
    seed_digest,
    share_digest,
    view_facts,
)
from secagg.graph import permutation
from secagg.mask_parameters import MaskParameters
from secagg.messages import Commitments, Dealing, indices
from secagg.seeds import pair_seed
from secagg.session_rules import Rules, rules_of

CONTEXT = bytes(range(32))
TWO, NINE = b"\0\0\0\2", b"\0\0\0\x09"


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_a_share_is_pledged_under_context_dealer_holder_and_kind() -> None:
    for kind, word in ((SEED, b"seed\0"), (KEY, b"key\0")):
        expected = sha(b"secagg share v1\0", CONTEXT, TWO, NINE, word, b"s" * 32)[:16]
        assert share_digest(CONTEXT, 2, 9, kind, b"s" * 32) == expected


def test_a_seed_and_a_part_are_pledged_under_context_and_owner() -> None:
    assert seed_digest(CONTEXT, 9, b"s" * 32) == sha(b"secagg seed v1\0", CONTEXT, NINE, b"s" * 32)
    assert part_commitment(CONTEXT, 9, b"p" * 32) == sha(b"secagg part v1\0", CONTEXT, NINE, b"p" * 32)


def test_the_joint_seed_is_of_everybodys_commitments_and_parts() -> None:
    committed = Commitments(indices([2, 9]), b"c" * 32 + b"d" * 32)
    listed = sha(TWO, NINE, b"c" * 32, b"d" * 32)
    expected = sha(b"secagg joint v1\0", CONTEXT, listed, b"p" * 64)
    assert joint_seed(CONTEXT, committed, b"p" * 64) == expected


def test_what_is_signed_has_context_and_place() -> None:
    dealing = Dealing(indices([2, 9]), b"d" * 64, b"s" * 32, b"b" * 6, b"")
    held = sha(TWO, NINE, b"b" * 6, b"d" * 64)
    assert dealt_bytes(CONTEXT, 9, dealing) == CONTEXT + NINE + held + b"s" * 32
    assert certified_bytes(CONTEXT, 9, b"keys") == CONTEXT + NINE + b"keys"
    assert masked_bytes(CONTEXT, b"graph", b"bits", 9) == CONTEXT + sha(b"graph") + sha(b"bits") + NINE
    assert len({CERTIFY, DEAL, MASK, agreement.PURPOSE}) == 4


def test_what_is_agreed_on_has_context_and_the_digest_of_each_fact() -> None:
    facts = view_facts(b"graph", b"\x07", b"\x03")
    named = ((b"dealers", b"\x07"), (b"graph", b"graph"), (b"survivors", b"\x03"))
    listed = b"".join(
        len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + sha(value) for name, value in named
    )
    expected = sha(b"agree v1\0", (32).to_bytes(4, "big"), CONTEXT, (3).to_bytes(4, "big"), listed)
    assert agreement.agreed(CONTEXT, facts) == expected


def test_a_committee_of_voters_is_drawn_with_the_graph() -> None:
    made = MaskParameters("semi-malicious", 4, 3, 0, 4, 4, 6, window=1)
    rules = Rules(made, 9, 2, 8, CONTEXT, 1)
    drawn = permutation(sha(b"secagg voters v1\0", rules.seed), 9)[:6]
    assert list(rules.voters(rules.seed)) == sorted(drawn.tolist())


def test_a_pairs_masks_have_a_purpose_of_their_own() -> None:
    own, peer = PairKeys(b"o" * 32, "ann", CONTEXT), public_key(b"p" * 32)
    assert (
        pair_seed(own, "bob", peer) == own.agree("bob", peer, "pair mask") != own.agree("bob", peer, "seal")
    )


def test_the_graph_follows_from_the_context_or_from_the_beacon_round_and_identities() -> None:
    plain = MaskParameters("semi-honest", 4, 3, 0, 2)
    assert Rules(plain, 9, 2, 8, CONTEXT, 7).seed == sha(b"secagg graph v1\0", CONTEXT)
    members = [bytes([i]) * 32 for i in range(9)]
    shuffled = b"".join(reversed(members))
    beacon = MaskParameters("malicious", 4, 3, 0, 2, 5, 0, 1, beacon=b"light", identities=shuffled)
    expected = sha(b"secagg beacon v2\0", (7).to_bytes(8, "big"), sha(*members), b"light")
    assert Rules(beacon, 9, 2, 8, CONTEXT, 7).seed == expected
    reused = MaskParameters("semi-honest", 4, 3, 0, 2, reuse=True, epoch=b"e" * 32, begun=3)
    assert Rules(reused, 9, 2, 8, CONTEXT, 7).seed == sha(b"secagg graph v1\0", b"e" * 32)


def test_each_place_has_its_own_identity_and_point() -> None:
    names = [f"c{i}" for i in range(9)]
    credentials = Credentials.simulated(names)
    protocol = SecAggPlus(threat="malicious", neighbours=6, collusion=0.0, credentials=credentials)
    rules = rules_of(protocol.session(names, 1, 1, random=SystemRandom()))
    assert [rules.identity(i) for i in range(9)] == [credentials.identities[n].public for n in names]
    assert rules.points(np.array([0, 3, 8], np.uint32)).tolist() == [1, 4, 9]
