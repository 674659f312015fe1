"""Who shares a mask with whom. What does not belong here: how many neighbours are needed (`parameters`).

The clients stand on a circle in an order that a seed fixes, and each is joined to its degree/2 successors on
either side (a Harary graph; Bell et al., CCS 2020, section 3.3). The seed must be nobody's choice: `session_rules`
says where it comes from.
"""

import functools

import numpy as np
import numpy.typing as npt

from protocols.errors import Misuse, require
from secagg.masks import expand

_ORDER = b"graph: order"


@functools.lru_cache(maxsize=4)
def permutation(seed: bytes, size: int) -> npt.NDArray[np.int64]:
    """Return a uniform permutation of range(size), (size,) int64, read-only, fixed by a seed of 16 to 64 bytes.

    The clients are sorted by 128-bit words of the seed's stream; two equal words (below size^2 / 2^129) leave them in
    order.
    """
    words = np.frombuffer(expand(seed, _ORDER, 16 * size), dtype="<u8").reshape(size, 2)
    order = np.lexsort((words[:, 1], words[:, 0])).astype(np.int64)
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=4)
def _circle(seed: bytes, size: int) -> tuple[list[int], list[int]]:
    """Return the order on the circle and each client's place in it, as lists: single items are read from them."""
    order = permutation(seed, size)
    return order.tolist(), np.argsort(order).tolist()


def harary(seed: bytes, size: int, degree: int, client: int) -> tuple[int, ...]:
    """Return a client's neighbours, ascending, in a random regular graph on range(size) of even `degree`, or in the
    complete graph if degree >= size - 1.

    Raises Misuse for fewer than 2 clients, another degree, or a client outside range(size).
    """
    require(size >= 2 and degree >= 1, "at least 2 clients and degree 1", f"{size} and {degree}")
    if degree % 2 and degree < size - 1:
        raise Misuse(f"expected an even degree, or all {size - 1} others; got {degree}")
    require(0 <= client < size, f"a client from 0 to {size - 1}", client)
    if degree >= size - 1:
        return (*range(client), *range(client + 1, size))
    order, places = _circle(seed, size)
    place, half = places[client], degree // 2
    if half <= place < size - half:
        return tuple(sorted(order[place - half : place] + order[place + 1 : place + half + 1]))
    return tuple(sorted(order[(place + step) % size] for step in range(-half, half + 1) if step))
