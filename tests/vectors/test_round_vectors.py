"""Known answers of a round: the bytes that bind it, and what is kept and told of it, key for key.

A change here means that old run folders, or nodes of another version, no longer fit: it takes a new version.
"""

import hashlib
from typing import Any

import numpy as np
import pytest

from fl.round import open_round, reference_of
from fl.round.contribution import encoded
from fl.round.counts import Count
from fl.round.hidden import WITHHELD, is_hidden, withheld
from fl.round.result import RoundResult, Trip
from fl.round.run_files import entry_of, line_of
from protocols.guarantee import Guarantee
from protocols.layers import Block, Contribution, PrivacyLayer, RoundFacts, RunFacts
from protocols.stack import Numbers, Stack

RUN = RunFacts(3, 3, 3, dimension=2, blocks=(Block("control", 2, weighted=False, range=1.0),))
TREE = {"w": np.array([0.5, -0.25], np.float32), "n": np.array([7], np.int64)}
PRICE = Guarantee("client", "zero-out", "server", 1.5, 1e-5, "rdp", ("client-dp",))


def shown(**options: Any) -> Any:
    stack = Stack([], Numbers(range=1.0))
    stack.plan(RUN)
    named: dict[str, Any] = {
        "metrics": ("loss",),
        "counts": (Count("votes", 4),),
        "config": b"lr=0.1",
    } | options
    return open_round(stack, RUN, 2, ("a", "b", "c"), reference_of(TREE, integers="sum"), **named)


def test_digest_and_seed_of_a_round() -> None:
    broadcast = shown()
    assert broadcast.reference.digest.hex() == MODEL
    assert (
        broadcast.plan.facts.seed.hex()
        == hashlib.sha256(
            b"secagg round seed v1\0" + bytes.fromhex(MODEL) + (2).to_bytes(8, "big")
        ).hexdigest()
    )
    assert broadcast.digest.hex() == SHOWN
    assert shown(config=b"lr=0.2").digest != broadcast.digest


def test_the_digest_that_names_an_update() -> None:
    broadcast = shown()
    given = Contribution(
        np.array([0.25, -0.5]), 1, _coordinates(broadcast), {"control": np.array([0.5, 0.0])}
    )
    own = RoundFacts(RUN, 2, ("a", "b", "c"), bytes(32), {}, client="a")
    vector, name = encoded(broadcast, given, own)
    update = b"secagg update v1\0" + broadcast.reference.digest + np.array([0.25, -0.5]).tobytes()
    assert name == hashlib.sha256(update + b"control\0" + np.array([0.5, 0.0]).tobytes()).digest()
    assert vector.dtype == np.int64
    for control in ([0.5, 0], np.array([0.5, 0.0], np.float32)):
        single = Contribution(np.array([0.25, -0.5], np.float32), 1, given.coordinates, {"control": control})  # type: ignore[dict-item]
        assert encoded(broadcast, single, own)[1] == name  # whatever dtype the user's arrays have


def _coordinates(broadcast: Any) -> dict[str, Any]:
    return {c.name: np.zeros(c.size, np.int64) for c in broadcast.plan.summed.coordinates}


def played(**changes: Any) -> RoundResult:
    given: dict[str, Any] = {
        "survivors": ("a", "b"),
        "metrics": {"accuracy": 0.5, "loss": float("nan")},
        "train_metrics": {"loss": float("inf")},
        "clipped_share": 0.25,
        "weights_capped": 1,
        "clipped_tensors": {"w": 2},
        "empty_clients": 0,
        "bytes_up_per_client": 10.0,
        "bytes_down_per_client": 20.0,
        "seconds": {"train": 1.0},
        "guarantees": (PRICE,),
        "session": "ab" * 32,
        "session_number": 9,
        "trips": (Trip("share-keys", 3.0, 1.0, 0.5, 0.25, 3, 2, 100, 200),),
        "refusals": {"c": "PolicyRefusal: no"},
    }
    return RoundResult(2, ("a", "b", "c"), **(given | changes))


def test_what_the_record_keeps_of_a_round() -> None:
    stack = Stack([], Numbers(range=1.0))
    assert entry_of(played(), 3, stack, None) == {
        "round": 2,
        "of": 3,
        "number": 9,
        "session": "ab" * 32,
        "asked": 3,
        "survivors": 2,
        "clipped_share": 0.25,
        "weights_capped": 1,
        "empty_clients": 0,
        "abandoned": None,
        "secure_sum": "none/1",
        "layers": [],
        "epsilon": 1.5,
        "guarantees": [PRICE.to_json()],
    }
    assert "number" not in entry_of(played(session_number=0), 3, stack, None)


def test_a_line_of_metrics() -> None:
    line = line_of(played())
    assert line == {
        "round": 2,
        "accuracy": 0.5,
        "loss": None,
        "train": {"loss": None},
        "asked": 3,
        "survivors": 2,
        "bytes_up_per_client": 10.0,
        "bytes_down_per_client": 20.0,
        "seconds": {"train": 1.0},
        "clipped_share": 0.25,
        "weights_capped": 1,
        "clipped_tensors": {"w": 2},
        "empty_clients": 0,
        "epsilon": 1.5,
        "guarantees": [PRICE.to_json()],
        "abandoned": None,
        "trips": line["trips"],
    }
    assert [(trip["stage"], trip["seconds"]) for trip in line["trips"]] == [("share-keys", 3.0)]


@pytest.mark.parametrize("abandoned", [None, "too few"])
def test_what_is_withheld_of_a_round_with_a_secret_choice(abandoned: str | None) -> None:
    told = withheld(played(abandoned=abandoned))
    assert told == RoundResult(
        2,
        (),
        metrics=told.metrics,
        train_metrics={"loss": float("inf")},
        clipped_share=0.25,
        weights_capped=1,
        clipped_tensors={"w": 2},
        empty_clients=0,
        guarantees=(PRICE,),
        abandoned=None if abandoned is None else WITHHELD,
        withheld=True,
    )
    line, entry = line_of(told), entry_of(told, 3, Stack([]), None)
    for name in ("asked", "survivors", "bytes_up_per_client", "bytes_down_per_client"):
        assert line[name] is None
    assert (entry["asked"], entry["survivors"], entry["session"]) == (None, None, "")
    assert "number" not in entry


class Secret(PrivacyLayer):
    """Toy: its price counts on a secret choice of clients."""

    name = "secret"
    secret_sampling = True


@pytest.mark.parametrize(("sampling", "hidden"), [("all", False), ("fixed", True), ("poisson", True)])
def test_a_choice_is_secret_unless_everybody_is_asked(sampling: str, hidden: bool) -> None:
    run = RunFacts(3, 3, 3, sampling=sampling)
    assert is_hidden(Stack([Secret()]), run) == hidden
    assert not is_hidden(Stack([]), run)


MODEL = "03973d536ea539a0d164408a9aa6311c507f6634604e76a54fcbefac6fb306bf"
SHOWN = "c10412d0d3943858c2c6e37622950a57e0acbfcb77eb42262548d99087b2e42a"
