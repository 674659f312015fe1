"""The public model that a round starts from: a tree of arrays, its flat form, and one digest over every bit of it.

What does not belong here: torch (`fl.tensors`), messages, anything private.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Aborted, Misuse, require
from protocols.updates import Flat, Schema, flatten, schema_of, unflatten, walk

Tree = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Reference:
    """The model that all clients of a round start from.

    tree: its arrays by name; nobody may write to them. flat: the same, flat. digest: SHA-256 over the
    schema and every bit of every array, kept integers and counters included (32 bytes). fixed: names of arrays that no
    round of the run changes and that every client makes for itself: they do not travel, and the digest binds them.
    """

    tree: Tree = field(repr=False)
    schema: Schema = field(repr=False)
    flat: Flat = field(repr=False)
    digest: bytes = field(repr=False)
    fixed: frozenset[str] = frozenset()

    @property
    def shown(self) -> dict[str, NDArray[Any]]:
        """The arrays that travel, by name."""
        named = {".".join(path): array for path, array in walk(self.tree)}
        return {name: array for name, array in named.items() if name not in self.fixed}

    @property
    def size(self) -> int:
        """Bytes of the arrays that travel."""
        return sum(array.nbytes for array in self.shown.values())


def reference_of(tree: Tree, integers: str = "keep", schema: Schema | None = None) -> Reference:
    """Return the reference of a model.

    integers: the rule for integer arrays ("keep", "sum" or "refuse"), where the schema is not given. Raises Misuse by
    name for a dtype without a rule, for NaN and infinity, and for arrays that are not the schema's.
    """
    schema = schema_of(tree, integers) if schema is None else schema
    flat = flatten(tree, schema)
    return Reference(tree, schema, flat, tree_digest(tree, schema))


def tree_digest(tree: Tree, schema: Schema) -> bytes:
    """Return SHA-256 over a schema and every bit of a tree that has it, in little-endian order (32 bytes)."""
    hasher = hashlib.sha256(b"secagg model v1\0" + schema.encode())
    arrays = dict(walk(tree))
    for leaf in schema.leaves:
        array = arrays[leaf.path]
        ordered = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        hasher.update(ordered.reshape(-1).view(np.uint8).data)
    return hasher.digest()


def moved(
    reference: Reference, difference: NDArray[np.float64], counters: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Return the model `reference + difference`, each array in its own dtype and shape.

    counters: the sum of the clients' differences of integer arrays. Raises Aborted for a value beyond its dtype: such
    a sum fits no model.
    """
    before = reference.flat
    try:
        counted = before.counters if counters is None else exact_sum(before.counters, counters)
        return unflatten(Flat(before.vector + difference, counted, before.kept), reference.schema)
    except Misuse as error:
        raise Aborted(f"the sum does not fit the model: {error}") from None


def with_values(flat: Flat, like: Reference) -> Reference:
    """Return a model of other values with the schema of `like`."""
    made = reference_of(dict[str, Any](unflatten(flat, like.schema)), schema=like.schema)
    return replace(made, fixed=like.fixed)


def exact_sum(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a + b. Raises Aborted where a sum leaves 64 bits: NumPy wraps in silence."""
    total = a + b
    if ((a ^ total) & (b ^ total) < 0).any():  # the signs of both terms differ from the sum's
        raise Aborted("the sum does not fit the model: an integer array is counted beyond 64 bits")
    return total


def exact_difference(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a - b. Raises Misuse where a difference leaves 64 bits."""
    difference = a - b
    if ((a ^ b) & (a ^ difference) < 0).any():
        raise Misuse("an integer array changed by more than 64 bits hold")
    return difference


def like(tree: Tree, schema: Schema) -> dict[str, NDArray[Any]]:
    """Return a tree with each array in the schema's dtype: a mean of integers may have become a float.

    Raises Misuse if a name or a shape is another one.
    """
    wanted = {leaf.path[0]: leaf for leaf in schema.leaves}
    if wanted.keys() != tree.keys():
        raise Misuse("the model's names changed between rounds")
    result = {}
    for name, array in tree.items():
        leaf = wanted[name]
        require(array.shape == leaf.shape, f"shape {leaf.shape}", array.shape, name)
        whole = np.dtype(leaf.dtype).kind in "iu" and array.dtype.kind == "f"
        result[name] = (np.rint(array) if whole else array).astype(leaf.dtype)
    return result
