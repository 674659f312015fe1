"""What the planner gives is enough: sessions of planned parameters end in the exact total when as many leave as
planned, at whatever stage.
"""

import random

import numpy as np
import pytest

from protocols import simulate
from protocols.store import MemoryStore
from secagg import Credentials, SecAggPlus
from secagg.messages import ADVERTISE, CONFIRM, INPUT, SHARE, UNMASK
from secagg.session_rules import rules_of

N, LEAVE = 50, 10
NAMES = [f"c{i:02}" for i in range(N)]
CREDENTIALS = Credentials.simulated(NAMES)


def planned(threat: str, setup: str) -> SecAggPlus:
    known = {"credentials": CREDENTIALS, "beacon": b"light"} if threat == "malicious" else {}
    return SecAggPlus(dropout=0.2, collusion=0.1, threat=threat, setup=setup, **known)  # type: ignore[arg-type]  # options by name


def vectors(round: int) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng([i, round]).integers(-50, 51, 3) for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("threat", "stage"),
    [
        ("semi-honest", INPUT),
        *(("semi-malicious", stage) for stage in (ADVERTISE, SHARE, INPUT, CONFIRM, UNMASK)),
        ("malicious", INPUT),
        ("malicious", CONFIRM),
    ],
)
def test_fresh_sessions_survive_the_planned_drop_outs(threat: str, stage: str) -> None:
    given, gone = vectors(1), set(random.Random(stage).sample(NAMES, LEAVE))
    outcome = simulate(planned(threat, "fresh"), given, {stage: gone}, bound=50)
    assert not rules_of(outcome.session).complete
    assert len(outcome.survivors) == (N if stage in (CONFIRM, UNMASK) else N - LEAVE)
    assert outcome.total.tolist() == sum(given[name] for name in outcome.survivors).tolist()  # type: ignore[union-attr]  # never empty


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious", "malicious"])
def test_reused_keys_survive_them_in_every_round(threat: str) -> None:
    stores = {name: MemoryStore() for name in (*NAMES, "server")}
    protocol = planned(threat, "reuse")
    stages = [ADVERTISE, INPUT, UNMASK, *([CONFIRM] if threat != "semi-honest" else [])]
    gone = set(random.Random(threat).sample(NAMES, LEAVE))  # who missed the set-up is away, whatever it does
    for round, stage in enumerate(stages, start=1):
        given = vectors(round)
        outcome = simulate(protocol, given, {stage: gone}, bound=50, stores=stores, round=round)
        rules = rules_of(outcome.session)
        assert (rules.complete, bool(rules.parameters.epoch)) == (False, round > 1)
        assert rules.agrees == (threat != "semi-honest")
        assert len(outcome.survivors) == N - LEAVE
        assert outcome.total.tolist() == sum(given[name] for name in outcome.survivors).tolist()  # type: ignore[union-attr]  # never empty
