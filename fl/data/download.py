"""Downloads from the publishers, with a progress bar, a time limit and a checksum before a file gets its
name.

Belongs here: fetching and saving. Which files and where they may already be is in `sources.py`.
"""

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fl.data.sources import DataFile, Source, cache_folder, find, missing, read, require_digest, verify
from protocols.errors import DataMissing

TIMEOUT = 20.0
"""Seconds that a publisher's server may stay silent."""

PIECE = 1 << 16
"""Bytes read between two updates of the progress bar."""


def obtain(source: Source, data_dir: Path | None) -> tuple[dict[str, bytes], str]:
    """The verified content of every file by its name, and where it was found; downloads what is found
    nowhere.

    Raises DataMissing: where it was looked for and how to get it, or which file is not what it should be.
    """
    found = find(source, data_dir)
    if found is None:
        folder = fetch(source, (data_dir or cache_folder()) / source.folder, missing(source, data_dir))
        found = folder, f"{folder} (downloaded)"
    folder, where = found
    return {file.name: read(folder, file) for file in source.files}, where


def fetch(source: Source, folder: Path, otherwise: str) -> Path:
    """Downloads every file of `source` into `folder` and returns it. Files that are there already stay.

    Raises DataMissing, ending with `otherwise`, where there is nothing to download, the network is
    switched off (SECAGG_OFFLINE=1), a server does not answer, or a checksum is wrong. A file has its name
    only when it is whole.
    """
    with _told(otherwise):
        if any(file.url is None for file in source.files):
            raise DataMissing(otherwise)
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.files:
            if not any((folder / name).is_file() for name in (file.name, f"{file.name}.gz")):
                _save(folder, file, _download(file))
    return folder


def fetch_file(address: str, sha256: str, limit: int, path: Path, otherwise: str) -> None:
    """Downloads one large file, of at most `limit` bytes, to `path` as it is, without holding it in memory.

    Raises DataMissing as `fetch` does.
    """
    with _told(otherwise), placed(path) as stream:
        digest = hashlib.sha256()
        for piece in _pieces(address, limit, path.name):
            digest.update(piece)
            stream.write(piece)
        require_digest(
            digest.hexdigest(),
            sha256,
            address,
            "the published file",
            f"damaged on the way, or another version. {otherwise}",
        )


@contextmanager
def placed(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes `path` when the block ends well: written beside it first and synced, so
    that a full disk or a killed process leaves no half file.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        try:
            yield stream.file
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(stream.name, path)
        except BaseException:  # also an interrupt leaves no half file behind
            Path(stream.name).unlink(missing_ok=True)
            raise


@contextmanager
def progress_bar(label: str, total: int | None, of_bytes: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while the block runs; the function given advances it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *counts)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _told(otherwise: str) -> Iterator[None]:
    """Turns what a network does into DataMissing that ends with `otherwise`."""
    if os.environ.get("SECAGG_OFFLINE"):
        raise DataMissing(f"{otherwise} Downloads are switched off by SECAGG_OFFLINE.")
    try:
        yield
    except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
        reason = getattr(error, "reason", None) or error
        raise DataMissing(f"The download failed ({reason}). {otherwise}") from error


def _pieces(address: str, limit: int, label: str) -> Iterator[bytes]:
    """What the server sends, piece by piece, at most `limit` bytes and all that it promised."""
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise DataMissing(f"{address} is no web address.")
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310  # the scheme is checked above
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        received = 0
        with progress_bar(label, total) as advance:
            while piece := answer.read(PIECE):
                received += len(piece)
                advance(len(piece))
                if received > limit:
                    raise DataMissing(
                        f"{address} sends more than the {limit} bytes that {label} has at most."
                    )
                yield piece
        if total is not None and received < total:
            raise EOFError(f"{address} ended after {received} of {total} bytes")


def _download(file: DataFile) -> bytes:
    """The uncompressed content at the publisher's address, verified."""
    address = str(file.url)
    content = b"".join(_pieces(address, file.size + PIECE, file.name))  # compressed or not, never longer
    if content[:2] == b"\x1f\x8b":
        content = _unpack(content, file)
    verify(content, file, address)
    return content


def _unpack(compressed: bytes, file: DataFile) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    return unpacker.decompress(compressed, file.size + 1)


def _save(folder: Path, file: DataFile, content: bytes) -> None:
    with placed(folder / f"{file.name}.gz") as stream:
        stream.write(gzip.compress(content, compresslevel=6, mtime=0))
