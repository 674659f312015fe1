"""The run record: what each round did, as an append-only chain of lines that nobody can edit unnoticed.

What belongs here: the chain, its signatures, its verification. What does not: what a round puts into it (the
caller's facts: public ones only), the command line.

One JSON line per entry: `body` (the facts), `index`, `previous` (the head before), `head` = SHA-256 over both
and the body's canonical JSON, and `signature` of the head, or null. Whoever can write the file can also write
a new chain: without the signer's public key a chain is internally consistent and no more, and without a head
that somebody else kept even a signed chain may have been cut short.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

from protocols.errors import Misuse, PeerError, RecordError
from protocols.identity import Identity, from_hex, verify

FORMAT = "secagg-record/1"
FILE_NAME = "record.jsonl"
GENESIS = "0" * 64
_DOMAIN = b"secagg record v1\0"
HEAD_PURPOSE = "record head"
MAX_LINE = 1 << 24


@dataclass(frozen=True)
class RecordEntry:
    """One verified line. `head` and `previous` are 64 hexadecimal digits."""

    index: int
    previous: str
    body: dict[str, Any]
    head: str
    signature: str | None

    @property
    def line(self) -> bytes:
        return _canonical({"format": FORMAT, **self.__dict__}) + b"\n"


@dataclass(frozen=True)
class RecordVerdict:
    """What a verification established.

    level: "internally consistent only" (no key given: anybody could have written all of it), "signed" (every
    head by the given key; later entries may have been cut off) or "verified" (also, it contains the head that
    somebody kept, so nothing up to `kept_index` was edited or cut). entries: all of them. head: the last
    head; keep it to notice truncation.
    """

    level: str
    entries: tuple[RecordEntry, ...]
    kept_index: int | None

    @property
    def head(self) -> str:
        return self.entries[-1].head if self.entries else GENESIS


@final
class RunRecord:
    """The record while it is written. One writer at a time; every append is synced before it returns its
    head.
    """

    def __init__(
        self, path: Path, entries: tuple[RecordEntry, ...], handle: int, signer: Identity | None
    ) -> None:
        self.path, self._handle, self._signer = path, handle, signer
        self._last = entries[-1] if entries else None

    @classmethod
    def open(cls, path: Path, signer: Identity | None = None) -> Self:
        """Open or continue the record at `path`; half a line that a killed process left is removed.

        Raises RecordError if what is there does not verify (signed by `signer`, where one is given) or is
        being written.
        """
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordError(f"the record {path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            entries = _chain(data[:whole], signer.public if signer else None)
            if signer is None and entries and entries[-1].signature is not None:
                raise RecordError(f"{path} is a signed record: it is continued by its signer only")
            if whole != len(data):
                os.ftruncate(handle, whole)
            os.fsync(handle)
        except BlockingIOError:
            os.close(handle)
            raise RecordError(f"{path} is being written by another process") from None
        except BaseException:
            os.close(handle)
            raise
        return cls(path, entries, handle, signer)

    @property
    def head(self) -> str:
        """The head of the last entry (64 zeros before the first)."""
        return self._last.head if self._last else GENESIS

    @property
    def last(self) -> RecordEntry | None:
        """The last entry, None before the first."""
        return self._last

    @property
    def length(self) -> int:
        """How many entries it holds."""
        return self._last.index + 1 if self._last else 0

    def append(self, body: Mapping[str, Any]) -> str:
        """Add an entry of JSON values (finite numbers, text, lists, mappings) and return its head, durably.

        Raises Misuse if the body is not JSON or too long, RecordError if it cannot be written (the record
        stays whole).
        """
        entry = _entry(self.length, self.head, dict(body), self._signer)
        line = entry.line
        if len(line) > MAX_LINE:
            raise Misuse(
                f"an entry of {len(line)} bytes; at most {MAX_LINE} fit: put digests there, not data"
            )
        size = os.fstat(self._handle).st_size
        try:
            done = os.write(self._handle, line)
            if done != len(line):
                raise OSError(28, "no space left on device")
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, size)
            raise RecordError(
                f"{self.path} could not be extended ({error.strerror}); it is as before"
            ) from None
        self._last = entry
        return entry.head

    def require_file(self, path: Path) -> None:
        """Raises RecordError unless the file is the one that the last entry names; an entry may name no such file."""
        expected = None if self._last is None else _files(self._last).get(path.name)
        if expected is not None and file_digest(path) != expected:
            raise RecordError(
                f"{path} is not the file of the last entry of {self.path.name}: it was changed or replaced; put the "
                "recorded one back, or begin in another folder"
            )

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def verify_record(path: Path, public_key: bytes | None = None, kept_head: str | None = None) -> RecordVerdict:
    """Check a record's chain, its signatures by `public_key` (32 bytes) and that it contains `kept_head`.

    Raises RecordError at the first entry that does not hold: edited, removed, re-ordered, cut short before
    the kept head, unsigned or signed by another key; and for a file that is missing or holds no entry.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"the record {path} cannot be read: {error.strerror}") from None
    entries = _chain(data, public_key)
    if not entries:
        raise RecordError(f"the record {path} has no entry")
    kept = None
    if kept_head is not None:
        kept = next((e.index for e in entries if e.head == kept_head.lower()), None)
        if kept is None:
            raise RecordError(
                f"the kept head {kept_head[:16]} is not in the record: it was cut short or replaced"
            )
    level = "signed" if kept is None else "verified"
    return RecordVerdict("internally consistent only" if public_key is None else level, entries, kept)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file (64 hexadecimal digits)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(verdict: RecordVerdict, folder: Path) -> tuple[str, ...]:
    """Compare the files named in the entries' `files` (name -> SHA-256; the last mention counts) with those
    in `folder`.

    Returns the names that were compared. Raises RecordError for one that is missing, changed or outside the
    folder.
    """
    expected = {name: digest for entry in verdict.entries for name, digest in _files(entry).items()}
    for name, digest in sorted(expected.items()):
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise RecordError(f"{name!r} is in the record and not in {folder}")
        if file_digest(path) != digest:
            raise RecordError(
                f"{name!r} is not the file of the record: it was changed afterwards, or the run was killed before it "
                "could record it (resuming it repairs that)"
            )
    return tuple(sorted(expected))


def _files(entry: RecordEntry) -> dict[str, str]:
    files = entry.body.get("files", {})
    if not isinstance(files, dict):
        raise RecordError(f"entry {entry.index}: `files` is not a mapping")
    return {str(name): str(digest) for name, digest in files.items()}


def _entry(index: int, previous: str, body: dict[str, Any], signer: Identity | None) -> RecordEntry:
    head = _head(index, previous, body)
    signature = signer.sign(HEAD_PURPOSE, bytes.fromhex(head)).hex() if signer else None
    return RecordEntry(index, previous, body, head, signature)


def _head(index: int, previous: str, body: dict[str, Any]) -> str:
    inner = _canonical({"format": FORMAT, "index": index, "previous": previous, "body": body})
    return hashlib.sha256(_DOMAIN + inner).hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise Misuse(f"an entry of a run record holds plain finite JSON values: {error}") from None


def _chain(data: bytes, public_key: bytes | None) -> tuple[RecordEntry, ...]:
    if data and not data.endswith(b"\n"):
        raise RecordError("the last line is unfinished: the writer was killed; resuming the run repairs that")
    entries: list[RecordEntry] = []
    previous = GENESIS
    for index, line in enumerate(data.splitlines(keepends=True)):
        entry = _parse(index, line)
        if entry.index != index or entry.previous != previous:
            raise RecordError(
                f"entry {index} does not follow the one before: removed, repeated or re-ordered"
            )
        if entry.head != _head(index, previous, entry.body) or entry.line != line:
            raise RecordError(f"entry {index} was edited: its head does not match its content")
        if public_key is not None:
            _check_signature(entry, public_key)
        previous = entry.head
        entries.append(entry)
    return tuple(entries)


def _parse(index: int, line: bytes) -> RecordEntry:
    try:
        raw = json.loads(line, parse_constant=_refuse)
        if raw.pop("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        entry = RecordEntry(**raw)
        if [type(v) for v in (entry.body, entry.head, entry.index)] != [dict, str, int]:
            raise ValueError("a field has another type")
        return entry
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RecordError(f"entry {index} is not an entry of format {FORMAT}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def _check_signature(entry: RecordEntry, public_key: bytes) -> None:
    if not isinstance(entry.signature, str):
        raise RecordError(f"entry {entry.index} is not signed")
    try:
        verify(public_key, HEAD_PURPOSE, bytes.fromhex(entry.head), from_hex(entry.signature))
    except (PeerError, ValueError):
        raise RecordError(f"entry {entry.index} is not signed by key {public_key.hex()[:16]}") from None
