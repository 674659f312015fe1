"""Broken plans: graphs and thresholds that a protocol chooses wrongly. What is done with a view lies in `views`."""

import hashlib
import sys
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from secagg import Credentials, SecAgg, SecAggPlus, parameter_choice
from secagg.parameters import Cohort, Infeasible, Plan, plan
from secagg.parameters.conditions import LEAST_THRESHOLD, largest_left, least_safe

INSIST = parameter_choice.insist


def many_leave() -> SecAgg:
    """It plans for fewer survivors than a session may promise."""
    return SecAgg(threshold=2, dropout=0.4)


def two_fifths() -> SecAgg:
    """As many corrupt clients as a threshold of three withstands."""
    return SecAgg(collusion=0.4)


def by_the_session(parameters: Any, context: bytes, round: int) -> bytes:
    """The graph rests on the beacon and on the whole session, which the server makes when it knows the beacon."""
    return hashlib.sha256(context + parameters.beacon).digest()


def only_in_set_ups(wishes: Any, clients: int, offered: Any) -> None:
    """Later rounds are held to nothing but their set-up."""
    if not offered.epoch:
        INSIST(wishes, clients, offered)


def any_degree(wishes: Any, clients: int, offered: Any) -> None:
    """More neighbours than its own are taken behind a beacon too."""
    INSIST(replace(wishes, beacon=b""), clients, replace(offered, beacon=b"", committed=True))


def falling_back(cohort: Cohort) -> Plan:
    """Cohorts of the server's choice are semi-honest where nothing better fits."""
    try:
        return plan(cohort)
    except Infeasible:
        return plan(replace(cohort, threat="semi-honest"))


class TwoShares(SecAggPlus):
    """Two of six holders open everything, and two may be corrupt."""

    def _sparse(self, clients: int) -> Any:
        return self._for(clients, neighbours=6, threshold=2, collusion=2.5 / clients)


class OneBit(SecAggPlus):
    """Behind a beacon, numbers of so few bits that one of twenty graphs suits the corrupt clients."""

    def _drawn(self, clients: int) -> Any:
        few = {"security": 1, "neighbours": 10, "threshold": 6, "collusion": 0.2}
        return self._for(clients, threat="malicious", beacon=b"light", **few)


def reusing() -> SecAgg:
    """A third of the clients may be corrupt, and one of them is in every small cohort."""
    return SecAgg(collusion=0.3, dropout=0.1, setup="reuse")


def reusing_sparse() -> SecAggPlus:
    return SecAggPlus(setup="reuse")


def behind_a_beacon() -> SecAggPlus:
    return SecAggPlus(
        threat="malicious", credentials=Credentials.simulated(range(12)), beacon=b"public randomness"
    )


def semi_honest_sparse() -> SecAggPlus:
    return SecAggPlus(threat="semi-honest")


def least_of_everybody(cohort: Cohort, degree: int) -> int:
    """A client is drawn among its own neighbours."""
    limit = cohort.log_failure(cohort.secrecy + 1 + cohort.two_faced)
    return least_safe(limit, cohort.clients, cohort.corrupt, degree, LEAST_THRESHOLD)


def largest_of_everybody(cohort: Cohort, degree: int) -> int:
    """A client that stays may be one of those who stay around it."""
    limit = cohort.log_failure(cohort.correctness + cohort.two_faced)
    return largest_left(limit, cohort.clients, cohort.survivors, degree)


PLAN = partial(patch.object, sys.modules["secagg.parameters.plan"])  # the package has a function of that name
