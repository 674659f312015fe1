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
from fl.data.sources import DataFile, Source
from protocols.errors import DataMissing

IDX_UNSIGNED_BYTE = 0x08

_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"


def _idx_files(base: str, sums: tuple[str, str, str, str]) -> tuple[DataFile, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    sizes = (47_040_016, 60_008, 7_840_016, 10_008)
    return tuple(
        DataFile(f"{name}-ubyte", digest, size, f"{base}{name}-ubyte.gz")
        for name, size, digest in zip(names, sizes, sums, strict=True)
    )


FASHION_MNIST = Source(
    "fashion-mnist",
    _idx_files(
        _FASHION,
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "MIT",
)
MNIST = Source(
    "mnist",
    _idx_files(
        _MNIST,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "CC BY-SA 3.0",
)


def fashion_mnist(data_dir: Path | None = None) -> DataSet:
    """60,000 + 10,000 images of clothes, 10 classes (Xiao, Rasul, Vollgraf 2017). Raises DataMissing."""
    return _idx_set("fashion-mnist", FASHION_MNIST, data_dir)


def mnist(data_dir: Path | None = None) -> DataSet:
    """60,000 + 10,000 handwritten digits, 10 classes (LeCun, Cortes, Burges). Raises DataMissing."""
    return _idx_set("mnist", MNIST, data_dir)


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


def _idx_set(name: str, source: Source, data_dir: Path | None) -> DataSet:
    files, where = obtain(source, data_dir)
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
