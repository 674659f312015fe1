"""Reused keys on a sparse graph of 300 clients, where holders once opened whatever view each of them was shown: the sum
of few honest clients, though every view had as many survivors as were promised. Played against the real states.
"""

from typing import Any

import numpy as np
import pytest

from protocols.audit import WhiteBox
from protocols.audit.prop import Finding
from protocols.audit.search.two_views import Arrangement, came_out, judge, play, prepared
from protocols.kernel import client
from protocols.opening import Attack, Rule
from secagg import SecAggPlus
from secagg.messages import UNMASK
from tests.defects.views import MIXED

CLIENTS, TARGET, PROMISED = 300, 54, 172


def protocol() -> SecAggPlus:
    return SecAggPlus(collusion=0.2, dropout=0.1, threat="semi-malicious", setup="reuse")


def mixed(rule: Rule, corrupt: frozenset[int]) -> Attack:
    """Each honest holder is shown a view of its own: the target in all of them, everybody else in turn gone in as many
    as a threshold needs besides the corrupt holders, and one more: who holds nothing of its own.
    """
    everybody = frozenset(range(rule.clients))
    others = [i for i in rule.order if i not in corrupt]
    target = frozenset(others[:: len(others) // TARGET][:TARGET])
    others = [i for i in others if i not in target]
    holders = sorted(frozenset().union(*rule.shares) - corrupt)
    needed = rule.threshold - len(frozenset().union(*rule.shares) & corrupt) + 1
    gone: dict[int, set[int]] = {h: set() for h in holders}
    at = 0
    for j in others:  # a holder is in its own view
        for _ in range(needed):
            at += holders[at % len(holders)] == j
            gone[holders[at % len(holders)]].add(j)
            at += 1
    views = tuple(everybody - gone[h] for h in holders)
    answers = {h: (v,) for v, h in enumerate(holders)} | dict.fromkeys(corrupt, (0,))
    lists = dict(enumerate(rule.neighbours))
    signs = dict.fromkeys(everybody, 0)
    return Attack(lists, views, (everybody,) * len(views), {}, answers, target, signs, corrupt)


def ready() -> tuple[Any, Any, Rule, Attack]:
    subject = WhiteBox(protocol)
    table, requests, rule = prepared(subject, Arrangement(subject.protocol, CLIENTS, PROMISED, CLIENTS))
    holders = frozenset().union(*rule.shares)
    rng = np.random.default_rng(0)
    drawn = (frozenset(rng.permutation(CLIENTS)[: rule.corrupt].tolist()) for _ in range(10_000))
    attack = mixed(rule, next(corrupt for corrupt in drawn if len(holders & corrupt) >= 18))
    assert min(map(len, attack.views)) >= PROMISED
    return subject, (table, requests), rule, attack


@pytest.mark.slow
def test_without_a_vote_few_honest_clients_are_summed() -> None:
    with MIXED():
        subject, (table, requests), rule, attack = ready()
        played = play(table, requests, attack)
        with pytest.raises(Finding, match=f"the sum of {TARGET} clients was opened") as found:
            judge(subject, played, rule, attack, "every holder has a view of its own")
    assert f"clients {sorted(attack.target)}, exactly" in str(found.value)


@pytest.mark.slow
def test_holders_that_vote_open_none_of_it() -> None:
    subject, (table, requests), _rule, attack = ready()
    played = play(table, requests, attack)
    asked = {client(h) for h in attack.answers} - set(map(client, attack.corrupt))
    assert {party for party, stage in played.refused if stage == UNMASK} >= asked
    assert list(came_out(subject, played, attack.corrupt)) == []
