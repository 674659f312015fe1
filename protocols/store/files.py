"""File primitives that survive a kill and a full disk. What does not belong here: what the files mean,
encryption.

`write_atomic` is for every file of this project that must never be half-written (state, ledger, model,
roster).
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocols.errors import StoreError

LOCK_POLL_SECONDS = 0.005


class StoreBusy(StoreError):
    """Another process or thread holds the file for longer than the caller would wait."""


def write_atomic(path: Path, data: bytes | memoryview, mode: int = 0o600) -> None:
    """Replace `path` by `data`: afterwards, and after a crash at any moment, it holds the old or the new
    bytes whole.

    The data is synced before the name changes, and the name before this returns. Raises StoreError (the old
    file is whole) if it cannot be written. Two writers of one path must hold a lock: they share one temporary
    name.
    """
    replace(prepare(path, data, mode), path)


def prepare(path: Path, data: bytes | memoryview, mode: int = 0o600, *, sync: bool = True) -> Path:
    """Write and sync `data` beside `path` and return that temporary file. Raises StoreError, leaving nothing
    behind.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb", buffering=0) as file:
            os.fchmod(file.fileno(), mode)  # the umask may have narrowed it; it never widens
            _write_all(file.fileno(), memoryview(data))
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _failed(path, error) from None
    return temporary


def replace(temporary: Path, path: Path, *, sync: bool = True) -> None:
    """Give a prepared file its name, durably. Raises StoreError."""
    try:
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_private(path: Path, most: int) -> bytes | None:
    """Return the bytes of a file that its owner alone may read, or None if there is none.

    Raises StoreError if group or others have any access, if it is no plain file, or if it is larger than
    `most` bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not hold us up
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path} is not a plain file")
        if found.st_mode & 0o077:
            raise StoreError(
                f"{path} is open to others (mode {found.st_mode & 0o777:o}): chmod 600 {path.name}"
            )
        if found.st_size > most:
            raise StoreError(f"{path} has {found.st_size} bytes, expected at most {most}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold an advisory lock (flock) on `path`, which is made if missing; a killed holder lets go of it.

    Raises StoreBusy after `timeout` seconds, so that nobody hangs behind a stopped process.
    """
    deadline = time.monotonic() + timeout
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreBusy(f"{path} is held by another process; waited {timeout:g} s") from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _write_all(handle: int, view: memoryview) -> None:
    view = view.cast("B") if view.nbytes else view
    while view.nbytes:
        view = view[os.write(handle, view) :]


def _failed(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} could not be saved ({error.strerror}); what it held before is whole")
