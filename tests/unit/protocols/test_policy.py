"""A client's policy: every demand at its edge, by name, and fail closed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import Misuse, PolicyRefusal
from protocols.policy import THREATS, Demands, Policy

OFFER = Demands(
    cohort=10, survivors=6, ring_bits=20, threat="semi-malicious", threshold=6, degree=9, signed_roster=True
)
EXACT = Policy(
    min_cohort=10, min_survivors=6, min_threshold=6, min_threshold_share=0.6, min_degree=9, min_ring_bits=20,
    threat="semi-malicious", signed_roster=True,
)  # fmt: skip


def test_an_offer_that_meets_every_demand_exactly_is_accepted() -> None:
    EXACT.check(OFFER)


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"cohort": 9}, "cohort: the policy demands at least 10, the session offers 9"),
        ({"survivors": 5}, "survivors: the policy demands at least 6, the session offers 5"),
        ({"ring_bits": 19}, "ring_bits: the policy demands at least 20, the session offers 19"),
        ({"threshold": 5, "degree": 6}, "threshold: the policy demands at least 6, the session offers 5"),
        (
            {"degree": 10},
            "threshold: the policy demands more than 0.6 of 10 share holders, the session offers 6",
        ),
        ({"degree": 8, "cohort": 20}, "degree: the policy demands at least 9, the session offers 8"),
        (
            {"threat": "semi-honest"},
            "threat: the policy demands semi-malicious, the session offers semi-honest",
        ),
        ({"threat": "none"}, "threat: the policy demands semi-malicious, the session offers none"),
        (
            {"signed_roster": False},
            "signed_roster: the policy demands identities of a signed roster in the session's keys, and they have "
            "none (threat='malicious', credentials=...)",
        ),
        ({"simulated": True}, "simulated: the policy refuses sessions with injected randomness"),
    ],
)
def test_each_demand_fails_by_its_own_name(changed: dict, named: str) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        EXACT.check(replace(OFFER, **changed))
    assert str(caught.value) == named


def test_more_than_is_demanded_is_accepted() -> None:
    EXACT.check(replace(OFFER, cohort=11, survivors=7, ring_bits=21, threat="malicious", threshold=7))


def test_the_share_of_holders_counts_where_views_may_be_split() -> None:
    half = Policy()
    offer = replace(OFFER, threshold=5, degree=10, threat="semi-honest")
    half.check(offer)
    Policy(threat="none").check(replace(offer, threat="none"))
    for threat in ("semi-malicious", "malicious"):
        with pytest.raises(PolicyRefusal, match=r"more than 0\.5 of 10"):
            half.check(replace(offer, threat=threat))
        half.check(replace(offer, threat=threat, threshold=6))


def test_where_views_are_certified_the_share_is_of_the_voters() -> None:
    """Few holders may then open a secret: it is the quorum that keeps two views apart."""
    offer = replace(OFFER, threshold=2, degree=9, quorum=6, voters=10)
    half = Policy(min_survivors=6)
    half.check(offer)
    half.check(replace(offer, voters=None))
    for more in ({"quorum": 5}, {"voters": 12}, {"voters": None, "quorum": 5}):
        with pytest.raises(PolicyRefusal, match=r"more than 0\.5 of 1[02] voters"):
            half.check(replace(offer, **more))
    half.check(replace(offer, threat="semi-honest", quorum=1))


def test_without_a_graph_the_whole_cohort_holds_shares() -> None:
    with pytest.raises(PolicyRefusal, match=r"more than 0\.5 of 10"):
        Policy().check(replace(OFFER, degree=None, threshold=5))
    Policy(min_degree=100).check(replace(OFFER, degree=None))


def test_a_sum_without_a_threshold_is_judged_by_the_rest() -> None:
    Policy(min_threshold=100).check(replace(OFFER, threshold=None))


def test_a_small_cohort_cannot_have_a_larger_degree_than_its_size() -> None:
    Policy(min_degree=50, min_threshold_share=0).check(
        replace(OFFER, cohort=4, degree=3, threshold=3, survivors=3)
    )


def test_in_a_small_cohort_everybody_else_is_the_least_degree() -> None:
    policy = Policy(min_degree=50, min_threshold_share=0)
    offer = replace(OFFER, cohort=4, degree=2, threshold=2, survivors=3)
    with pytest.raises(PolicyRefusal, match="degree: the policy demands at least 3, the session offers 2"):
        policy.check(offer)


def test_the_defaults_refuse_a_sum_of_one_and_simulated_sessions() -> None:
    for changed in ({"cohort": 1}, {"survivors": 1}, {"simulated": True}):
        with pytest.raises(PolicyRefusal, match=next(iter(changed))):
            Policy().check(replace(OFFER, **changed))  # type: ignore[arg-type]  # one of three fields
    with pytest.raises(PolicyRefusal, match="ring_bits"):
        Policy().check(replace(OFFER, ring_bits=1))
    with pytest.raises(PolicyRefusal, match="threshold"):
        Policy().check(replace(OFFER, threshold=1, degree=1))
    Policy(allow_simulated=True).check(replace(OFFER, simulated=True))


def test_threat_models_are_ordered() -> None:
    for demanded in THREATS:
        for offered in THREATS:
            offer = replace(OFFER, threat=offered)
            if THREATS.index(offered) < THREATS.index(demanded):
                with pytest.raises(PolicyRefusal, match="threat"):
                    Policy(threat=demanded).check(offer)
            else:
                Policy(threat=demanded).check(offer)


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"threat": "wicked"}, r"expected threat to be one of .*, got 'wicked'"),
        ({"threat": ["none"]}, r"expected threat to be one of .*, got \['none'\]"),
        ({"min_cohort": -1}, "expected min_cohort to be a whole number >= 0, got -1"),
        ({"min_cohort": math.nan}, "expected min_cohort to be a whole number >= 0, got nan"),
        ({"min_survivors": 3.0}, "expected min_survivors to be a whole number >= 0, got 3.0"),
        ({"min_threshold": True}, "expected min_threshold to be a whole number >= 0, got True"),
        ({"min_degree": None}, "expected min_degree to be a whole number >= 0, got None"),
        ({"min_ring_bits": "20"}, "expected min_ring_bits to be a whole number >= 0, got '20'"),
        (
            {"min_threshold_share": -0.1},
            r"expected min_threshold_share to be a number from 0 to 1, got -0\.1",
        ),
        ({"min_threshold_share": 1.1}, r"expected min_threshold_share to be a number from 0 to 1, got 1\.1"),
        (
            {"min_threshold_share": math.nan},
            "expected min_threshold_share to be a number from 0 to 1, got nan",
        ),
        ({"min_threshold_share": True}, "expected min_threshold_share to be a number from 0 to 1, got True"),
        ({"max_epsilon": math.nan}, "expected max_epsilon to be a finite number >= 0, or none, got nan"),
        ({"max_epsilon": math.inf}, "expected max_epsilon to be a finite number >= 0, or none, got inf"),
        ({"max_epsilon": -1}, "expected max_epsilon to be a finite number >= 0, or none, got -1"),
        ({"max_epsilon": 10**400}, "expected max_epsilon to be a finite number >= 0, or none, got 1000"),
        ({"max_epsilon": "1"}, "expected max_epsilon to be a finite number >= 0, or none, got '1'"),
        (
            {"allow_layers": "not secagg+"},
            "expected allow_layers to be a tuple or list of layers' names, got 'not",
        ),
        ({"allow_layers": ("",)}, "expected allow_layers to be a tuple or list of layers' names, got "),
        ({"allow_layers": [5]}, r"expected allow_layers to be a tuple or list of layers' names, got \[5\]"),
        ({"allow_resend": "no"}, "expected allow_resend to be true or false, got 'no'"),
        ({"allow_simulated": 0}, "expected allow_simulated to be true or false, got 0"),
        ({"signed_roster": None}, "expected signed_roster to be true or false, got None"),
    ],
)
def test_a_policy_that_means_nothing_is_misuse(bad: dict, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        Policy(**bad)


def test_zero_is_a_demand_that_demands_nothing() -> None:
    Policy(
        min_cohort=0, min_survivors=0, min_threshold=0, min_threshold_share=0, min_degree=0, min_ring_bits=0
    ).check(OFFER)


def test_numbers_of_numpy_and_the_ends_of_ranges_are_numbers() -> None:
    policy = Policy(min_cohort=np.int64(3), min_threshold_share=np.float32(1), max_epsilon=np.int8(0))
    with pytest.raises(PolicyRefusal, match="cohort"):
        policy.check(replace(OFFER, cohort=2))
    assert Policy(allow_layers=("secagg+",), max_epsilon=None).allow_layers == ("secagg+",)
