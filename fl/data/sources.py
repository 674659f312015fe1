"""Where the files of a data set are: the places that are searched, in order, and what is told if none has
them.

Belongs here: search order, checksums, reading compressed or plain files. Fetching is in `download.py`;
what the bytes mean belongs to the sets.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocols.errors import DataMissing

SYSTEM_FOLDER = Path("/usr/share/datasets")
"""Where Debian's packages of data sets (such as dataset-fashion-mnist) install their files."""


@dataclass(frozen=True)
class DataFile:
    """One file: `name` without `.gz`, the SHA-256 and the size in bytes of its uncompressed content, and the
    publisher's address (None where there is no single file to fetch).
    """

    name: str
    sha256: str
    size: int
    url: str | None = None


@dataclass(frozen=True)
class Source:
    """The files of a set, in a folder of the same name in every place that is searched.

    `advice` tells how to get them where no download exists; `licence` is what the publisher states.
    """

    folder: str
    files: tuple[DataFile, ...]
    licence: str
    advice: str = ""


def cache_folder() -> Path:
    """Where downloads go unless a directory is given: `$XDG_CACHE_HOME/secagg/data`, by default under
    ~/.cache.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "secagg" / "data"


def search_path(data_dir: Path | None) -> Iterator[tuple[str, Path]]:
    """The places that are searched, in order, each with the words that a user knows it by."""
    if data_dir is not None:
        yield "--data-dir", data_dir
    if environment := os.environ.get("SECAGG_DATA"):
        yield "SECAGG_DATA", Path(environment)
    yield "the download folder", cache_folder()
    yield "the system's data sets", SYSTEM_FOLDER


def find(source: Source, data_dir: Path | None) -> tuple[Path, str] | None:
    """The first folder that has every file of `source`, and the words for its place; None where there is
    none.
    """
    for words, place in search_path(data_dir):
        folder = place / source.folder
        if all(_existing(folder, file) for file in source.files):
            return folder, f"{folder} ({words})"
    return None


def missing(source: Source, data_dir: Path | None) -> str:
    """Where the set was looked for and how to get it, in one sentence each."""
    looked = ", ".join(f"{place / source.folder} ({words})" for words, place in search_path(data_dir))
    names = ", ".join(file.name for file in source.files)
    advice = (
        f"Name a folder that holds {source.folder}/ with --data-dir or SECAGG_DATA, or let "
        f"`secagg data get {source.folder}` download it."
    )
    return (
        f"The data set {source.folder} is in none of: {looked}. It needs the files {names} (plain or .gz). "
        f"{source.advice or advice}"
    )


def read(folder: Path, file: DataFile) -> bytes:
    """The uncompressed content of `file`. Raises DataMissing where it is damaged or another version."""
    path = _existing(folder, file)
    if path is None:
        raise DataMissing(f"{folder / file.name} is missing.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content: bytes = stream.read(file.size + 1)  # never more than it may have
    except (OSError, EOFError, zlib.error) as error:
        raise DataMissing(f"{path} cannot be read: {error}. Remove it and get it again.") from error
    verify(content, file, str(path))
    return content


def verify(content: bytes, file: DataFile, where: str) -> None:
    """Raises DataMissing unless `content` is exactly what the publisher's `file` holds."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataMissing(
            f"{where} is not the published file: SHA-256 {digest[:16]}... in place of {file.sha256[:16]}... "
            "It is damaged or another version: remove it and get it again."
        )


def _existing(folder: Path, file: DataFile) -> Path | None:
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if path.is_file():
            return path
    return None
