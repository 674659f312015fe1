"""A statement in JSON and in prose loses nothing, and its digest is of one canonical form."""

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import Misuse
from protocols.guarantee import Guarantee, price_from_json, price_shown
from protocols.randomness import SystemRandom
from protocols.statement import PrivacyEvent, Protection, Statement, played_here, weakest
from protocols.summation import SecureSum
from secagg import SecAgg, SecAggPlus

PROTECTION = Protection(
    mechanism="masks",
    threat="semi-malicious",
    hidden="each update",
    learns={"server": "the sum", "clients": "the model"},
    assumptions=("CDH on X25519", "the operating system's generator"),
    collusion="4 clients and the server",
    limits=("the sum may reveal an update", "who took part"),
    parameters={"threshold": 7},
)
EVENT = PrivacyEvent("Gaussian", {"sigma": 1.5}, "client", "zero-out", "server", "ann")
LINE = Guarantee("client", "zero-out", "server", 2.5, 1e-5, "rdp", ("clips",))
OTHER = Guarantee("example", "add-remove", "clients", 1.0, 1e-3, "pld")
STATEMENT = Statement(("clips", "masks"), PROTECTION, (EVENT,), ("metrics in clear", "simulated"), (LINE,))
OLD = Path(__file__).parents[2] / "vectors" / "formats"


def as_written() -> dict[str, Any]:
    """Every field; a guarantee's `alone` where it is true."""
    plain = asdict(STATEMENT)
    plain["guarantees"] = [
        {key: value for key, value in line.items() if key != "alone" or value} for line in plain["guarantees"]
    ]
    return plain


def test_json_keeps_every_field_and_its_type() -> None:
    text = json.dumps(STATEMENT.to_json())
    back = Statement.from_json(json.loads(text))
    assert back == STATEMENT
    assert STATEMENT.to_json() == json.loads(json.dumps(as_written()))


def test_a_run_promises_what_all_of_its_sessions_do() -> None:
    numbers: dict[str, Any] = {"least_survivors": 5, "clients": 8, "corrupt": 2}
    few = replace(
        PROTECTION, parameters=numbers, limits=("5 are in every total", "one set-up serves 9 rounds")
    )
    alone = replace(
        PROTECTION,
        collusion="0 clients",
        parameters=numbers | {"least_survivors": 6, "corrupt": 0},
        limits=("a dealer can end it", "one set-up serves 7 rounds"),
    )
    for found in (weakest(few, alone), weakest(alone, None, few)):
        assert found.parameters == numbers | {"corrupt": 0}
        assert found.collusion == "0 clients"
        assert found.limits == (*few.limits, "a dealer can end it")
    assert weakest(few, few) == few
    assert weakest(few, None) == few


def test_what_sessions_on_other_graphs_rest_on_is_told_too() -> None:
    """Of 12 clients all share masks, of 40 each with some: then who draws the graph is trusted."""
    one, other = (session_of(SecAggPlus(), clients) for clients in (12, 40))
    for found in (weakest(one, other), weakest(other, one), weakest(weakest(other, one), other, one)):
        assert found.parameters["least_survivors"] == one.parameters["least_survivors"]
        assert found.mechanism == f"{one.mechanism}; in other sessions {other.mechanism}"
        assert set(found.assumptions) == {*one.assumptions, *other.assumptions}
        assert found.learns == one.learns


def test_a_vote_in_some_sessions_is_not_told_of_all() -> None:
    """Reused keys of 9 clients have no vote and 5 in every total; 7 clients with fresh keys agree on 5."""
    reused, fresh = session_of(SecAgg(setup="reuse"), 9), session_of(SecAgg(), 7)
    numbers = [p.parameters["least_survivors"] for p in (reused, fresh)]
    assert numbers == [5, 5]
    for found in (weakest(reused, fresh), weakest(fresh, reused)):
        assert "; in other sessions the sum over the survivors, who takes part" in found.learns["server"]


def test_the_fewest_survivors_of_encrypted_sums_are_told() -> None:
    """With numbers as a homomorphic sum names them."""
    few, more = (replace(PROTECTION, parameters={"min_survivors": least}) for least in (3, 5))
    assert weakest(few, more) == weakest(more, few) == few


def test_the_weakest_threat_model_is_told() -> None:
    """Sessions of one sum with a roster and without, as a run has them that was resumed with one."""
    strong, weak, none = (
        replace(PROTECTION, threat=threat) for threat in ("malicious", "semi-honest", "none")
    )
    assert {weakest(strong, weak).threat, weakest(weak, strong).threat} == {"semi-honest"}
    assert {weakest(strong, none, weak).threat, weakest(none, none).threat} == {"none"}


def session_of(protocol: SecureSum, clients: int) -> Protection:
    roster = [str(i) for i in range(clients)]
    return protocol.protection(protocol.session(roster, 1, 1, random=SystemRandom()))


@pytest.mark.parametrize(
    "change", [{"version": 3}, {"version": None}, {"colour": 1}, {"protection": {"mechanism": "x"}}]
)
def test_another_version_or_key_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Misuse, match="version"):
        Statement.from_json(STATEMENT.to_json() | change)


@pytest.mark.parametrize("absent", ["version", "protection", "events", "layers", "notes", "guarantees"])
def test_a_missing_key_is_refused_or_its_default(absent: str) -> None:
    data = STATEMENT.to_json()
    del data[absent]
    if absent in ("notes",):
        assert Statement.from_json(data).notes == ()
        return
    with pytest.raises(Misuse, match="version"):
        Statement.from_json(data)


def test_the_digest_is_of_sorted_json_without_blanks() -> None:
    canonical = json.dumps(as_written(), sort_keys=True, separators=(",", ":"))
    assert STATEMENT.digest() == hashlib.sha256(canonical.encode()).digest()
    assert replace(STATEMENT, notes=()).digest() != STATEMENT.digest()
    with pytest.raises(ValueError, match="JSON"):
        replace(STATEMENT, guarantees=(replace(LINE, epsilon=float("nan")),)).digest()


def test_prose_tells_every_fact() -> None:
    lines = STATEMENT.describe().splitlines()
    assert lines[:11] == [
        "Layers before the secure sum: clips, masks",
        "Secure sum: masks (threat model: semi-malicious)",
        "Hidden: each update",
        "server learns: the sum",
        "clients learn: the model",
        "Collusion: 4 clients and the server",
        "Assumes: CDH on X25519",
        "Assumes: the operating system's generator",
        "Not protected: the sum may reveal an update",
        "Not protected: who took part",
        "Note: metrics in clear",
    ]
    assert "epsilon" in lines[-1]
    bare = replace(STATEMENT, layers=(), guarantees=()).describe().splitlines()
    assert bare[0] == "Layers before the secure sum: none; updates enter the sum as they are"
    assert str(STATEMENT) == STATEMENT.describe()
    assert bare[-1] == "Differential privacy: none; the sum itself may reveal an update"


def test_an_infinite_price_is_a_word_in_json_and_in_prose() -> None:
    worthless = replace(STATEMENT, guarantees=(replace(LINE, epsilon=math.inf),))
    data = json.loads(json.dumps(worthless.to_json(), allow_nan=False))
    assert data["guarantees"][0]["epsilon"] == "infinite"
    assert Statement.from_json(data) == worthless
    assert len(worthless.digest()) == 32
    assert "epsilon infinite (the noise protects nobody)" in worthless.describe()


@pytest.mark.parametrize("wrong", ["inf", True, [1], None])
def test_an_epsilon_that_is_no_price_is_refused(wrong: object) -> None:
    data = STATEMENT.to_json()
    data["guarantees"][0]["epsilon"] = wrong
    with pytest.raises(Misuse, match=r"expected epsilon to be a number|no epsilon"):
        Statement.from_json(data)


def test_several_guarantees_are_lines_and_no_number() -> None:
    both = replace(STATEMENT, guarantees=(LINE, OTHER))
    assert Statement.from_json(both.to_json()) == both
    assert both.describe().splitlines()[-2:] == [
        "Differential privacy: epsilon 2.5 at delta 1e-05, per client, zero-out neighbours, by rdp, "
        "against everybody, the server included",
        "Differential privacy: epsilon 1 at delta 0.001, per example, add-remove neighbours, by pld, "
        "against other clients and the public, not the server",
    ]
    with pytest.raises(
        Misuse, match=r"2 guarantees, read .guarantees: epsilon 2.5 .*; epsilon 1 at delta 0.001"
    ):
        both.epsilon  # noqa: B018
    assert STATEMENT.epsilon == 2.5
    assert replace(STATEMENT, guarantees=()).epsilon is None
    assert [price_shown(lines) for lines in ((), (LINE,), (LINE, OTHER))] == [None, 2.5, "several"]


def test_a_statement_of_version_1_is_refused_by_name() -> None:
    with pytest.raises(Misuse, match="expected a statement of version 2, got 1"):
        Statement.from_json(json.loads((OLD / "statement1.json").read_text()))


def test_what_one_process_played_is_said_once() -> None:
    said = played_here(PROTECTION)
    assert said.limits[:2] == PROTECTION.limits
    assert said.limits[2].startswith("simulated parties:")
    assert played_here(said) == said


def test_a_price_is_a_number_a_word_or_nothing() -> None:
    assert price_from_json(None) is None
    assert price_from_json("infinite") == math.inf
    assert price_from_json(1.5) == 1.5
    assert "epsilon 2.5" in STATEMENT.describe()
    assert "infinite" not in STATEMENT.describe()
