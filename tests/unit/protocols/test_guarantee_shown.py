"""A printed price is never below the price."""

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from protocols.guarantee import Guarantee, rounded_up


@given(st.floats(1e-300, 1e300), st.integers(1, 12))
def test_a_number_is_rounded_up_to_so_many_digits(value: float, digits: int) -> None:
    shown = rounded_up(value, digits)
    assert Fraction(shown) >= Fraction(repr(value))
    assert float(shown) <= value * (1 + 10.0 ** (1 - digits)) * (1 + 1e-15)
    assert len(shown.split("e")[0].replace(".", "").strip("0")) <= digits


def test_a_guarantee_prints_no_less_than_epsilon_and_delta() -> None:
    """3.14119 was printed as 3.141, a delta of 1.2345e-05 as 1.23e-05."""
    line = str(Guarantee("client", "zero-out", "server", 3.14119, 1.23451e-5, "rdp"))
    assert "epsilon 3.142 at delta 1.235e-05" in line
    assert rounded_up(0.0) == "0"
    assert rounded_up(math.inf) == "inf"
    assert rounded_up(1.1, 6) == "1.1"
