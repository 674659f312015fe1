"""Whatever text comes, an event's decoder gives an event that encodes to one canonical text, or refuses
with a typed error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.event_json import decode, encode
from dp.events import KINDS, Gaussian, Relation, Unit, compose, repeat
from protocols.errors import Misuse

GAUSS = Gaussian(noise_multiplier=1.5, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
SEEDS = [encode(GAUSS), encode(repeat(compose(GAUSS, GAUSS), 3))]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(sorted(KINDS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def decoded_or_refused(text: str) -> bool:
    """Whether a text is refused as ours, or is an event that its own text gives again."""
    try:
        event = decode(text)
    except Misuse:
        return True
    return decode(encode(event)) == event


@pytest.mark.parametrize("name", ["unit", "relation"])
@pytest.mark.parametrize("value", [[], {}, None, 1, "client "])
def test_a_unit_or_relation_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(Misuse, match=f"{name}: expected one of"):
        decode(json.dumps({**json.loads(SEEDS[0]), name: value}))


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text(text: str) -> None:
    assert decoded_or_refused(text)


@given(st.sampled_from(SEEDS), st.integers(0, 200), st.integers(0, 20), st.text(max_size=6))
@settings(max_examples=500, deadline=None)
def test_damaged_texts(text: str, at: int, length: int, put: str) -> None:
    assert decoded_or_refused(text[:at] + put + text[at + length :])


@given(
    st.sampled_from(sorted(KINDS)),
    st.dictionaries(
        st.sampled_from(
            [
                "unit",
                "relation",
                "noise_multiplier",
                "sample_rate",
                "count",
                "event",
                "parts",
                "epsilon",
                "dims",
                "x",
            ]
        ),
        values,
        max_size=6,
    ),
)
@settings(max_examples=500, deadline=None)
def test_made_up_objects(kind: str, fields: dict[str, object]) -> None:
    assert decoded_or_refused(json.dumps({**fields, "kind": kind, "version": 1}))
