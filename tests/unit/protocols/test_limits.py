"""Limits of the ground floor, each at its edge: what is just allowed passes, what is just beyond is refused."""

import enum
import math
import stat
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import simulate
from protocols.codec import BigInt, Record
from protocols.errors import Aborted, Misuse, PeerError, StackError, WireError
from protocols.extras import EXTRAS, extra_of, missing
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.plain import PlainSum
from protocols.randomness import SystemRandom
from protocols.record import RunRecord, check_files, file_digest, verify_record
from protocols.roundplan import CLIPPED, WEIGHT, RoundPlan
from protocols.runtime import Runtime
from protocols.stack import Numbers, Stack
from protocols.store import AlreadyDone, FileStore, MemoryStore
from protocols.updates import flatten, schema_of, unflatten

AUTHORITY = Identity.generate("authority")
KEYS = [Identity.generate(str(i)).public for i in range(4)]


class TestRosters:
    @pytest.mark.parametrize("name", ["a", "x" * 200, "é" * 200])
    def test_names_of_1_to_200_characters(self, name: str) -> None:
        assert Member(name, "client", KEYS[0]).name == name

    @pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\n" * 150])
    def test_no_other_names(self, name: str) -> None:
        with pytest.raises(Misuse, match="1 to 200 printable"):
            Member(name, "client", KEYS[0])

    def test_who_is_missing_is_named(self) -> None:
        with pytest.raises(PeerError, match="'bob' is not on the roster") as caught:
            Roster.of("f", 1, [Member("ann", "client", KEYS[0])]).member("bob")
        assert caught.value.party == "bob"

    @pytest.mark.parametrize(
        "field, bad", [("serial", "1"), ("serial", True), ("federation", 7), ("format", "x")]
    )
    def test_each_field_has_its_type(self, field: str, bad: object) -> None:
        import json

        signed = SignedRoster.sign(Roster.of("f", 1, [Member("ann", "client", KEYS[0])]), AUTHORITY)
        raw = json.loads(signed.to_json())
        assert SignedRoster.from_json(json.dumps(raw)) == signed
        with pytest.raises(PeerError, match="not a roster"):
            SignedRoster.from_json(json.dumps(raw | {field: bad}))

    def test_a_roster_file_is_public_and_a_key_file_is_not(self, tmp_path: Path) -> None:
        SignedRoster.sign(Roster.of("f", 1, []), AUTHORITY).save(tmp_path / "roster")
        AUTHORITY.save(tmp_path / "key")
        assert stat.S_IMODE((tmp_path / "roster").stat().st_mode) == 0o644
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


class TestStores:
    def test_counters_go_from_1_to_the_largest_of_63_bits(self) -> None:
        store = MemoryStore()
        for value in (1, 2, (1 << 63) - 1):
            store.advance("round", value)
            with store.transaction() as transaction:
                assert transaction.counter("round") == value
        with pytest.raises(AlreadyDone):
            store.advance("round", 1)
        for value in (0, -1, 1 << 63):
            with pytest.raises(Misuse, match="2\\^63"):
                MemoryStore().advance("round", value)

    def test_a_file_store_shows_where_it_lies(self, tmp_path: Path) -> None:
        assert repr(FileStore(tmp_path / "state", "ann")) == f"FileStore({str(tmp_path / 'state')!r}, 'ann')"

    def test_an_update_may_be_sent_again_where_the_policy_allows_it(self) -> None:
        protocol, store = PlainSum(), MemoryStore()
        for allow, error in ((True, None), (True, None), (False, "spent")):
            session = protocol.session(["a", "b"], 1, 5, random=SystemRandom())
            party = Runtime(protocol, session, store, allow_resend=allow)
            asks = protocol.server(session, random=SystemRandom()).send
            party.begin(protocol.client(session, 0, np.array([1]), random=SystemRandom(), update=b"u"))
            if error is None:
                assert len(party.handle(asks[0])) == 1
            else:
                with pytest.raises(Exception, match=error):
                    party.handle(asks[0])


class TestRecords:
    def test_entries_without_files_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "model").write_bytes(b"weights")
        with RunRecord.open(tmp_path / "run.jsonl") as record:
            record.append({"round": 1})
            record.append({"round": 2, "files": {"model": file_digest(tmp_path / "model")}})
        verdict = verify_record(tmp_path / "run.jsonl")
        assert check_files(verdict, tmp_path) == ("model",)

    def test_a_verdict_says_where_the_kept_head_lies_and_whether_it_is_signed(self, tmp_path: Path) -> None:
        heads = []
        with RunRecord.open(tmp_path / "run.jsonl", AUTHORITY) as record:
            heads += [record.append({"round": n}) for n in range(3)]
        path, key = tmp_path / "run.jsonl", AUTHORITY.public
        seen = [
            (verdict.kind if hasattr(verdict, "kind") else astuple(verdict)[0], astuple(verdict)[2])
            for verdict in (
                verify_record(path),
                verify_record(path, kept_head=heads[1].upper()),
                verify_record(path, key),
                verify_record(path, key, heads[2]),
            )
        ]
        assert seen == [
            ("internally consistent only", None),
            ("internally consistent only", 1),
            ("signed", None),
            ("verified", 2),
        ]

    def test_an_abort_tells_its_reason(self) -> None:
        error = Aborted("three are too few")
        assert str(error) == error.reason == "three are too few"


class Shade(enum.Enum):
    DARK = "dark"


@dataclass(frozen=True)
class Many(Record):
    """Lists of the smallest things there are."""

    nothings: list[int | None]
    empties: list[dict[str, int]]
    shades: list[Shade]
    flags: dict[bool, bool]
    big: BigInt


class TestSmallestEncodings:
    """A count is refused where the bytes that came cannot hold so many; the smallest values still fit."""

    def test_lists_of_the_smallest_values_come_back(self) -> None:
        many = Many([None] * 9, [{}] * 9, [Shade.DARK] * 9, {True: False, False: True}, BigInt(-300))
        assert Many.decode(many.encode()) == many

    def test_every_cut_is_refused(self) -> None:
        data = Many([None] * 3, [{}] * 2, [Shade.DARK], {True: False}, BigInt(1)).encode()
        for size in range(len(data)):
            with pytest.raises(WireError):
                Many.decode(data[:size])


class TestStacks:
    def plan(self, dimension: int, cap: int = 9, bits: int = 8, clients: int = 3) -> RoundPlan:
        names = tuple(str(i) for i in range(clients))
        facts = RoundFacts(RunFacts(1, clients, clients, dimension=dimension), 1, names, bytes(32))
        return Stack([], Numbers(bits=bits, range=1.0, weight_cap=cap)).round(facts, np.zeros(dimension))

    @pytest.mark.parametrize(
        "bad", [{"bits": 1}, {"bits": 33}, {"weight_cap": 0}, {"range": 0.0}, {"range": math.inf}]
    )
    def test_numbers_have_limits(self, bad: dict[str, Any]) -> None:
        for good in (
            {"bits": 2},
            {"bits": 32},
            {"weight_cap": 1},
            {"weight_cap": 1 << 24},
            {"range": 1e-300},
        ):
            assert Numbers(**good)  # type: ignore[arg-type]  # one of each
        with pytest.raises(Misuse):
            Numbers(**bad)
        with pytest.raises(Misuse):
            Numbers(weight_cap=(1 << 24) + 1)

    @pytest.mark.parametrize("privacy", ["secagg+", 7, {"secagg"}, PlainSum()])
    def test_layers_come_in_a_list(self, privacy: Any) -> None:
        with pytest.raises(StackError, match=f"got {type(privacy).__name__}"):
            Stack(privacy)

    @pytest.mark.parametrize("weight", [0, 1, 9])
    def test_weights_from_nothing_to_the_cap(self, weight: int) -> None:
        plan = self.plan(2)
        vector = plan.encode(Contribution(np.array([1.0, -0.5]), weight, {}), plan.facts)
        assert vector.dtype == np.int64
        aggregate = plan.decode(vector, ("0",))
        assert aggregate.weight == weight
        np.testing.assert_allclose(
            aggregate.vector, np.array([1.0, -0.5]) * weight, atol=0.02 * max(1, weight)
        )

    @pytest.mark.parametrize("weight", [-1, 10])
    def test_no_other_weights(self, weight: int) -> None:
        plan = self.plan(2)
        with pytest.raises(Misuse, match="weight from 0 to 9"):
            plan.encode(Contribution(np.zeros(2), weight, {}), plan.facts)

    @pytest.mark.parametrize("block", [[10], [-10], [1, 2], []])
    def test_a_coordinate_has_its_size_and_bound(self, block: list[int]) -> None:
        from protocols.layers import Coordinate
        from protocols.roundplan import _values

        known = Coordinate("c", 1, 9)
        for fine in ([9], [-9], [0]):
            assert _values({"c": np.array(fine)}, known).tolist() == fine
        assert _values({}, known).tolist() == [0]
        with pytest.raises(Misuse, match="1 integers within"):
            _values({"c": np.array(block, np.int64)}, known)

    @pytest.mark.parametrize("dimension", [1, 127 * 9, 127 * 9 + 1, 50_000])
    def test_clipped_coordinates_are_counted_in_as_few_digits_as_hold_them(self, dimension: int) -> None:
        plan = self.plan(dimension)
        digits = next(c for c in plan.summed.coordinates if c.name == CLIPPED)
        assert (digits.bound + 1) ** digits.size > dimension
        assert digits.size == 1 or (digits.bound + 1) ** (digits.size - 1) <= dimension
        outside = np.full(dimension, 5.0)
        vector = plan.encode(Contribution(outside, 1, {}), plan.facts)
        assert plan.clipped(plan.decode(vector, ("0",))) == dimension
        assert WEIGHT in {c.name for c in plan.summed.coordinates}


class TestUpdates:
    TREE = {  # noqa: RUF012  # never changed
        "a": np.arange(3, dtype=np.float32),
        "b": {"n": np.array([7, 8], np.uint8), "w": np.array([[10.0], [11.0]])},
        "c": np.array(12 + 13j, np.complex64),
        "d": np.array([9], np.uint8),
        "e": np.array([-5, 6], np.int16),
        "f": np.array([14.0], np.float16),
    }

    def test_values_lie_one_after_another_in_the_schemas_order(self) -> None:
        schema = schema_of(self.TREE, "sum")
        flat = flatten(self.TREE, schema)
        assert flat.vector.tolist() == [0, 1, 2, 10, 11, 12, 13, 14]
        assert flat.counters.tolist() == [7, 8, 9, -5, 6]
        assert [schema.name_at(i) for i in range(8)] == ["a"] * 3 + ["b.w"] * 2 + ["c"] * 2 + ["f"]
        with pytest.raises(Misuse, match="coordinate of the vector"):
            schema.name_at(8)
        back = unflatten(flat, schema)
        assert back["b"]["w"].tolist() == [[10.0], [11.0]]
        assert back["c"] == 12 + 13j
        assert (back["d"].tolist(), back["e"].tolist(), back["f"].tolist()) == ([9], [-5, 6], [14.0])

    @pytest.mark.parametrize(
        "dtype, low, high", [("u1", 0, 255), ("i1", -128, 127), ("u8", 0, (1 << 63) - 1)]
    )
    def test_summed_counters_fill_their_type_and_no_more(self, dtype: str, low: int, high: int) -> None:
        tree = {"n": np.array([low, high], dtype)}
        schema = schema_of(tree, "sum")
        flat = flatten(tree, schema)
        assert unflatten(flat, schema)["n"].tolist() == [low, high]
        for beyond in (low - 1, high + 1):
            if -(1 << 63) <= beyond < 1 << 63:
                flat.counters[:] = [0, beyond]
                with pytest.raises(Misuse, match="n: a counter does not fit"):
                    unflatten(flat, schema)

    def test_counters_of_64_bits_are_refused_where_they_are_summed(self) -> None:
        tree = {"n": np.array([0, 1 << 63], np.uint64)}
        with pytest.raises(Misuse, match="63 bits"):
            flatten(tree, schema_of(tree, "sum"))
        assert flatten(tree, schema_of(tree, "keep")).kept[("n",)].tolist() == [0, 1 << 63]


def test_extras_are_known_by_their_modules() -> None:
    for extra, modules in EXTRAS.items():
        for module in modules:
            assert extra_of(module) == extra_of(f"{module}.part.of.it") == extra
    assert extra_of("numpy") is extra_of("json.decoder") is None
    assert missing("audit") == []


def test_a_role_that_did_nothing_took_and_sent_nothing() -> None:
    outcome = simulate(PlainSum(), [np.ones(2, int)] * 3)
    assert outcome.seconds_of("holder") == outcome.bytes_of("holder") == 0
    assert outcome.bytes_of("client") == sum(t.get("client", 0) for t in outcome.bytes.values()) > 0
