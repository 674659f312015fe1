"""FEMNIST: handwritten characters with their writers, who are the natural clients, in two editions.

Belongs here: which edition is taken, and how its arrays become a `DataSet`. Turning the publisher's files
into these arrays is in `femnist_tff.py`.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.data import femnist_tff
from fl.data.dataset import DataSet, Floats
from fl.data.download import obtain
from fl.data.sources import find, published, search_path
from protocols.errors import DataMissing, Misuse

CLASSES = 62
"""0-9, then A-Z, then a-z, in both editions."""

SAMPLE = published()["femnist"]
LICENCE = "public domain images (NIST SD 19); selections: LEAF BSD-2-Clause, TensorFlow Federated Apache-2.0"
EDITIONS = ("leaf-sample", "tff")

Arrays = dict[str, npt.NDArray[np.generic]]


def femnist(data_dir: Path | None = None, edition: str | None = None, writers: int | None = None) -> DataSet:
    """Handwritten characters, (1, 28, 28), 62 classes, whose natural clients are the writers.

    `edition` is `leaf-sample` (LEAF's, 28,237 + 8,159 images of 377 writers, 170 of them in the test only;
    Caldas et al. 2018) or `tff` (all 671,585 + 77,483 images of the 3,400 writers in TensorFlow Federated's
    version, downloaded and converted once); None takes the sample where it is found, else `tff`. `writers`
    keeps so many writers, the first by name: all images of `tff` need about 5 GB of memory while they are
    read. The published ink is 0 on paper 1; it is inverted here, so that all image sets agree.

    Raises DataMissing, Misuse for another edition or number of writers, MissingExtra where `tff` must be
    converted without h5py.
    """
    if edition not in (None, *EDITIONS):
        raise Misuse(f"femnist: edition is {' or '.join(EDITIONS)}; not {edition!r}.")
    if writers is not None and (type(writers) is not int or writers < 1):
        raise Misuse(f"femnist: writers is a whole number from 1; not {writers!r}.")
    if edition == "leaf-sample" or (edition is None and find(SAMPLE, data_dir)):
        content, where = obtain(SAMPLE, data_dir)
        with np.load(io.BytesIO(content[SAMPLE.files[0].name]), allow_pickle=False) as stored:
            return _set({key: stored[key] for key in femnist_tff.KEYS}, where, writers)
    path, where = femnist_tff.obtain(data_dir, _missing(data_dir, edition))
    return _set(femnist_tff.read(path), where, writers)


def at_hand(data_dir: Path | None) -> str | None:
    """The place that `femnist` without options would be read from, or None. Nothing is read or downloaded."""
    found = find(SAMPLE, data_dir) or femnist_tff.find(data_dir)
    return found[1] if found else None


def _missing(data_dir: Path | None, edition: str | None) -> str:
    folders = (femnist_tff.FOLDER,) if edition else (SAMPLE.folder, femnist_tff.FOLDER)
    looked = ", ".join(
        f"{place / folder} ({words})" for words, place in search_path(data_dir) for folder in folders
    )
    sample = "" if edition else f"{SAMPLE.folder}/{SAMPLE.files[0].name} (a sample of LEAF's) or "
    return (
        f"The data set femnist is in none of: {looked}. Name a folder that holds {sample}"
        f"{femnist_tff.FOLDER}/{femnist_tff.ARCHIVE} with --data-dir or SECAGG_DATA, or let "
        "`secagg data get femnist` download it."
    )


def _set(arrays: Arrays, where: str, writers: int | None) -> DataSet:
    names = tuple(str(name) for name in arrays["writer_names"])
    owner = arrays["writer"].astype(np.int64)
    if writers is not None and writers > len(names):
        raise Misuse(f"femnist: {where} has {len(names)} writers; {writers} were asked for.")
    kept = sorted(range(len(names)), key=names.__getitem__)[:writers]
    if writers is not None:
        place = np.full(len(names), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        owner, names = place[owner], tuple(names[index] for index in kept)
    rows = [np.flatnonzero((arrays["split"] == part) & (owner >= 0)) for part in (0, 1)]
    if not all(part.size for part in rows):
        raise Misuse(f"femnist: these {writers} writers have no training or no test images; take more.")
    x = [_inverted(arrays["x"][part]) for part in rows]
    y = [arrays["y"][part].astype(np.int64) for part in rows]
    done = "pixels divided by 255, ink inverted to 1"
    parts = (x[0], y[0], x[1], y[1], CLASSES, where, done, owner[rows[0]], owner[rows[1]], names)
    return DataSet("femnist", *parts)


def _inverted(images: npt.NDArray[np.generic]) -> Floats:
    """Ink 1 on paper 0, float32, shape (N, 1, 28, 28); one copy, as the whole set is 2 GB."""
    if images.dtype != np.uint8 or images.shape[1:] != femnist_tff.SHAPE:
        raise DataMissing(
            f"femnist: expected images of 28x28 bytes; found {images.dtype} of shape {images.shape[1:]}."
        )
    scaled: Floats = images[:, np.newaxis].astype(np.float32)
    scaled /= np.float32(255)
    np.subtract(np.float32(1), scaled, out=scaled)
    return scaled
