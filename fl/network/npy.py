"""An array <-> the bytes of an .npy file, as it travels.

What does not belong here: a framework's records, digests (`fl.round.reference`).
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import WireError


def npy(array: NDArray[Any]) -> bytes:
    """Return an array in NumPy's format. Nothing is pickled."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    return stream.getvalue()


def from_npy(name: str, data: bytes) -> NDArray[Any]:
    """Return the array of an .npy file. Raises WireError, before anything is allocated, if it is not plain numbers of
    its own length.
    """
    stream = io.BytesIO(data)
    try:
        major, _ = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, OSError):  # whose text may quote the content
        raise WireError(f"{name}: not an array in NumPy's format") from None
    count = int(np.prod(shape, dtype=object))
    left = len(data) - stream.tell()
    if dtype.hasobject or count * dtype.itemsize != left:
        raise WireError(f"{name}: expected {count} items of {dtype}, {left} bytes came")
    flat = np.frombuffer(data, dtype, count, stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")
