"""Everything that all clients must have been shown alike is in the digest that enters the session."""

import hashlib
from collections.abc import Mapping

import numpy as np

from protocols.layers import PrivacyLayer, RoundFacts, RunFacts
from protocols.public_values import PublicValues
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack

MODEL = b"m" * 32
PLAIN = Numbers(range=1.0)


class Quiet(PrivacyLayer):
    """Changes nothing, and broadcasts one number."""

    def __init__(self, name: str = "quiet", clip: float = 1.0) -> None:
        self.name, self.clip = name, clip
        self.planned: RunFacts | None = None
        self.seen: list[RoundFacts] = []

    def plan(self, run: RunFacts) -> None:
        self.planned = run

    def public(self) -> dict[str, float]:
        return {"clip": self.clip}

    def transform(self, given, facts):  # type: ignore[no-untyped-def]  # a toy layer
        self.seen.append(facts)
        return given


def planned(
    numbers: Numbers = PLAIN,
    public: Mapping[str, Mapping[str, float]] | None = None,
    *layers: PrivacyLayer,
) -> RoundPlan:
    facts = RoundFacts(RunFacts(2, 3, 3, dimension=4), 1, ("a", "b", "c"), bytes(32), public or {})
    return Stack(list(layers), numbers).round(facts, np.zeros(4))


def test_every_part_changes_the_digest() -> None:
    plans = [
        planned(),
        planned(Numbers(bits=12, range=1.0)),
        planned(Numbers(range=2.0)),
        planned(Numbers(range=1.0, weight_cap=1)),
        planned(Numbers(range=1.0, weight_cap=9)),
        planned(PLAIN, {"quiet": {"clip": 1.0}}),
        planned(PLAIN, {"quiet": {"clip": 1.5}}),
        planned(PLAIN, None, Quiet()),
        planned(PLAIN, None, Quiet("still")),
        planned(PLAIN, None, Quiet(), Quiet("still")),
    ]
    digests = {plan.digest(MODEL) for plan in plans} | {planned().digest(b"n" * 32)}
    assert len(digests) == len(plans) + 1
    assert planned().digest(MODEL) == plans[0].digest(MODEL)


def test_the_digest_is_these_bytes() -> None:
    import protocols.roundplan as roundplan

    plan = planned(Numbers(bits=12, range=1.0, weight_cap=7), {"quiet": {"clip": 1.5}}, Quiet())
    assert plan.quantiser is not None
    names = tuple(c.name for c in plan.summed.coordinates)
    public = PublicValues({"quiet": {"clip": 1.5}}, {})
    shown = roundplan.Digest(("quiet",), public, 12, (7,), ("update",), (plan.quantiser.step,), names)
    assert names
    expected = hashlib.sha256(b"secagg round v2\0" + MODEL + shown.encode()).digest()
    assert plan.digest(MODEL) == expected


def test_planning_proves_the_first_round_of_the_whole_cohort() -> None:
    layer, run = Quiet(), RunFacts(5, 9, 4, dimension=6)
    Stack([layer]).plan(run)
    (facts,) = layer.seen
    assert layer.planned == run == facts.run
    assert (facts.number, len(set(facts.clients)), len(facts.seed)) == (1, 4, 32)
    assert facts.public == {"quiet": {"clip": 1.0}}
