"""Reused keys on sparse graphs: as many corrupt holders as a plan allows open nothing by themselves, however few
clients were planned to leave. Played against the real states, with the shares that the corrupt holders were dealt.

While a plan for drop-out 0 needed every holder for a certificate, all but one of them were a threshold, and as many
were said to be withstood: each honest client's exact vector came out before anything was asked to open.
"""

from dataclasses import replace

import pytest

from protocols.audit import WhiteBox
from protocols.audit.search.planning import honest
from protocols.audit.search.two_views import Arrangement, came_out, play, prepared
from secagg import SecAggPlus
from secagg.session_rules import rules_of

CLIENTS = 40


@pytest.mark.parametrize("dropout", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("collusion", [0.02, 0.1])
def test_the_corrupt_holders_that_a_plan_allows_open_nobody(dropout: float, collusion: float) -> None:
    subject = WhiteBox(lambda: SecAggPlus(dropout=dropout, collusion=collusion, setup="reuse"))
    table, requests, rule = prepared(subject, Arrangement(subject.protocol, CLIENTS, 1, CLIENTS))
    p, holders = rules_of(table.session).parameters, sorted(rules_of(table.session).holders)
    allowed = 2 * p.quorum - len(holders) - 1
    for corrupt, opened in ((allowed, 0), (p.threshold, CLIENTS - p.threshold)):
        nobody_asked = replace(honest(rule, frozenset(holders[:corrupt])), votes={}, answers={})
        played = play(table, requests, nobody_asked)
        assert len(dict(came_out(subject, played, nobody_asked.corrupt))) == opened
    assert 0 <= allowed < p.threshold < p.quorum < len(holders)
