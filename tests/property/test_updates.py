"""Updates: flattening and unflattening any tree of dtypes is the identity; what has no rule is refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocols.errors import Misuse
from protocols.updates import flatten, schema_of, unflatten, walk

DTYPES = ["f2", "f4", "f8", "c8", "c16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "?"]


def arrays() -> st.SearchStrategy[np.ndarray]:
    def of(dtype: str) -> st.SearchStrategy[np.ndarray]:
        kind = np.dtype(dtype)
        finite = {"allow_nan": False, "allow_infinity": False} if kind.kind in "fc" else {}
        shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
        return hnp.arrays(kind, shape, elements=hnp.from_dtype(kind, **finite))

    return st.sampled_from(DTYPES).flatmap(of)


names = st.text("abc.", min_size=1, max_size=4)
trees = st.recursive(
    st.dictionaries(names, arrays(), max_size=4),
    lambda inner: st.dictionaries(names, arrays() | inner, max_size=3),
    max_leaves=8,
)


@given(trees, st.sampled_from(["keep", "sum"]))
def test_unflatten_is_the_inverse_of_flatten(tree: dict, integers: str) -> None:
    schema = schema_of(tree, integers)
    flat = flatten(tree, schema)
    assert flat.vector.dtype == np.float64
    assert flat.vector.shape == (schema.dimension,)
    before, after = dict(walk(tree)), dict(walk(unflatten(flat, schema)))
    assert before.keys() == after.keys()
    for path, array in before.items():
        assert after[path].dtype == array.dtype
        assert after[path].shape == array.shape
        assert after[path].tobytes() == array.tobytes() or (after[path] == array).all()


@given(trees)
def test_schemas_survive_their_encoding(tree: dict) -> None:
    schema = schema_of(tree)
    assert type(schema).decode(schema.encode()) == schema


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8"])
def test_nan_and_infinity_are_refused_with_the_tensors_name(bad: float, dtype: str) -> None:
    tree = {"good": np.zeros(2, "f4"), "layer": {"bias": np.array([0, bad], dtype)}}
    with pytest.raises(Misuse, match=r"layer\.bias"):
        flatten(tree, schema_of(tree))


def test_rank_zero_and_empty_arrays_are_protected_and_kept_in_place() -> None:
    tree = {"scale": np.float32(1.5), "none": np.empty((0, 3), np.float16)}
    schema = schema_of(tree)
    assert schema.dimension == 1
    assert unflatten(flatten(tree, schema), schema)["none"].shape == (0, 3)


def test_every_integer_has_an_explicit_rule() -> None:
    tree = {"bn": {"num_batches_tracked": np.int64(3)}}
    assert schema_of(tree, "sum").counters == 1
    assert schema_of(tree, "keep").counters == 0
    with pytest.raises(Misuse, match=r"bn\.num_batches_tracked"):
        schema_of(tree, "refuse")


@pytest.mark.parametrize(
    "odd", [np.array(["x"]), np.array([object()]), np.array([1], "M8[s]"), np.ones(1, np.longdouble)]
)
def test_dtypes_without_a_rule_are_refused_by_name(odd: np.ndarray) -> None:
    with pytest.raises(Misuse, match="odd"):
        schema_of({"odd": odd})


def test_another_name_dtype_or_shape_is_refused() -> None:
    schema = schema_of({"w": np.zeros((2, 3), "f4")})
    for tree, said in [
        ({"v": np.zeros((2, 3), "f4")}, "missing w, unexpected v"),
        ({"w": np.zeros((2, 3), "f8")}, "expected float32"),
        ({"w": np.zeros((3, 2), "f4")}, r"shape \(3, 2\)"),
        ({}, "missing w"),
    ]:
        with pytest.raises(Misuse, match=said):
            flatten(tree, schema)


def test_what_does_not_fit_its_dtype_is_refused_not_made_infinite() -> None:
    schema = schema_of({"w": np.zeros(1, "f2")})
    flat = flatten({"w": np.zeros(1, "f2")}, schema)
    flat.vector[0] = 1e6
    with pytest.raises(Misuse, match="w: a value does not fit in float16"):
        unflatten(flat, schema)


def test_an_array_of_another_dtype_is_refused_with_its_cure() -> None:
    schema = schema_of({"w": np.zeros(2, np.float32)})
    with pytest.raises(
        Misuse, match=r"w: expected float32 of shape \(2,\), got float64 .*\.astype\('float32'\)"
    ):
        flatten({"w": np.zeros(2)}, schema)
