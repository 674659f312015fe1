"""Updates: a named tree of arrays <-> one flat float vector, integer counters, and a schema. No torch here.

An explicit rule for every dtype: floats of any width and rank (rank 0 included) and complex numbers are
protected, unless the caller says that they do not train; integers are kept (the reference's value stays) or
summed, by explicit choice; booleans are kept; anything else is refused by name, as are NaN and infinity. A dtype
NumPy does not know (bfloat16) is widened by whoever reads it, and named in `Leaf.label` so that it can be narrowed
again (`fl.tensors`).
"""

import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse

Tree = Mapping[str, Any]
RULES = ("protect", "sum", "keep")
STATISTICS = ("running_mean", "running_var")
"""What running statistics are called: means and variances of activations, which noise would make nonsense of."""


@dataclass(frozen=True)
class Leaf(Record):
    """One array: its path in the tree, NumPy dtype, shape, rule and original dtype label.

    rule: "protect" (in the vector), "sum" (integers, exactly) or "keep" (the reference's value stays).
    """

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    rule: str
    label: str = ""

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @functools.cached_property
    def floats(self) -> int:
        """Real coordinates this array takes in the protected vector."""
        return 0 if self.rule != "protect" else self.size * (2 if self.dtype.startswith("complex") else 1)


@dataclass(frozen=True)
class Schema(Record):
    """What every client's update looks like: public, equal for all, part of the session's context."""

    leaves: tuple[Leaf, ...]

    @functools.cached_property
    def dimension(self) -> int:
        """Length of the protected vector."""
        return sum(leaf.floats for leaf in self.leaves)

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of names, shapes and dtypes, without rules: those differ where a round sends counts alone."""
        kept = tuple(replace(leaf, rule="keep") for leaf in self.leaves)
        return hashlib.sha256(Schema(kept).encode()).digest()

    @functools.cached_property
    def counters(self) -> int:
        """Integers that are summed beside it."""
        return sum(leaf.size for leaf in self.leaves if leaf.rule == "sum")

    @functools.cached_property
    def protected(self) -> tuple[Leaf, ...]:
        """The arrays that make up the vector, in its order."""
        return tuple(leaf for leaf in self.leaves if leaf.rule == "protect")

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of protected arrays that hold running statistics, going by their names."""
        return tuple(leaf.name for leaf in self.protected if leaf.name.rpartition(".")[2] in STATISTICS)

    def name_at(self, coordinate: int) -> str:
        """Return the name of the array that holds a coordinate of the protected vector."""
        for leaf in self.leaves:
            if coordinate < leaf.floats:
                return leaf.name
            coordinate -= leaf.floats
        raise Misuse("expected a coordinate of the vector")


@dataclass(frozen=True, eq=False)
class Flat:
    """A flattened tree. vector: float64 [schema.dimension]; counters: int64 [schema.counters]; kept: path
    -> array.
    """

    vector: NDArray[np.float64] = field(repr=False)
    counters: NDArray[np.int64] = field(repr=False)
    kept: dict[tuple[str, ...], NDArray[np.generic]] = field(repr=False)


def walk(tree: Tree, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], NDArray[np.generic]]]:
    """Yield (path, array) for every leaf, in the tree's own order. Raises Misuse for keys that are not strings."""
    for key, value in tree.items():
        if not isinstance(key, str):
            raise Misuse(
                f"expected names as keys of an update, got {key!r} under {'.'.join(prefix) or 'the root'}"
            )
        path = (*prefix, key)
        if isinstance(value, Mapping):
            yield from walk(value, path)
        else:
            yield path, np.asarray(value)


def schema_of(
    tree: Tree,
    integers: str = "keep",
    labels: Mapping[str, str] | None = None,
    rules: Mapping[str, str] | None = None,
) -> Schema:
    """Return the schema of a tree.

    integers: "keep" (the reference's value stays), "sum" (added over the clients in the total) or "refuse".
    labels: name -> original dtype where NumPy has none. rules: name -> its rule, where it is another one than
    "protect" for floats and `integers`. Raises Misuse naming the array for a dtype without a rule.
    """
    if integers not in ("keep", "sum", "refuse"):
        raise Misuse(f'expected integers to be "keep", "sum" or "refuse", got {integers!r}')
    labels, leaves = labels or {}, []
    for path, array in walk(tree):
        name = ".".join(path)
        rule = _rule(name, array.dtype, integers, rules or {})
        leaves.append(Leaf(path, array.dtype.name, array.shape, rule, labels.get(name, "")))
    return Schema(tuple(leaves))


def _rule(name: str, dtype: np.dtype[np.generic], integers: str, rules: Mapping[str, str]) -> str:
    if dtype.kind == "b":
        return "keep"
    if dtype.kind in "iu":
        if integers == "refuse":
            raise Misuse(f'{name}: integers ({dtype}) need an explicit rule; choose integers="keep" or "sum"')
        return rules.get(name, integers)
    if dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128):
        return rules.get(name, "protect")
    raise Misuse(f"{name}: no rule for dtype {dtype}; expected floats of up to 64 bits, integers or booleans")


def flatten(tree: Tree, schema: Schema, finite: bool = True) -> Flat:
    """Return the flat form of a tree that has this schema.

    finite: refuse NaN and infinity in the vector. Raises Misuse for another name, dtype or shape, and for NaN or
    infinity, naming the array.
    """
    arrays = dict(walk(tree))
    expected = {leaf.path for leaf in schema.leaves}
    if arrays.keys() != expected:
        missing, extra = expected - arrays.keys(), arrays.keys() - expected
        raise Misuse(
            f"an update does not match its schema: missing {_names(missing)}, unexpected {_names(extra)}"
        )
    vector, counters = np.empty(schema.dimension), np.empty(schema.counters, np.int64)
    kept: dict[tuple[str, ...], NDArray[np.generic]] = {}
    for leaf, place in _places(schema):
        array = _checked(arrays[leaf.path], leaf)
        if leaf.rule == "protect":
            vector[place] = _reals(array)
        elif leaf.rule == "sum":
            counters[place] = array.reshape(-1)
        else:
            kept[leaf.path] = array
    if finite and not np.isfinite(vector).all():
        name = schema.name_at(int(np.flatnonzero(~np.isfinite(vector))[0]))
        raise Misuse(f"{name}: holds NaN or infinity; the update is refused")
    return Flat(vector, counters, kept)


def unflatten(flat: Flat, schema: Schema) -> dict[str, object]:
    """Inverse of flatten: the tree, each array in its own dtype and shape.

    A protected value beyond its dtype's range raises Misuse naming the array: nothing becomes infinite silently.
    """
    tree: dict[str, object] = {}
    for leaf, place in _places(schema):
        if leaf.rule == "protect":
            array = _from_reals(flat.vector[place], leaf)
        elif leaf.rule == "sum":
            array = _narrow(flat.counters[place], leaf)
        else:
            array = flat.kept[leaf.path]
        _place(tree, leaf.path, array.reshape(leaf.shape))
    return tree


def _places(schema: Schema) -> Iterator[tuple[Leaf, slice]]:
    """Yield every array with its place among the vector's floats, or among the counters."""
    ends: defaultdict[str, int] = defaultdict(int)
    for leaf in schema.leaves:
        start = ends[leaf.rule]
        ends[leaf.rule] += leaf.floats if leaf.rule == "protect" else leaf.size
        yield leaf, slice(start, ends[leaf.rule])


def _names(paths: set[tuple[str, ...]]) -> str:
    return ", ".join(sorted(".".join(path) for path in paths)) or "nothing"


def _checked(array: NDArray[np.generic], leaf: Leaf) -> NDArray[np.generic]:
    if array.dtype.name != leaf.dtype or array.shape != leaf.shape:
        raise Misuse(
            f"{leaf.name}: expected {leaf.dtype} of shape {leaf.shape}, got {array.dtype.name} of shape {array.shape}; "
            f"give every array as the model has it, with .astype({leaf.dtype!r}) where only its dtype differs"
        )
    if leaf.rule == "sum" and array.dtype == np.uint64 and array.size and int(array.max()) >= 1 << 63:
        raise Misuse(f"{leaf.name}: a counter does not fit in 63 bits")
    return array


def _reals(array: NDArray[np.generic]) -> NDArray[np.generic]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _from_reals(values: NDArray[np.float64], leaf: Leaf) -> NDArray[np.generic]:
    dtype = np.dtype(leaf.dtype)
    real = np.dtype(np.float32 if dtype == np.complex64 else np.float64 if dtype.kind == "c" else dtype)
    if values.size and float(np.abs(values).max()) > float(np.finfo(real).max):
        raise Misuse(f"{leaf.name}: a value does not fit in {leaf.dtype}")
    return values.astype(real).view(dtype)


def _narrow(values: NDArray[np.int64], leaf: Leaf) -> NDArray[np.generic]:
    info = np.iinfo(leaf.dtype)
    if values.size and (int(values.min()) < info.min or int(values.max()) > info.max):
        raise Misuse(f"{leaf.name}: a counter does not fit in {leaf.dtype}")
    return values.astype(leaf.dtype)


def _place(tree: dict[str, Any], path: tuple[str, ...], array: NDArray[np.generic]) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = array
