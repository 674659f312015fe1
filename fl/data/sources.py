"""Where the files of a data set are: the places that are searched, in order, and what is told if none has
them.

Belongs here: search order, checksums (`sources.toml`), reading compressed or plain files. Fetching is in `download.py`;
what the bytes mean belongs to the sets.
"""

import functools
import gzip
import hashlib
import os
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    `advice` tells how to get them where no download exists; `licence` is what the publisher states. `columns`: of a
    table whose files do not name them. `name`: of the set, where it is not the folder's.
    """

    folder: str
    files: tuple[DataFile, ...]
    licence: str
    advice: str = ""
    columns: tuple[str, ...] = ()
    name: str = ""


@functools.cache
def published() -> dict[str, Source]:
    """Every set whose files are known, by name: what `sources.toml` beside this module lists."""
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return {name: _source(name, table) for name, table in tables.items()}


def _source(name: str, table: Mapping[str, Any]) -> Source:
    address = table.get("address")
    files = tuple(
        DataFile(file, digest, size, None if address is None else address.format("/".join([*place, file])))
        for file, size, digest, *place in table["files"]
    )
    columns = tuple(table.get("columns", ()))
    return Source(table.get("folder", name), files, table["licence"], table.get("advice", ""), columns, name)


def cache_folder() -> Path:
    """Where downloads go unless a directory is given: `$XDG_CACHE_HOME/secagg/data`, by default under
    ~/.cache.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "secagg" / "data"


def search_path(data_dir: Path | None) -> Iterator[tuple[str, Path]]:
    """The places that are searched, in order, each with the words that a user knows it by; a folder that was named is
    the only one.
    """
    if data_dir is not None:
        yield "--data-dir", data_dir
        return
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
        f"`secagg data get {source.name or source.folder}` download it."
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
    require_digest(hashlib.sha256(content).hexdigest(), file.sha256, where, "the published file")


def require_digest(found: str, expected: str, where: str, what: str = "", advice: str = "") -> None:
    """Raises DataMissing unless `found`, the SHA-256 of what lies at `where`, is the expected one."""
    if found != expected:
        advice = advice or "damaged or another version: remove it and get it again."
        raise DataMissing(
            f"{where} is not {what or 'what it should be'}: SHA-256 {found[:16]}... in place of {expected[:16]}... "
            f"It is {advice}"
        )


def _existing(folder: Path, file: DataFile) -> Path | None:
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if path.is_file():
            return path
    return None
