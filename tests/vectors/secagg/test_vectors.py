"""Known answers for the parts of masked sums and the bytes of every message, with cases that must be
refused.

The files were made by an independent implementation; a change of any of these bytes is a new version, never
an accident.
"""

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import agreement, roles
from protocols.codec import Record
from protocols.errors import Misuse, ProtocolViolation, SecAggError, WireError
from protocols.kernel import State
from protocols.key_agreement import PairKeys, info
from secagg import messages, shamir
from secagg.masks import add_mask, expand
from secagg.memory import ratchet
from secagg.seeds import edge_mask_seed, self_mask_seed

HERE = Path(__file__).parent
PARTS: dict[str, Any] = json.loads((HERE / "primitives.json").read_text())
MESSAGES: dict[str, dict[str, str]] = json.loads((HERE / "messages.json").read_text())["messages"]
BAD = [(name, case) for name, cases in MESSAGES.items() for case in cases if case.startswith("bad_")]
SPOKEN = (messages, agreement, roles)
h = bytes.fromhex


@pytest.mark.parametrize("v", PARTS["keys"])
def test_keys(v: dict[str, str]) -> None:
    assert info(v["purpose"], v["owner"], v["peer"]) == h(v["info"])
    keys = PairKeys(h(v["private"]), v["owner"], h(v["session"]))
    assert keys.agree(v["peer"], h(v["peer_public"]), v["purpose"]) == h(v["key"])


@pytest.mark.parametrize("v", PARTS["bad_keys"], ids=lambda v: v["why"])
def test_bad_keys(v: dict[str, str]) -> None:
    with pytest.raises(ProtocolViolation):
        PairKeys(h(v["private"]), "a", bytes(32)).agree("b", h(v["peer_public"]), "pair mask")


@pytest.mark.parametrize("v", PARTS["streams"])
def test_streams(v: dict[str, str]) -> None:
    assert expand(h(v["seed"]), h(v["purpose"]), len(h(v["stream"]))) == h(v["stream"])


@pytest.mark.parametrize("v", PARTS["bad_streams"], ids=lambda v: v["why"])
def test_bad_streams(v: dict[str, str]) -> None:
    with pytest.raises(Misuse):
        expand(h(v["seed"]), h(v["purpose"]), 1)


@pytest.mark.parametrize("v", PARTS["masks"])
def test_masks(v: dict[str, Any]) -> None:
    words = np.zeros(len(v["mask"]), v["dtype"])
    add_mask(words, h(v["seed"]))
    assert words.tolist() == v["mask"]


def test_seeds_of_masks() -> None:
    for v in PARTS["self_mask_seeds"]:
        assert self_mask_seed(h(v["seed"]), h(v["context"]), v["owner"]) == h(v["mask_seed"])
    for v in PARTS["edge_mask_seeds"]:
        assert edge_mask_seed(h(v["edge"]), h(v["context"]), v["one"], v["other"]) == h(v["mask_seed"])


def test_ratchet() -> None:
    v = PARTS["ratchet"]
    assert ratchet(h(v["chain"]), 1) == h(v["after_1"])
    assert ratchet(h(v["chain"]), 3) == h(v["after_3"])


@pytest.mark.parametrize("v", PARTS["shamir"])
def test_shamir(v: dict[str, Any]) -> None:
    shares = {int(p): h(s) for p, s in v["shares"].items()}
    points = sorted(shares)
    for start in range(len(points) - v["threshold"] + 1):
        some = {p: shares[p] for p in points[start : start + v["threshold"]]}
        assert shamir.combine(some, len(h(v["secret"]))) == h(v["secret"])


@pytest.mark.parametrize("v", PARTS["bad_shamir"], ids=lambda v: v["why"])
def test_bad_shamir(v: dict[str, Any]) -> None:
    with pytest.raises(SecAggError):
        shamir.combine({int(p): h(s) for p, s in v["shares"].items()}, v["length"])


def kind_of(name: str) -> type[Record]:
    found = next(getattr(where, name) for where in SPOKEN if hasattr(where, name))
    assert issubclass(found, Record)
    return found


def test_there_is_a_vector_for_every_message() -> None:
    defined = {
        name
        for module in SPOKEN
        for name, kind in vars(module).items()
        if not name.startswith("_")
        and isinstance(kind, type)
        and issubclass(kind, Record)
        and not issubclass(kind, State)
        and is_dataclass(kind)
        and kind.__module__ == module.__name__
    }
    assert defined == set(MESSAGES)
    assert all(any(case.startswith("bad_") for case in cases) for cases in MESSAGES.values())


@pytest.mark.parametrize("name", MESSAGES)
def test_good_messages(name: str) -> None:
    for good in (h(data) for case, data in MESSAGES[name].items() if case.startswith("good")):
        assert kind_of(name).decode(good).encode() == good


@pytest.mark.parametrize("name, case", BAD)
def test_bad_messages(name: str, case: str) -> None:
    with pytest.raises(WireError):
        kind_of(name).decode(h(MESSAGES[name][case]))


@pytest.mark.parametrize("name", MESSAGES)
def test_every_truncation_is_refused(name: str) -> None:
    good = h(MESSAGES[name]["good"])
    for size in range(len(good)):
        with pytest.raises(WireError):
            kind_of(name).decode(good[:size])
