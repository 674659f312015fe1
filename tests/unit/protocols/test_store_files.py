"""A store's files at their edges: modes, links, every cut of every file, and what reading does not touch."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from protocols.errors import Misuse, RollbackDetected, StoreError
from protocols.store import FileStore, MemoryStore, Store, write_atomic
from protocols.store.base import MAX_NAME
from protocols.store.files import read_private


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "state", "alice")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["a", "x" * MAX_NAME])
def test_names_of_entries_have_a_length(store: Store, name: str) -> None:
    store.put(name, b"1")
    store.mark_once(name)
    assert store.get(name) == b"1"
    for bad in ("", "x" * (MAX_NAME + 1), 7):
        with pytest.raises(Misuse, match=f"1 to {MAX_NAME}"):
            store.put(bad, b"1")  # type: ignore[arg-type]  # 7 on purpose


def test_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = FileStore(
            tmp_path / "a" / "b" / "state", "alice", key=tmp_path / "k" / "key", anchor=tmp_path / "c" / "d"
        )
        store.put("x", b"1")
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a/b", "k", "c")] == [0o700] * 3
    files = ("a/b/state", "k/key", "c/d", "a/b/state.lock", "a/b/state.name")
    assert [mode(tmp_path / name) for name in files] == [0o600] * 5


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Who may write beside the store could otherwise have it read, or overwrite, another file."""
    store = FileStore(tmp_path / "s" / "state", "alice")
    store.put("x", b"1")
    for name in ("state", "state.key", "state.anchor", "state.lock"):
        real = tmp_path / "s" / name
        real.rename(tmp_path / name)
        real.symlink_to(tmp_path / name)
        with pytest.raises(StoreError):
            FileStore(tmp_path / "s" / "state", "alice").get("x")
        real.unlink()
        (tmp_path / name).rename(real)
    assert store.get("x") == b"1"


def test_a_link_in_the_place_of_the_temporary_file_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"whole")
    (tmp_path / "model.new").symlink_to(victim)
    write_atomic(tmp_path / "model", b"new")
    assert (victim.read_bytes(), (tmp_path / "model").read_bytes()) == (b"whole", b"new")
    assert not (tmp_path / "model").is_symlink()


def test_private_files_are_plain_small_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_private(path, 3) is None
    write_atomic(path, b"abc")
    assert read_private(path, 3) == b"abc"
    with pytest.raises(StoreError, match="has 3 bytes, expected at most 2"):
        read_private(path, 2)
    for open_to in (0o640, 0o604, 0o610, 0o602):
        path.chmod(open_to)
        with pytest.raises(StoreError, match=f"mode {open_to:o}"):
            read_private(path, 3)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for odd in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(StoreError, match="not a plain file"):
            read_private(odd, 3)


@pytest.mark.parametrize(
    "data", [b"", memoryview(np.arange(5)), memoryview(np.zeros(0)), memoryview(np.arange(4, dtype=np.int8))]
)
def test_any_buffer_is_written_whole(tmp_path: Path, data: bytes | memoryview) -> None:
    write_atomic(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == bytes(data)


def test_every_cut_of_a_state_or_an_anchor_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state", "alice")
    store.put("x", b"1")
    for path, error in ((store.path, StoreError), (tmp_path / "state.anchor", RollbackDetected)):
        whole = path.read_bytes()
        for wrong in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
            path.write_bytes(wrong)
            if path.name == "state.anchor" and len(wrong) > len(whole):
                error = StoreError  # longer than any anchor: it is not read
            with pytest.raises(error):
                store.get("x")
        path.write_bytes(whole)
    assert store.get("x") == b"1"


def test_reading_writes_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state", "alice")
    store.put("x", b"1")

    def files() -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}

    before = files()
    assert store.get("x") == b"1"
    with store.transaction() as transaction:
        assert transaction.names() == ("x",)
    assert files() == before


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "s" / "state", "alice", anchor=tmp_path / "elsewhere" / "anchor")
    store.put("x", b"1")
    (tmp_path / "elsewhere" / "anchor.new").mkdir()  # in the way of the anchor's temporary file
    with pytest.raises(StoreError, match="is whole"):
        store.put("x", b"2")
    assert not (tmp_path / "s" / "state.new").exists()
    (tmp_path / "elsewhere" / "anchor.new").rmdir()
    assert store.get("x") == b"1"


def test_what_is_saved_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, anchor and the names of both; a simulation may spare itself all but the first."""
    store, quick = FileStore(tmp_path / "a", "alice"), FileStore(tmp_path / "b", "bob", sync=False)
    for each in (store, quick):
        each.put("x", b"1")
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), fsync(handle)))
    store.put("x", b"2")
    assert len(synced) == 4
    quick.put("x", b"2")
    assert len(synced) == 5
    write_atomic(tmp_path / "model", b"1")
    assert len(synced) == 7


def test_writes_that_the_system_cuts_short_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data)[:3]))
    for data in (b"0123456789", memoryview(np.arange(5))):
        write_atomic(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == bytes(data)


def test_the_first_name_is_kept(tmp_path: Path) -> None:
    made = FileStore(tmp_path / "state", "alice")
    assert made.first_name() == FileStore(tmp_path / "state", "bob").first_name() == "alice"
    (tmp_path / "state.name").unlink()  # files from before names were kept
    assert FileStore(tmp_path / "state", "bob").first_name() == "bob"
    with pytest.raises(StoreError):
        FileStore(tmp_path / "state", "bob").put("x", b"1")
    made.put("x", b"1")


def test_a_name_without_a_key_is_nobodys(tmp_path: Path) -> None:
    """A process that was killed while it made the files."""
    (tmp_path / "state.name").write_text("alice")
    (tmp_path / "state.name").chmod(0o600)
    assert FileStore(tmp_path / "state", "bob").first_name() == "bob"
    assert (tmp_path / "state.name").read_text() == "bob"
