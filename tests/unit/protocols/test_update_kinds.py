"""Every kind of array in an update: its rule, its label, its way to reals and back, what does not fit."""

from typing import Any

import numpy as np
import pytest

from protocols.errors import Misuse
from protocols.updates import Flat, flatten, schema_of, unflatten

RULES = {
    "bool": "keep",
    "int8": "sum",
    "uint16": "sum",
    "int64": "sum",
    "float16": "protect",
    "float32": "protect",
    "float64": "protect",
    "complex64": "protect",
    "complex128": "protect",
}


@pytest.mark.parametrize(("dtype", "rule"), RULES.items())
def test_each_kind_has_its_rule_and_comes_back(dtype: str, rule: str) -> None:
    given = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    if given.dtype.kind == "c":
        given = given + (2j * given).astype(dtype)
    schema = schema_of({"a": {"b": given}}, integers="sum", labels={"a.b": "the label"})
    (leaf,) = schema.leaves
    assert (leaf.name, leaf.dtype, leaf.shape, leaf.rule) == ("a.b", dtype, (2, 3), rule)
    assert leaf.label == "the label"
    assert schema_of({"a": given}, integers="sum").leaves[0].label == ""
    back = unflatten(flatten({"a": {"b": given}}, schema), schema)["a"]["b"]
    assert (back.dtype, back.tolist()) == (given.dtype, given.tolist())


@pytest.mark.parametrize(("integers", "rule"), [("keep", "keep"), ("sum", "sum")])
def test_integers_follow_the_choice(integers: str, rule: str) -> None:
    for dtype in ("int32", "uint8"):
        assert schema_of({"n": np.zeros(1, dtype)}, integers=integers).leaves[0].rule == rule
        with pytest.raises(Misuse, match=r"n: integers .* need an explicit rule"):
            schema_of({"n": np.zeros(1, dtype)}, integers="refuse")


@pytest.mark.parametrize("dtype", ["U3", "datetime64[s]", "longdouble", "object"])
def test_other_kinds_have_no_rule(dtype: str) -> None:
    with pytest.raises(Misuse, match="x: no rule for dtype"):
        schema_of({"x": np.zeros(1, dtype)})


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("float16", 65504.0), ("float32", float(np.finfo("f4").max)), ("complex64", float(np.finfo("f4").max))],
)
def test_a_value_that_does_not_fit_is_named_and_the_largest_fits(dtype: str, largest: float) -> None:
    schema = schema_of({"w": np.zeros(2, dtype)})
    size = schema.dimension

    def back(value: float) -> Any:
        return unflatten(Flat(np.full(size, value), np.zeros(0, np.int64), {}), schema)["w"]

    for value in (largest, -largest):
        assert np.isfinite(back(value)).all()
    for value in (largest * 1.1, -largest * 1.1):
        with pytest.raises(Misuse, match=f"w: a value does not fit in {dtype}"):
            back(value)


def test_complex_numbers_of_128_bits_keep_their_range() -> None:
    given = {"w": np.array([1e300 - 1e200j, 0])}
    schema = schema_of(given)
    assert unflatten(flatten(given, schema), schema)["w"].tolist() == given["w"].tolist()


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint16", 0, 65535)])
def test_a_counter_that_does_not_fit_is_named_and_the_largest_fits(dtype: str, low: int, high: int) -> None:
    schema = schema_of({"n": np.zeros(1, dtype)}, integers="sum")
    for value in (low, high):
        flat = Flat(np.zeros(0), np.array([value]), {})
        assert unflatten(flat, schema)["n"].tolist() == [value]
    for value in (low - 1, high + 1):
        with pytest.raises(Misuse, match=f"n: a counter does not fit in {dtype}"):
            unflatten(Flat(np.zeros(0), np.array([value]), {}), schema)
