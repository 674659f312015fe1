"""The FEMNIST that TensorFlow Federated publishes: from its archive of two HDF5 files to arrays in one file.

Belongs here: the archive's name, address and checksum, its layout, and the converted file. What the images
are used for is in `femnist.py`. The layout is that of `tff.simulation.datasets.emnist.load_data`:
`examples/<writer>/pixels`, float, (n, 28, 28), ink 0 on paper 1, and `examples/<writer>/label`, (n,) or (n, 1).
"""

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fl.data.download import fetch_file, placed, progress_bar
from fl.data.sources import cache_folder, require_digest, search_path
from protocols.errors import DataMissing
from protocols.extras import needs
from protocols.record import file_digest

FOLDER = "femnist-tff"
ARCHIVE = "fed_emnist.tar.bz2"
ADDRESS = f"https://storage.googleapis.com/tff-datasets-public/{ARCHIVE}"
SHA256 = "fe1ed5a502cea3a952eb105920bff8cffb32836b5173cb18a57a32c3606f3ea0"
LIMIT = 1 << 30
"""Bytes that the archive has at most; its exact size is not published beside the checksum."""

MEMBERS = ("fed_emnist_train.h5", "fed_emnist_test.h5")
CONVERTED = "femnist.npz"
KEYS = ("x", "y", "writer", "split", "writer_names")
SHAPE = (28, 28)
PIECE = 1 << 20

Arrays = dict[str, npt.NDArray[np.generic]]


def find(data_dir: Path | None) -> tuple[Path, str] | None:
    """The converted file, or else the archive, in the places that are searched, with the words for its place."""
    for name in (CONVERTED, ARCHIVE):
        for words, place in search_path(data_dir):
            if (path := place / FOLDER / name).is_file():
                return path, f"{path} ({words})"
    return None


def obtain(data_dir: Path | None, otherwise: str) -> tuple[Path, str]:
    """The converted file and the words for its place. An archive is converted and a missing one downloaded
    first, into the folder of `data_dir`, else into the download folder.

    Raises DataMissing, ending with `otherwise` where there is nothing to fetch; MissingExtra without h5py.
    """
    found = find(data_dir)
    if found is not None and found[0].name == CONVERTED:
        return found
    with needs("femnist", "Converting the data set femnist"):
        import h5py  # noqa: F401  # before some hundred megabytes are fetched for nothing
    folder = (data_dir or cache_folder()) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if found is None:
            fetch_file(ADDRESS, SHA256, LIMIT, folder / ARCHIVE, otherwise)
        else:
            _verify(found[0], SHA256)
        archive = found[0] if found else folder / ARCHIVE
        convert(archive, folder / CONVERTED)
        if found is None:
            archive.unlink()
    except OSError as error:
        raise DataMissing(f"femnist could not be written to {folder} ({error}). {otherwise}") from error
    return folder / CONVERTED, f"{folder / CONVERTED} ({f'from {archive}' if found else 'downloaded'})"


def convert(archive: Path, target: Path) -> None:
    """Writes the arrays of the archive's two HDF5 files to `target`, and their SHA-256 beside it.

    Raises DataMissing where a file is missing in the archive or is not as TensorFlow Federated lays it out.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        files = _unpacked(archive, Path(scratch))
        arrays = _arrays(files, archive)
        whole = Path(scratch) / target.name
        np.savez_compressed(whole, **arrays)  # type: ignore[arg-type]  # stubs see a flag among the arrays
        with placed(_beside(target)) as stream:  # first, so that the arrays are never there without it
            stream.write(f"{file_digest(whole)}  {target.name}\n".encode())
        with placed(target) as stream, whole.open("rb") as source:
            shutil.copyfileobj(source, stream, PIECE)


def read(path: Path) -> Arrays:
    """The arrays of a converted file. Raises DataMissing where it is damaged."""
    try:
        expected = _beside(path).read_text("ascii").partition(" ")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise DataMissing(
            f"{_beside(path)} cannot be read: {error}. Remove {path} and get it again."
        ) from error
    _verify(path, expected)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in KEYS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataMissing(f"{path} cannot be read: {error}. Remove it and get it again.") from error


def _unpacked(archive: Path, folder: Path) -> list[Path]:
    """The two files of the archive, in `folder`; nothing else in it is touched."""
    files = [folder / name for name in MEMBERS]
    try:
        with tarfile.open(archive, "r|bz2") as stream:  # a stream: bz2 is read once, front to end
            for member in stream:
                name = Path(member.name).name
                content = stream.extractfile(member) if name in MEMBERS and member.isfile() else None
                if content is not None:
                    with (folder / name).open("wb") as unpacked:
                        shutil.copyfileobj(content, unpacked, PIECE)
    except (tarfile.TarError, EOFError) as error:
        raise DataMissing(
            f"{archive} is no readable archive: {error}. Remove it and get it again."
        ) from error
    for file in files:
        if not file.is_file():
            raise DataMissing(f"{archive} lacks {file.name}: it is not TensorFlow Federated's FEMNIST.")
    return files


def _arrays(files: list[Path], archive: Path) -> Arrays:
    import h5py

    try:
        with h5py.File(files[0]) as train, h5py.File(files[1]) as test:
            return _gathered([train["examples"], test["examples"]])
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise DataMissing(
            f"{archive} holds no FEMNIST as TensorFlow Federated lays it out: {error}"
        ) from error


def _gathered(parts: list[Any]) -> Arrays:
    """Both HDF5 groups as one set of arrays; ValueError where a writer's images and labels do not fit."""
    names = sorted(set(parts[0]) | set(parts[1]))
    held = [
        (split, index, part[name])
        for split, part in enumerate(parts)
        for index, name in enumerate(names)
        if name in part
    ]
    counts = [len(group["label"]) for _, _, group in held]
    x = np.empty((sum(counts), *SHAPE), dtype=np.uint8)
    y = np.empty(len(x), dtype=np.uint8)
    start = 0
    with progress_bar("femnist: converting", len(held), of_bytes=False) as advance:
        for (_, index, group), count in zip(held, counts, strict=True):
            x[start : start + count], y[start : start + count] = _writer(names[index], group)
            start += count
            advance(1)
    splits, owners = (np.repeat([entry[place] for entry in held], counts) for place in (0, 1))
    return {
        "x": x,
        "y": y,
        "writer": owners.astype(np.uint16),
        "split": splits.astype(np.uint8),
        "writer_names": np.array(names),
    }


def _writer(name: str, group: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    pixels, labels = np.asarray(group["pixels"][()]), np.asarray(group["label"][()]).reshape(-1)
    if pixels.shape != (len(labels), *SHAPE):
        raise ValueError(f"writer {name} has pixels of shape {pixels.shape} and {len(labels)} labels")
    if not ((pixels >= 0) & (pixels <= 1)).all():  # a NaN is not either
        raise ValueError(f"writer {name} has pixels outside [0, 1]")
    if labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < 62):
        raise ValueError(f"writer {name} has labels outside 0 to 61")
    return np.round(pixels * 255).astype(np.uint8), labels.astype(np.uint8)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _verify(path: Path, expected: str) -> None:
    require_digest(file_digest(path), expected, str(path))
