"""Events are frozen and checked; their JSON is strict and goes there and back."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.event_json import decode, encode, from_fact, to_fact, to_plain
from dp.events import (
    Composed,
    CorrelatedRow,
    DiscreteGaussianSum,
    Event,
    Failing,
    FixedSizeGaussian,
    Gaussian,
    Planned,
    PoissonGaussian,
    Pure,
    Relation,
    Repeated,
    Skellam,
    Unit,
    UnknownEvent,
    _number,
    always_asked,
    compose,
    describe,
    flatten,
    repeat,
)
from protocols.errors import Misuse

ZERO_OUT = {"unit": Unit.CLIENT, "relation": Relation.ZERO_OUT}
SAMPLES: list[Event] = [
    Gaussian(noise_multiplier=1.5, **ZERO_OUT),
    PoissonGaussian(noise_multiplier=0.7, sample_rate=0.01, **ZERO_OUT),
    FixedSizeGaussian(noise_multiplier=2.0, population=100, sample_size=10, **ZERO_OUT),
    DiscreteGaussianSum(sensitivity=10.0, share_variance=50.0, shares=8, dims=100, **ZERO_OUT),
    Skellam(l1=30.0, l2=10.0, variance=1e4, shares=8, dims=100, **ZERO_OUT),
    Pure(epsilon=0.5, **ZERO_OUT),
]
SAMPLES += [
    compose(*SAMPLES),
    repeat(SAMPLES[1], 1000),
    repeat(compose(SAMPLES[0], repeat(SAMPLES[5], 3)), 2),
    Planned(epsilon=8.0, delta=1e-5, **ZERO_OUT),
    CorrelatedRow(event=SAMPLES[3], plan="a run", row=7, separation=10, participations=5, **ZERO_OUT),
]


@pytest.mark.parametrize("event", SAMPLES)
def test_json_goes_there_and_back(event: Event) -> None:
    assert decode(encode(event)) == event
    assert encode(decode(encode(event))) == encode(event)
    assert from_fact(to_fact(event, adversary="server", party="a")) == event
    assert describe(event).endswith("per client, zero-out")


@given(
    st.floats(1e-3, 1e6),
    st.floats(0, 1),
    st.sampled_from(Unit),
    st.sampled_from([Relation.ZERO_OUT, Relation.ADD_REMOVE]),
)
def test_floats_survive_exactly(sigma: float, rate: float, unit: Unit, relation: Relation) -> None:
    event = PoissonGaussian(noise_multiplier=sigma, sample_rate=rate, unit=unit, relation=relation)
    assert decode(encode(event)) == event


def altered(**changes: Any) -> str:
    data = json.loads(encode(SAMPLES[1]))
    data.update(changes)
    return json.dumps({key: value for key, value in data.items() if value != "remove"})


@pytest.mark.parametrize(
    "text",
    [
        altered(kind="Laplace"),
        altered(kind=["Gaussian"]),
        altered(kind="Event"),
        altered(version=2),
        altered(version="remove"),
        altered(extra=1),
        altered(sample_rate="remove"),
        altered(sample_rate="0.01"),
        altered(sample_rate=1),
        altered(sample_rate=1.5),
        altered(sample_rate=True),
        altered(noise_multiplier=0.0),
        altered(noise_multiplier=-1.0),
        altered(unit="person"),
        altered(relation=None),
        encode(SAMPLES[1]).replace("0.01", "NaN"),
        encode(SAMPLES[1]).replace("0.01", "Infinity"),
        encode(SAMPLES[1])[:-1] + ',"unit":"client"}',
        encode(SAMPLES[1]) + " ,",
        encode(SAMPLES[7]).replace("1000", "-1"),
        encode(SAMPLES[7]).replace("1000", "1e3"),
        encode(SAMPLES[6]).replace('"parts":[', '"parts":["x",'),
        "[]",
        "",
        "null",
    ],
)
def test_anything_not_exact_is_refused(text: str) -> None:
    with pytest.raises(Misuse):
        decode(text)


def test_depth_and_length_are_bounded() -> None:
    event: Event = SAMPLES[0]
    for _ in range(40):
        event = repeat(event, 1)
    with pytest.raises(Misuse, match="deep"):
        decode(encode(event))
    with pytest.raises(Misuse, match="characters"):
        decode(" " * 4_000_001)


def test_unknown_kinds_say_so() -> None:
    with pytest.raises(UnknownEvent, match="Laplace"):
        decode(altered(kind="Laplace"))
    with pytest.raises(UnknownEvent):
        list(flatten("gaussian"))  # type: ignore[arg-type]


def test_a_subclass_is_not_an_event() -> None:
    class Quiet(Gaussian):
        pass

    quiet = Quiet(noise_multiplier=1.0, **ZERO_OUT)
    with pytest.raises(UnknownEvent):
        encode(quiet)
    with pytest.raises(UnknownEvent):
        list(flatten(quiet))
    with pytest.raises(UnknownEvent):
        repeat(quiet, 2)


def test_events_are_frozen_and_checked() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLES[0].unit = Unit.EXAMPLE  # type: ignore[misc]
    for make in (
        lambda: Gaussian(noise_multiplier=math.nan, **ZERO_OUT),
        lambda: Gaussian(noise_multiplier=True, **ZERO_OUT),
        lambda: Gaussian(noise_multiplier="1", **ZERO_OUT),  # type: ignore[arg-type]
        lambda: Gaussian(noise_multiplier=1.0, unit="client", relation=Relation.REPLACE),  # type: ignore[arg-type]
        lambda: FixedSizeGaussian(
            noise_multiplier=1.0, population=5, sample_size=2, unit=Unit.CLIENT, relation=Relation.ADD_REMOVE
        ),
        lambda: FixedSizeGaussian(noise_multiplier=1.0, population=5, sample_size=6, **ZERO_OUT),
        lambda: Skellam(l1=1.0, l2=2.0, variance=10.0, shares=1, dims=1, **ZERO_OUT),
        lambda: DiscreteGaussianSum(sensitivity=1.0, share_variance=0.3, shares=2, dims=1, **ZERO_OUT),
        lambda: DiscreteGaussianSum(
            sensitivity=1.0, share_variance=3.0, shares=2, dims=1, sampler_distance=0.1, **ZERO_OUT
        ),
        lambda: compose(),
        lambda: compose(
            SAMPLES[0], Gaussian(noise_multiplier=1.0, unit=Unit.EXAMPLE, relation=Relation.ZERO_OUT)
        ),
        lambda: Composed(parts=[SAMPLES[0]], **ZERO_OUT),  # type: ignore[arg-type]
        lambda: Repeated(event=SAMPLES[0], count=True, **ZERO_OUT),
    ):
        with pytest.raises(Misuse):
            make()


def test_a_whole_number_stands_for_the_same_event() -> None:
    one = Gaussian(noise_multiplier=1, **ZERO_OUT)
    assert one == Gaussian(noise_multiplier=1.0, **ZERO_OUT)
    assert encode(one) == encode(Gaussian(noise_multiplier=1.0, **ZERO_OUT))


def test_flatten_multiplies_counts() -> None:
    inner = compose(SAMPLES[0], repeat(SAMPLES[5], 3))
    assert list(flatten(repeat(inner, 4), 2)) == [(SAMPLES[0], 8), (SAMPLES[5], 24)]
    assert list(flatten(repeat(inner, 0))) == []


def test_descriptions_say_how_often_and_what() -> None:
    event = repeat(compose(SAMPLES[0], repeat(SAMPLES[5], 3)), 4)
    assert (
        describe(event)
        == "4 x Gaussian(noise_multiplier=1.5) and 12 x Pure(epsilon=0.5) per client, zero-out"
    )
    assert describe(repeat(event, 0)) == "nothing per client, zero-out"


def test_tau_bounds_its_own_sum() -> None:
    few = DiscreteGaussianSum(sensitivity=1.0, share_variance=0.5, shares=1000, dims=1, **ZERO_OUT)
    many = dataclasses.replace(few, shares=2000)
    exact = 10 * sum(math.exp(-(math.pi**2) * k / (k + 1)) for k in range(1, 2000))
    assert exact <= many.tau <= exact * 1.01
    assert dataclasses.replace(few, shares=1).tau == 0.0


def test_who_was_surely_asked_pays_without_the_sampling_of_clients() -> None:
    sure = Gaussian(noise_multiplier=0.7, **ZERO_OUT)
    poisson = PoissonGaussian(noise_multiplier=0.7, sample_rate=0.01, **ZERO_OUT)
    fixed = FixedSizeGaussian(noise_multiplier=0.7, population=100, sample_size=10, **ZERO_OUT)
    discrete = DiscreteGaussianSum(
        sensitivity=10.0, share_variance=50.0, shares=8, dims=100, sample_rate=0.1, **ZERO_OUT
    )
    skellam = Skellam(l1=30.0, l2=10.0, variance=1e4, shares=8, dims=100, sample_rate=0.1, **ZERO_OUT)
    assert [always_asked(event) for event in (sure, poisson, fixed)] == [sure] * 3
    for event in (discrete, skellam):
        assert always_asked(event) == dataclasses.replace(event, sample_rate=1.0)
    assert always_asked(repeat(compose(poisson, fixed), 3)) == repeat(compose(sure, sure), 3)
    own = PoissonGaussian(
        noise_multiplier=0.7, sample_rate=0.01, unit=Unit.EXAMPLE, relation=Relation.ADD_REMOVE
    )
    assert always_asked(own) == own  # a client's own choice of its examples is nobody else's word


def test_the_canonical_text_of_an_event() -> None:
    text = '{"kind":"PoissonGaussian","noise_multiplier":0.7,"relation":"zero-out","sample_rate":0.01,"unit":"client",'
    assert encode(SAMPLES[1]) == text + '"version":1}'
    fact = to_fact(SAMPLES[1])
    assert (fact.kind, fact.unit, fact.relation, fact.adversary, fact.party) == (
        "PoissonGaussian", "client", "zero-out", "public", "",
    )  # fmt: skip
    assert fact.facts == {"noise_multiplier": 0.7, "sample_rate": 0.01}
    assert {type(value) for value in to_plain(SAMPLES[1]).values()} == {str, float}
    told = to_fact(SAMPLES[1], "server", "a")
    assert (told.adversary, told.party) == ("server", "a")
    loose = Gaussian(noise_multiplier=1.0, **ZERO_OUT)
    object.__setattr__(loose, "noise_multiplier", math.inf)
    with pytest.raises(ValueError, match="JSON"):
        encode(loose)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "expected an event with version 1"),
        ("{}", "expected an event with version 1"),
        ("{", "expected the JSON of an event"),
        (altered(version=2), "expected an event with version 1"),
        (altered(kind="remove"), "expected one of Gaussian, .*got None"),
        (altered(kind=["Gaussian"]), "expected one of Gaussian"),
        (
            altered(extra=1),
            r"expected exactly the fields \['noise_multiplier', 'relation', 'sample_rate', 'unit'\] for",
        ),
        (altered(unit="person"), "unit: expected one of"),
        (altered(relation=["zero-out"]), "relation: expected one of"),
        (altered(sample_rate=True), "sample_rate: expected a JSON value of type float"),
        (encode(SAMPLES[1]).replace("0.01", "NaN"), "expected finite numbers, got NaN"),
        (encode(SAMPLES[1])[:-1] + ',"unit":"client"}', "every key of a JSON object once"),
        (json.dumps(json.loads(encode(SAMPLES[6])) | {"parts": {"0": {}}}), "expected a JSON list of events"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text: str, why: str) -> None:
    with pytest.raises(Misuse, match=why):
        decode(text)


def nested(depth: int, kind: str) -> Event:
    event: Event = SAMPLES[0]
    for _ in range(depth):
        event = repeat(event, 1) if kind == "repeat" else compose(event)
    return event


@pytest.mark.parametrize("kind", ["repeat", "compose"])
def test_events_are_nested_sixteen_deep_at_most(kind: str) -> None:
    assert decode(encode(nested(16, kind))) == nested(16, kind)
    with pytest.raises(Misuse, match="nested at most 16 deep"):
        decode(encode(nested(17, kind)))


def test_the_longest_text_is_four_million_characters() -> None:
    text = encode(SAMPLES[0])
    assert decode(text + " " * (4_000_000 - len(text))) == SAMPLES[0]
    with pytest.raises(Misuse, match="at most 4000000 characters, got 4000001"):
        decode(text + " " * (4_000_001 - len(text)))


def test_a_number_of_an_event_has_a_range_and_perhaps_a_default() -> None:
    bare, given = _number(1, 2), _number(0.0, 1.0, 0.5)
    assert (bare.default, given.default) == (dataclasses.MISSING, 0.5)
    assert (bare.metadata, given.metadata) == ({"range": (1, 2)}, {"range": (0.0, 1.0)})


def test_numbers_at_the_ends_of_their_ranges_are_taken() -> None:
    for rate in (0.0, 1.0):
        PoissonGaussian(noise_multiplier=1.0, sample_rate=rate, **ZERO_OUT)
    assert FixedSizeGaussian(noise_multiplier=1.0, population=5, sample_size=5, **ZERO_OUT).sample_size == 5
    assert Gaussian(noise_multiplier=2**53 - 1, **ZERO_OUT).noise_multiplier == 2.0**53 - 1
    for many in (2**53, 2**60):
        with pytest.raises(Misuse, match="expected a float from"):
            Gaussian(noise_multiplier=many, **ZERO_OUT)
    for whole in (1.0, True, "1"):
        with pytest.raises(Misuse, match=r"FixedSizeGaussian\.population: expected a int from 1 to"):
            FixedSizeGaussian(noise_multiplier=1.0, population=whole, sample_size=1, **ZERO_OUT)  # type: ignore[arg-type]
    for unit, relation in (("client", Relation.REPLACE), (Unit.CLIENT, "replace")):
        with pytest.raises(Misuse, match="expected a Unit and a Relation"):
            Gaussian(noise_multiplier=1.0, unit=unit, relation=relation)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("l2", "fits"), [(3.0, True), (3.0 * (1 + 0.9e-9), True), (3.0 * (1 + 1.1e-9), False)]
)
def test_an_l2_norm_is_at_most_the_l1_norm_but_for_rounding(l2: float, fits: bool) -> None:
    def make() -> Skellam:
        return Skellam(l1=3.0, l2=l2, variance=1e4, shares=1, dims=1, **ZERO_OUT)

    if fits:
        assert make().l2 == l2
    else:
        with pytest.raises(Misuse, match="never exceeds the L1 norm"):
            make()


def test_the_name_of_a_correlated_plan_is_short_text() -> None:
    row = {"event": SAMPLES[3], "row": 7, "separation": 10, "participations": 5, **ZERO_OUT}
    assert len(CorrelatedRow(plan="x" * 64, **row).plan) == 64  # type: ignore[arg-type]
    for plan in ("x" * 65, 3, None):
        with pytest.raises(Misuse, match="plan's name of at most 64 characters"):
            CorrelatedRow(plan=plan, **row)  # type: ignore[arg-type]


def test_parts_are_a_tuple_and_at_least_one() -> None:
    for parts in ((), [SAMPLES[0]]):
        with pytest.raises(Misuse, match="tuple of at least one event"):
            Composed(parts=parts, **ZERO_OUT)  # type: ignore[arg-type]


def test_what_was_surely_asked_keeps_its_rows_and_loses_its_failures() -> None:
    poisson = PoissonGaussian(noise_multiplier=0.7, sample_rate=0.01, **ZERO_OUT)
    sure = Gaussian(noise_multiplier=0.7, **ZERO_OUT)
    row = CorrelatedRow(event=poisson, plan="a run", row=7, separation=10, participations=5, **ZERO_OUT)
    assert always_asked(row) == dataclasses.replace(row, event=sure)
    assert always_asked(Failing(event=poisson, probability=0.5, **ZERO_OUT)) == sure
    assert always_asked(SAMPLES[5]) == SAMPLES[5]


def test_once_is_not_counted_aloud_and_twice_is() -> None:
    for count, said in ((1, ""), (2, "2 x ")):
        assert describe(repeat(SAMPLES[5], count)) == f"{said}Pure(epsilon=0.5) per client, zero-out"
    assert list(flatten(SAMPLES[5])) == list(flatten(repeat(SAMPLES[5], 1))) == [(SAMPLES[5], 1)]
    assert (
        describe(SAMPLES[1]) == "PoissonGaussian(noise_multiplier=0.7, sample_rate=0.01) per client, zero-out"
    )
