"""Whole sessions of version 3, byte for byte: a change of what is sent or kept is a new version, never an accident."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from secagg import SecAgg
from tests.vectors.secagg.sessions import CASES, DROPS, play

KNOWN = json.loads(Path(__file__).with_name("sessions.json").read_text())


@pytest.mark.parametrize("leaving", DROPS)
@pytest.mark.parametrize("case", CASES)
def test_a_session_on_known_randomness_is_known(case: str, leaving: str) -> None:
    assert play(case, leaving) == KNOWN[case][leaving]


def test_totals_are_those_of_the_vectors() -> None:
    """site-i puts in (k - r) (i + 1) at coordinate k of round r."""
    for case in CASES:
        for leaving, drops in DROPS.items():
            for number, played in enumerate(KNOWN[case][leaving], start=1):
                there = [i for i in range(8) if not (drops and i == 2)]
                assert played["total"] == [sum((k - number) * (i + 1) for i in there) for k in range(5)]


def test_a_session_of_an_older_version_is_refused_by_name() -> None:
    protocol = SecAgg()
    session = protocol.session(["a", "b", "c", "d"], 1, 1, random=SystemRandom())
    assert session.protocol == "secagg/3"
    for old in (1, 2):
        with pytest.raises(Misuse, match=f"expected a session of secagg/3, got one of secagg/{old}"):
            protocol.server(replace(session, protocol=f"secagg/{old}"), random=SystemRandom())
