"""Image sets in the IDX format: Fashion-MNIST and MNIST. FEMNIST has a file of its own.

Belongs here: what the bytes mean. Where the files are is in `sources.py`. Every image is (1, 28, 28), ink
1 on paper 0.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.data.dataset import DataSet, Floats, Labels
from fl.data.download import obtain
from fl.data.sources import published
from protocols.errors import DataMissing

IDX_UNSIGNED_BYTE = 0x08


def fashion_mnist(data_dir: Path | None = None) -> DataSet:
    """60,000 + 10,000 images of clothes, 10 classes (Xiao, Rasul, Vollgraf 2017). Raises DataMissing."""
    return _idx_set("fashion-mnist", data_dir)


def mnist(data_dir: Path | None = None) -> DataSet:
    """60,000 + 10,000 handwritten digits, 10 classes (LeCun, Cortes, Burges). Raises DataMissing."""
    return _idx_set("mnist", data_dir)


def read_idx(content: bytes, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes: two zero bytes, the type, the rank, big-endian sizes,
    the values.

    Raises DataMissing where type, rank or length are others.
    """
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, IDX_UNSIGNED_BYTE, dimensions)):
        raise DataMissing(f"Not an IDX file of unsigned bytes with {dimensions} dimensions.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    if len(content) - start != math.prod(shape):
        raise DataMissing(f"An IDX file of shape {shape} has {len(content) - start} values.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _pixels(images: npt.NDArray[np.uint8]) -> Floats:
    scaled: Floats = images[:, np.newaxis].astype(np.float32)
    scaled /= np.float32(255)
    return scaled


def _labels(content: bytes) -> Labels:
    return read_idx(content, 1).astype(np.int64)


def _idx_set(name: str, data_dir: Path | None) -> DataSet:
    files, where = obtain(source := published()[name], data_dir)
    x_train, y_train, x_test, y_test = (files[file.name] for file in source.files)
    return DataSet(
        name,
        _pixels(read_idx(x_train, 3)),
        _labels(y_train),
        _pixels(read_idx(x_test, 3)),
        _labels(y_test),
        10,
        where,
        "pixels divided by 255",
    )
