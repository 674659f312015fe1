"""The store that survives its process: one sealed file, and beside it a key, an anchor, a lock and a name.

What does not belong here: the formats (`sealed`) and the file primitives (`files`).

The anchor is how a rollback is found out: it names the newest state that an answer may have been based on. A
state file that is older, or another one of the same version, is refused with RollbackDetected and nothing is
answered from it. Put the anchor where backups of the state do not reach (`anchor=`). The limit: whoever
restores state *and* anchor together, such as a snapshot of the whole machine, is not noticed; that takes a
counter outside the machine.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from protocols.errors import RollbackDetected, StoreError
from protocols.store.base import Store
from protocols.store.files import locked, prepare, read_private, replace, write_atomic
from protocols.store.sealed import ANCHOR_BYTES, FIRST_ANCHOR, KEY_BYTES, Sealer

MAX_STATE_BYTES, MAX_NAME_BYTES = 1 << 32, 1 << 16


@final
class FileStore(Store):
    """A party's state in `path` (mode 0600, sealed), safe against kills, full disks, two processes and old
    copies.

    `name` is the party's: a state file of another name does not open, and `path`.name says in clear which name made it.
    The key lies in `key` (default
    `path`.key) and is made on first use; the anchor in `anchor` (default `path`.anchor). `timeout` bounds, in
    seconds, the wait for another process. Every save rewrites the file and syncs it twice: state belongs
    here, models and data do not.
    """

    def __init__(
        self,
        path: Path | str,
        name: str,
        *,
        key: Path | None = None,
        anchor: Path | None = None,
        timeout: float = 30.0,
        sync: bool = True,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = name
        self._key_path = key or self._beside(".key")
        self._anchor_path = anchor or self._beside(".anchor")
        self._lock_path = self._beside(".lock")
        self._name_path = self._beside(".name")
        self._timeout = timeout
        self._sync = sync
        try:
            for folder in {self.path.parent, self._key_path.parent, self._anchor_path.parent}:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {name!r}: {error.filename} cannot be made: {error.strerror}") from None

    def first_name(self) -> str:
        """Return the name that the files were first used by: this one's, if they are new, and begin them.

        Files from before names were kept count as this one's. Raises StoreError.
        """
        with self._exclusive():
            self._sealer()
            kept = read_private(self._name_path, MAX_NAME_BYTES)
        return self.name if kept is None else kept.decode(errors="replace")

    def __repr__(self) -> str:
        return f"FileStore({str(self.path)!r}, {self.name!r})"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with locked(self._lock_path, self._timeout):
            yield

    def _load(self) -> tuple[int, dict[str, bytes]]:
        sealer = self._sealer()
        kept = read_private(self._anchor_path, ANCHOR_BYTES)
        if kept is None:
            raise RollbackDetected(
                f"store {self.name!r}: the anchor file {self._anchor_path.name} is missing"
            )
        anchor = sealer.open_anchor(kept)
        data = read_private(self.path, MAX_STATE_BYTES)
        if data is None:
            if anchor.version == 0:
                return 0, {}
            raise RollbackDetected(
                f"store {self.name!r}: the state file is gone, the anchor knows version {anchor.version}"
            )
        version, entries = sealer.open(data)
        if version < anchor.version:
            raise RollbackDetected(
                f"store {self.name!r} was restored from an old copy: it is at version {version}, the anchor "
                f"at {anchor.version}; what happened between is forgotten, so nothing may be answered from it"
            )
        if version == anchor.version and hashlib.sha256(data).digest() != anchor.digest:
            raise RollbackDetected(
                f"store {self.name!r} is another version {version} than the one last answered from"
            )
        # killed between the two renames of a save: nothing left before, now it may
        if version > anchor.version:
            write_atomic(self._anchor_path, sealer.anchor(version, data))
        return version, entries

    def _save(self, version: int, entries: dict[str, bytes]) -> None:
        sealer = self._sealer()
        data = sealer.seal(version, entries)
        # both on disk before either name changes: a full disk changes nothing
        state = prepare(self.path, data)
        try:
            anchor = prepare(self._anchor_path, sealer.anchor(version, data), sync=self._sync)
        except StoreError:
            state.unlink(missing_ok=True)
            raise
        replace(state, self.path, sync=self._sync)
        replace(anchor, self._anchor_path, sync=self._sync)

    def _sealer(self) -> Sealer:
        key = read_private(self._key_path, KEY_BYTES)
        return Sealer(self._create() if key is None else key, self.name)

    def _create(self) -> bytes:
        """Make key and first anchor, and keep the name. The key comes last: where there is one there must be the
        others.
        """
        if self.path.exists():
            raise StoreError(
                f"store {self.name!r}: its key file {self._key_path.name} is missing; its state is sealed"
            )
        kept = read_private(self._anchor_path, ANCHOR_BYTES)
        if kept is not None and not kept.startswith(FIRST_ANCHOR):
            raise RollbackDetected(
                f"store {self.name!r}: {self._anchor_path.name} is there, and {self._key_path.name} is not: put back "
                "key and state, or name another anchor for a store that begins anew"
            )
        key = os.urandom(KEY_BYTES)
        prepared = prepare(self._key_path, key)
        write_atomic(self._name_path, self.name.encode())
        write_atomic(self._anchor_path, Sealer(key, self.name).anchor(0, b""))
        replace(prepared, self._key_path)
        return key

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
