"""Downloads from the publishers, with a progress bar, a time limit and a checksum before a file gets its
name.

Belongs here: fetching and saving. Which files and where they may already be is in `sources.py`.
"""

import gzip
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

from fl.data.sources import DataFile, Source, verify
from protocols.errors import DataMissing

TIMEOUT = 20.0
"""Seconds that a publisher's server may stay silent."""

PIECE = 1 << 16
"""Bytes read between two updates of the progress bar."""


def fetch(source: Source, folder: Path, otherwise: str) -> Path:
    """Downloads every file of `source` into `folder` and returns it. Files that are there already stay.

    Raises DataMissing, ending with `otherwise`, where there is nothing to download, the network is
    switched off (SECAGG_OFFLINE=1), a server does not answer, or a checksum is wrong. A file has its name
    only when it is whole.
    """
    if os.environ.get("SECAGG_OFFLINE"):
        raise DataMissing(f"{otherwise} Downloads are switched off by SECAGG_OFFLINE.")
    if any(file.url is None for file in source.files):
        raise DataMissing(otherwise)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.files:
            if not any((folder / name).is_file() for name in (file.name, f"{file.name}.gz")):
                _save(folder, file, _download(file))
    except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
        reason = getattr(error, "reason", None) or error
        raise DataMissing(f"The download failed ({reason}). {otherwise}") from error
    return folder


def _download(file: DataFile) -> bytes:
    """The uncompressed content at the publisher's address, verified."""
    address = str(file.url)
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise DataMissing(f"{address} is no web address.")
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    received = bytearray()
    with (
        urllib.request.urlopen(address, timeout=TIMEOUT) as answer,  # noqa: S310  # the scheme is checked above
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        length = answer.headers.get("Content-Length", "")
        task = progress.add_task(file.name, total=int(length) if length.isdigit() else None)
        while piece := answer.read(PIECE):
            received += piece
            progress.update(task, completed=len(received))
            if len(received) > file.size + PIECE:  # compressed or not, it is never longer
                raise DataMissing(f"{address} sends more than the {file.size} bytes of {file.name}.")
    content = bytes(received)
    if content[:2] == b"\x1f\x8b":
        content = _unpack(content, file)
    verify(content, file, address)
    return content


def _unpack(compressed: bytes, file: DataFile) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    return unpacker.decompress(compressed, file.size + 1)


def _save(folder: Path, file: DataFile, content: bytes) -> None:
    """Writes `<name>.gz` beside itself first, so that a full disk or a killed process leaves no half file."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{file.name}.", delete=False) as stream:
        try:
            stream.write(gzip.compress(content, compresslevel=6, mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(stream.name, folder / f"{file.name}.gz")
        except BaseException:
            Path(stream.name).unlink(missing_ok=True)
            raise
