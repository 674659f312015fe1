"""Keys and contexts: files that only their owner reads, no secret unless asked, none where it must not be."""

import copy
import os
import pickle
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest

from he.ckks import CKKSSum, SharedKey
from he.ckks.ciphertexts import Adder, encrypt, open_sum
from he.ckks.coefficients import gather, spread
from he.ckks.keys import MAGIC, Context
from he.ckks.parameters import choose
from he.ckks.seal import ring
from he.sealing import agree, derive, seal, unseal
from protocols.errors import CapacityError, Misuse, ProtocolViolation, StoreError, WireError
from protocols.key_agreement import public_key
from protocols.randomness import SystemRandom
from protocols.sealing import OVERHEAD

RANDOM = SystemRandom()


@pytest.fixture(scope="module")
def context() -> Context:
    return Context.make(choose(3, 4, 100, False))


def test_a_context_carries_its_secret_only_when_asked(context: Context) -> None:
    public, private = context.dump(), context.dump(secret=True)
    assert context.secret[20:60] not in public
    assert context.secret[20:60] in private
    assert Context.load(public, "holder").secret == b""
    assert Context.load(private, "holder") == context
    for shown in (repr(context), str(context)):
        assert repr(context.secret)[2:30] not in shown
    with pytest.raises(Misuse, match="no secret key"):
        Context.load(public, "server").dump(secret=True)
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(Misuse, match="pickled"):
            copied(context)


def test_a_context_with_a_secret_is_refused_where_none_may_be(context: Context) -> None:
    private = context.dump(secret=True)
    for side in ("server", "client"):
        assert Context.load(context.dump(), side).public == context.public  # type: ignore[arg-type]  # parametrised
        with pytest.raises(ProtocolViolation, match="secret key") as caught:
            Context.load(private, side, "key-holder")  # type: ignore[arg-type]  # parametrised
        assert caught.value.party == "key-holder"
        assert repr(context.secret)[2:30] not in str(caught.value)


def test_other_bytes_are_no_context(context: Context) -> None:
    for bad in (b"", MAGIC, context.dump()[:-1], context.dump() + b"\0", b"x" + context.dump()):
        with pytest.raises(WireError):
            Context.load(bad, "server")
    high = Context(context.parameters, b"\xff" * len(context.public), b"")
    for wrong in (high, Context(context.parameters, context.public[:-1], b"")):
        with pytest.raises(WireError):
            wrong.public_key()


def test_a_context_file_works_and_is_private(context: Context, tmp_path: Path) -> None:
    context.save(tmp_path / "public")
    context.save(tmp_path / "secret", secret=True)
    for name in ("public", "secret"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    p = context.parameters
    mine, theirs = Context.read(tmp_path / "secret", "holder"), Context.read(tmp_path / "public", "client")
    adder = Adder.empty(p)
    adder.add(encrypt(spread(np.array([1, -2, 3, 100]), p), p, theirs.public_key()))
    assert gather(open_sum(adder.finish(), p, 1, mine.secret), p, 0).tolist() == [1, -2, 3, 100]
    with pytest.raises(ProtocolViolation, match="secret key"):
        Context.read(tmp_path / "secret", "server")
    with pytest.raises(StoreError, match="exists"):
        context.save(tmp_path / "public")


def test_a_shared_key_file_is_private_and_never_shown(tmp_path: Path) -> None:
    key = SharedKey.generate()
    key.save(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert SharedKey.load(tmp_path / "key").secret == key.secret
    assert key.secret != SharedKey.generate().secret
    assert repr(key) == str(key) == "SharedKey(...)"
    with pytest.raises(Misuse, match="pickled"):
        pickle.dumps(key)
    with pytest.raises(Misuse, match="pickled"):
        pickle.dumps(CKKSSum("shared", key=key))
    with pytest.raises(StoreError, match="exists"):
        key.save(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(StoreError):
        SharedKey.load(tmp_path / "key")
    with pytest.raises(StoreError):
        SharedKey.load(tmp_path / "missing")
    (tmp_path / "other").write_bytes(b"something else")
    (tmp_path / "other").chmod(0o600)
    with pytest.raises(StoreError, match="not a shared"):
        SharedKey.load(tmp_path / "other")
    with pytest.raises(Misuse, match="32 bytes"):
        SharedKey(b"short")


def test_simulated_parties_in_several_processes_share_what_their_sum_was_made_with() -> None:
    """As a simulation engine does it: the sum travels to worker processes, its throwaway key with it."""
    one = CKKSSum("shared")
    other = pickle.loads(pickle.dumps(one))
    session = one.session(["a", "b"], 3, 5, random=RANDOM)
    states = [
        protocol.client(session, i, np.ones(3, np.int64), random=RANDOM).state
        for i, protocol in enumerate((one, other))
    ]
    assert states[0].key == states[1].key
    stranger = CKKSSum("shared").client(session, 0, np.ones(3, np.int64), random=RANDOM).state
    assert stranger.key != states[0].key


def test_equal_seeds_give_equal_keys_and_fresh_encryptions() -> None:
    p = choose(3, 4, 100, True)
    made = ring(p.degree, p.modulus)
    one, same, other = (made.secret_from_seed(seed * 64) for seed in (b"a", b"a", b"b"))
    first, seeds = made.seeded_zeros(one, 2)
    second = made.expanded_sum(seeds[None])
    small = [
        np.minimum(x, p.modulus - x).max()
        for x in (made.phases(k, first, second) for k in (one, same, other))
    ]
    assert small[0] <= 21
    assert small[1] <= 21
    assert small[2] > 1 << 10
    again, others = made.seeded_zeros(same, 2)
    assert not np.array_equal(again, first)
    assert len({s.tobytes() for s in (*seeds, *others)}) == 4


def test_seal_refuses_what_the_table_does_not_allow() -> None:
    too_large = 18014398509404161  # 54 bits: allowed for N = 2048, not for N = 1024
    ring(2048, too_large)
    with pytest.raises(CapacityError, match="SEAL refuses"):
        ring(1024, too_large)


def test_boxes_open_for_their_place_only() -> None:
    one, two, three = (RANDOM.bytes(32) for _ in range(3))
    key = agree(one, public_key(two), b"session", "x", "peer")
    assert key == agree(two, public_key(one), b"session", "x", "peer")
    for other in (
        agree(one, public_key(three), b"session", "x", "peer"),
        agree(one, public_key(two), b"another", "x", "peer"),
        agree(one, public_key(two), b"session", "y", "peer"),
    ):
        assert other != key
    box = seal(key, b"plain", b"session", "client 1", RANDOM)
    assert len(box) == 5 + OVERHEAD
    assert box != seal(key, b"plain", b"session", "client 1", RANDOM)
    assert unseal(key, box, b"session", "client 1") == b"plain"
    for bad in (
        (key, box[:-1], b"session", "client 1"),
        (key, box, b"session", "client 2"),
        (key, box, b"x", "client 1"),
        (one, box, b"session", "client 1"),
        (key, b"", b"session", "client 1"),
    ):
        with pytest.raises(ProtocolViolation) as caught:
            unseal(*bad)
        assert caught.value.party == bad[3]
    with pytest.raises(ProtocolViolation, match="public key of peer is not usable"):
        agree(one, bytes(32), b"session", "x", "peer")
    assert derive(one, b"ab", "c") != derive(one, b"a", "bc")


def test_a_shared_key_differs_from_session_to_session() -> None:
    from he.ckks.whole_key import CKKSGroupKey

    protocol = CKKSSum("shared")
    sessions = [protocol.session(["a", "b"], 3, 5, random=RANDOM) for _ in range(2)]
    one, two = (CKKSGroupKey.of(b"k" * 32, session) for session in sessions)
    p = choose(2, 3, 5, True)
    assert len({one.check_key, two.check_key, one.box_key, two.box_key}) == 4
    assert one.ckks_secret(p) != two.ckks_secret(p)
    assert "root" not in repr(one)


def test_without_files_in_memory_a_private_temporary_file_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems other than Linux: the same results through a file that only its owner may read, gone afterwards."""
    paths: list[Path] = []
    real = tempfile.NamedTemporaryFile

    def watched(*given: object, **named: object) -> object:
        file = real(*given, **named)  # type: ignore[call-overload]  # handed on as it came
        paths.append(Path(file.name))
        assert stat.S_IMODE(paths[-1].stat().st_mode) == 0o600
        return file

    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", watched)
    p = choose(3, 4, 100, False)
    context, adder = Context.make(p), Adder.empty(p)
    adder.add(encrypt(spread(np.array([1, -2, 3, 100]), p), p, context.public_key()))
    assert gather(open_sum(adder.finish(), p, 1, context.secret), p, 0).tolist() == [1, -2, 3, 100]
    assert paths
    assert not any(path.exists() for path in paths)
