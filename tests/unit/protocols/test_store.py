"""The store keeps what was committed, forgets nothing that was marked, and gives nothing away in its repr."""

import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import Misuse, RollbackDetected, StoreError
from protocols.store import AlreadyDone, FileStore, MemoryStore, Store, StoreBusy, write_atomic
from protocols.store.files import locked

SECRET = b"a secret that nobody prints"


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "state", "alice")


def test_entries_are_kept_listed_and_removed(store: Store) -> None:
    store.put("session/1", b"one")
    store.put("session/2", b"")
    store.put("other", b"x")
    assert (store.get("session/1"), store.get("session/2"), store.get("none")) == (b"one", b"", None)
    assert store.names("session/") == ("session/1", "session/2")
    store.delete("session/1")
    store.delete("session/1")
    assert store.names() == ("other", "session/2")


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    store.put("a", b"before")

    def fail_halfway() -> None:
        with store.transaction() as t:
            t.put("a", b"after")
            t.mark_once("m")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert store.get("a") == b"before"
    assert not store.marked("m")


def test_the_version_counts_changes_only(store: Store) -> None:
    assert store.version == 0
    store.get("a")
    assert store.version == 0
    store.put("a", b"1")
    with store.transaction() as t:
        t.put("a", b"2")
        t.put("b", b"3")
    assert store.version == 2


def test_a_mark_is_made_once_and_stays(store: Store) -> None:
    store.mark_once("update/7")
    with pytest.raises(AlreadyDone, match="once"):
        store.mark_once("update/7")
    store.delete("update/7")
    assert store.marked("update/7")
    assert not store.marked("update/8")


def test_a_counter_only_grows(store: Store) -> None:
    store.advance("round", 3)
    for stale in (3, 2):
        with pytest.raises(AlreadyDone, match="grows"):
            store.advance("round", stale)
    with pytest.raises(Misuse):
        store.advance("round", 0)
    store.advance("round", 4)


def test_misuse_is_refused_at_once(store: Store) -> None:
    with pytest.raises(Misuse, match="bytes"):
        store.put("a", "text")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(Misuse, match="name"):
        store.put("", b"")
    with store.transaction(), pytest.raises(Misuse, match="open in this thread"):
        store.get("a")


def test_nothing_secret_is_printed_or_lies_in_clear(store: Store) -> None:
    with store.transaction() as t:
        t.put("key", SECRET)
        assert "nobody prints" not in repr(t)
    assert "nobody prints" not in repr(store)
    if isinstance(store, FileStore):
        for path in store.path.parent.iterdir():
            assert SECRET not in path.read_bytes()
            assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=25, deadline=None)
@given(entries=st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=200), max_size=8))
def test_any_entries_come_back(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, bytes]) -> None:
    path = tmp_path_factory.mktemp("any") / "state"
    with FileStore(path, "alice").transaction() as t:
        for name, value in entries.items():
            t.put(name, value)
    with FileStore(path, "alice").transaction() as t:
        assert {name: t.get(name) for name in t.names()} == entries


def test_threads_do_not_lose_changes(store: Store) -> None:
    def work() -> None:
        for _ in range(10):
            with store.transaction() as t:
                t.put("n", bytes([(t.get("n") or b"\0")[0] + 1]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("n") == bytes([40])


# what follows is about files only


def copies(folder: Path, into: Path) -> Path:
    shutil.copytree(folder, into)
    return into


def test_an_old_state_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "s" / "state", "alice")
    store.put("a", b"1")
    old = store.path.read_bytes()
    store.mark_once("answered")
    store.path.write_bytes(old)
    for _ in range(2):
        with pytest.raises(RollbackDetected, match="old copy"):
            store.get("a")
    with pytest.raises(RollbackDetected):
        store.mark_once("answered")


def test_a_removed_state_or_anchor_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state", "alice", anchor=tmp_path / "elsewhere" / "anchor")
    store.put("a", b"1")
    kept = store.path.read_bytes()
    store.path.unlink()
    with pytest.raises(RollbackDetected, match="gone"):
        store.get("a")
    store.path.write_bytes(kept)
    store.path.chmod(0o600)
    assert store.get("a") == b"1"
    (tmp_path / "elsewhere" / "anchor").unlink()
    with pytest.raises(RollbackDetected, match="missing"):
        store.get("a")


def test_a_store_does_not_begin_over_the_anchor_of_another_state_or_over_any_file(tmp_path: Path) -> None:
    """A state that was erased with its key was begun anew: what stands elsewhere to notice that was overwritten."""
    anchor = tmp_path / "elsewhere" / "anchor"
    FileStore(tmp_path / "state", "alice", anchor=anchor).put("a", b"1")
    kept = anchor.read_bytes()
    for name in ("state", "state.key", "state.name"):
        (tmp_path / name).unlink()
    with pytest.raises(RollbackDetected, match=r"anchor is there, and state\.key is not: put back key"):
        FileStore(tmp_path / "state", "alice", anchor=anchor).first_name()
    assert anchor.read_bytes() == kept
    anchor.write_bytes(b"name = 'alice'")  # a site.toml, say
    with pytest.raises(RollbackDetected, match="name another anchor"):
        FileStore(tmp_path / "state", "alice", anchor=anchor).put("a", b"1")
    assert anchor.read_bytes() == b"name = 'alice'"


def test_a_store_that_was_killed_while_it_began_begins_again(tmp_path: Path) -> None:
    FileStore(tmp_path / "state", "alice").first_name()
    (tmp_path / "state.key").unlink()  # it comes last
    FileStore(tmp_path / "state", "alice").put("a", b"1")
    assert FileStore(tmp_path / "state", "alice").get("a") == b"1"


def test_another_branch_of_the_same_version_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "one" / "state", "alice")
    store.put("a", b"1")
    fork = FileStore(copies(tmp_path / "one", tmp_path / "two") / "state", "alice")
    store.put("a", b"here")
    fork.put("a", b"there")
    store.path.write_bytes(fork.path.read_bytes())
    with pytest.raises(RollbackDetected, match="another version"):
        store.get("a")


def test_a_kill_between_the_two_renames_loses_nothing_and_can_not_be_undone(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "s" / "state", "alice")
    store.put("a", b"1")
    old_anchor, old_state = (tmp_path / "s" / "state.anchor").read_bytes(), store.path.read_bytes()
    store.put("a", b"2")
    (tmp_path / "s" / "state.anchor").write_bytes(old_anchor)  # as if killed before the anchor got its name
    assert store.get("a") == b"2"
    store.path.write_bytes(old_state)  # what was read once may have been answered from: no way back
    with pytest.raises(RollbackDetected):
        store.get("a")


@pytest.mark.parametrize("where", [0, 9, 20, 40, -1])
def test_a_damaged_state_is_refused(tmp_path: Path, where: int) -> None:
    store = FileStore(tmp_path / "state", "alice")
    store.put("a", b"1")
    data = bytearray(store.path.read_bytes())
    data[where] ^= 1
    store.path.write_bytes(data)
    with pytest.raises(StoreError):
        store.get("a")


def test_a_state_of_another_party_does_not_open(tmp_path: Path) -> None:
    FileStore(tmp_path / "state", "alice").put("a", b"1")
    with pytest.raises(StoreError):
        FileStore(tmp_path / "state", "bob").get("a")


def test_a_missing_or_readable_key_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state", "alice")
    store.put("a", b"1")
    (tmp_path / "state.key").chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        store.get("a")
    (tmp_path / "state.key").unlink()
    with pytest.raises(StoreError, match="missing"):
        store.get("a")


def test_a_held_store_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state", "alice", timeout=0.05)
    with locked(tmp_path / "state.lock", 1), pytest.raises(StoreBusy):
        store.get("a")
    assert store.get("a") is None


def test_atomic_writes_replace_whole_files_with_the_asked_mode(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_atomic(path, b"old", mode=0o644)
    write_atomic(path, memoryview(b"new"), mode=0o644)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    with pytest.raises(StoreError, match="whole"):
        write_atomic(tmp_path / "none" / "model", b"")
