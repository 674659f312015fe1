"""A message as Flower's records: one record where it is small, and nothing read that is not a frame."""

import math
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl.flower.messages import FRAMES, KEY, SMALL, pack, unpack_answer, unpack_request
from fl.network.messages import HELLO, VERSION, Answer, sessionless
from protocols.errors import WireError

HELLO_TO = sessionless(HELLO, "site-1", None)


def test_frames_travel_beside_the_body_and_large_ones_as_arrays() -> None:
    for frames in ([], [b""], [b"a", b"bc"], [bytes(SMALL)], [bytes(SMALL), b"z"], [bytes(3 * SMALL)]):
        packed = pack(HELLO_TO, frames, None)
        assert unpack_request(packed, None)[1] == frames
        assert (FRAMES in packed) == (sum(map(len, frames)) > SMALL)


@pytest.mark.parametrize("frames", ["text", [1, 2], [True], 7, b"frame", None])
def test_frames_of_another_kind_or_in_two_places_are_refused(frames: Any) -> None:
    packed = pack(HELLO_TO, [bytes(SMALL + 1)], None)
    packed[KEY] = ConfigRecord({"body": packed.config_records[KEY]["body"], "frames": frames or []})
    with pytest.raises(WireError, match="another record"):
        unpack_request(packed, None)  # beside the Arrays
    del packed[FRAMES]
    with pytest.raises(WireError):
        unpack_request(packed, None)


@pytest.mark.parametrize("record", [ConfigRecord({"update": [0.1]}), MetricRecord({"update": 0.1})])
def test_no_other_record_travels_under_the_name_of_frames(record: Any) -> None:
    for packed in (pack(HELLO_TO, [b"small"], None), pack(HELLO_TO, [bytes(SMALL + 1)], None)):
        packed[FRAMES] = record
        with pytest.raises(WireError, match="another record"):
            unpack_request(packed, None)


@pytest.mark.parametrize(
    "wrong", [{"name": "0.123"}, {"dtype": "secret"}, {"shape": (1,)}, {"stype": "numpy.ndarray"}]
)
def test_labels_of_large_frames_say_nothing_else(wrong: dict[str, Any]) -> None:
    packed = pack(HELLO_TO, [bytes(SMALL + 1)], None)
    [array] = packed.array_records[FRAMES].values()
    facts = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype, "data": array.data}
    name = wrong.get("name", "000000")
    made = Array(**{**facts, **{key: value for key, value in wrong.items() if key != "name"}})
    packed[FRAMES] = ArrayRecord({name: made})
    with pytest.raises(WireError, match="another record"):
        unpack_request(packed, None)


def test_the_order_and_the_kind_of_records_say_nothing_either() -> None:
    large, small = [bytes(SMALL), b"xyz"], [b"abc"]
    in_large, in_small = pack(HELLO_TO, large, None), pack(HELLO_TO, small, None)
    arrays = in_large.array_records[FRAMES]
    in_large[FRAMES] = ArrayRecord(dict(reversed(list(arrays.items()))))
    body = in_small.config_records[KEY]["body"]
    array = Array("uint8", (3,), "secagg.frame", b"abc")
    outer = pack(HELLO_TO, large, None)
    for packed in (
        in_large,
        RecordDict({FRAMES: outer[FRAMES], KEY: outer[KEY]}),
        RecordDict({KEY: ConfigRecord({"frames": small, "body": body})}),
        RecordDict({KEY: ConfigRecord({"body": body}), FRAMES: ArrayRecord({"000000": array})}),
        RecordDict({KEY: ConfigRecord({"body": pack(HELLO_TO, large, None)[KEY]["body"], "frames": large})}),
    ):
        with pytest.raises(WireError, match="another record"):
            unpack_request(packed, None)


def test_what_came_too_is_named_wherever_it_is() -> None:
    packed = pack(HELLO_TO, [bytes(SMALL + 1)], None)
    packed[FRAMES] = ArrayRecord({**packed.array_records[FRAMES], "x": Array("uint8", (1,), "x", b"1")})
    packed[KEY] = ConfigRecord({**packed.config_records[KEY], "metrics": 1.0})
    with pytest.raises(WireError, match=r"\['metrics', 'x'\] came too"):
        unpack_request(packed, None)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_seconds_that_cannot_be_are_refused(seconds: float) -> None:
    for said in ((seconds, 0.0), (0.0, seconds)):
        answer = Answer(VERSION, bytes(32), "unmask", "site-1", *said, False, 0)
        with pytest.raises(WireError, match="expected seconds of 0 or more"):
            unpack_answer(pack(answer, [], None), None)
