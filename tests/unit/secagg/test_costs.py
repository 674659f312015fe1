"""What a plan says a round costs: bytes against a session, counts and seconds against their definition."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from protocols import simulate
from protocols.identity import Identity
from protocols.kernel import SERVER, Message
from protocols.key_agreement import PairKeys
from protocols.store import MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.messages import UNMASK
from secagg.parameters import Cohort, Plan, calibration, plan
from secagg.parameters.calibration import Units, calibrate, estimate
from secagg.parameters.costs import Costs, costs
from secagg.ring import Ring
from secagg.session_rules import rules_of

NAMES = [str(i) for i in range(60)]
CREDENTIALS = Credentials.simulated(NAMES)


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious", "malicious"])
@pytest.mark.parametrize("complete", [False, True])
def test_planned_bytes_and_trips_are_those_of_a_session(threat: str, complete: bool) -> None:
    """Every client's messages up, to the byte; down in the mean: neighbours' votes serve as signed inputs."""
    clients = 16 if complete else 60
    found = (
        plan(Cohort(clients, 0.0, 0.05, threat, complete=True))
        if complete
        else plan(Cohort(clients, 0.0, 0.05, threat, correctness=10))
    )
    cost = costs(found, 200, 16)
    sent: Counter[str] = Counter()
    stages: set[str] = set()

    def count(message: Message) -> None:
        party, way = (message.sender, "up") if message.recipient == SERVER else (message.recipient, "down")
        sent[f"{way} {party.number}"] += message.size
        sent["opening"] += message.size * (message.stage == UNMASK and message.sender == SERVER)
        stages.add(message.stage)

    vectors = np.random.default_rng(1).integers(-(2**15) + 1, 2**15, (clients, 200))
    named = dict(zip(NAMES, vectors, strict=False))
    protocol = SecAggPlus(
        0.0,
        0.05,
        threat,
        neighbours=found.degree,
        threshold=found.threshold,
        credentials=CREDENTIALS if threat == "malicious" else None,
    )
    outcome = simulate(protocol, named, bound=2**15 - 1, observe=count)
    assert outcome.session.ring_bits() == cost.ring_bits
    assert {sent[f"up {i}"] for i in range(clients)} == {cost.upload_bytes}
    assert abs(sum(sent[f"down {i}"] for i in range(clients)) / clients - cost.download_bytes) <= 32
    assert abs(sent["opening"] / clients - cost.opening_request_bytes) <= 32
    assert (
        cost.trips == len(stages) == 4 + (threat != "semi-honest") + (threat == "malicious" and not complete)
    )
    assert cost.server_received_bytes == clients * cost.upload_bytes
    assert cost.upload_bytes == cost.fixed_upload_bytes + cost.ring_bytes
    assert cost.ring_bytes == -(-200 * cost.ring_bits // 8)
    assert (cost.plain_bytes, cost.expansion) == (400, cost.upload_bytes / 400)


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious"])
@pytest.mark.parametrize("complete", [False, True])
def test_planned_bytes_of_reused_keys_are_those_of_a_later_round(threat: str, complete: bool) -> None:
    """What each holder sends, to the byte; what it is sent, in the mean; and the least that agreed keys save."""
    clients = 16 if complete else 60
    found = plan(Cohort(clients, 0.0, 0.05, threat, correctness=10, reuse=True, complete=complete))
    cost = costs(found, 200, 16)
    protocol = SecAggPlus(0.0, 0.05, threat, correctness=10, setup="reuse")
    if complete:
        protocol = SecAgg(0.0, 0.05, threat, correctness=10, setup="reuse")
    stores: dict[Any, MemoryStore] = {name: MemoryStore() for name in (*NAMES[:clients], "server")}
    vectors = np.random.default_rng(1).integers(-(2**15) + 1, 2**15, (clients, 200))
    for number in (1, 2):
        sent: Counter[str] = Counter()
        stages: Counter[str] = Counter()

        def count(message: Message, sent: Counter[str] = sent, stages: Counter[str] = stages) -> None:
            up = message.recipient == SERVER
            sent[f"{'up' if up else 'down'} {(message.sender if up else message.recipient).number}"] += (
                message.size
            )
            stages[message.stage] += up

        named = dict(zip(NAMES, vectors % (2**14 + number), strict=False))
        outcome = simulate(protocol, named, bound=2**15 - 1, observe=count, stores=stores, round=number)
    rules = rules_of(outcome.session)
    assert (rules.degree, rules.threshold, len(rules.holders)) == (
        found.degree, found.threshold, found.holders,
    )  # fmt: skip
    assert {sent[f"up {i}"] for i in rules.holders} == {cost.upload_bytes}
    down = sum(sent[f"down {i}"] for i in rules.holders) / len(rules.holders)
    assert abs(down - cost.download_bytes) <= 64
    assert cost.trips == len(stages) == 2 + found.votes
    assert sum(sent[f"up {i}"] for i in range(clients)) - cost.server_received_bytes == (
        0 if complete else sum(sent[f"up {i}"] > 0 for i in set(range(clients)) - rules.holders) * row(found)
    )
    assert (cost.client_agreements, cost.server_agreements) == (0, 0)


def row(found: Plan) -> int:
    """What a client that is no holder itself entrusts to one holder more."""
    return 4 + 28 + (32 + 16 * found.degree) + 16 * (1 + found.degree)


def test_drop_outs_cost_the_server_their_pairs_and_spare_it_their_vectors() -> None:
    found = plan(Cohort(1000, 0.33, 0.05, "semi-honest"))
    cost = costs(found, 100, 16)
    assert (found.degree, found.cohort.dropped, found.cohort.survivors) == (72, 330, 670)
    pairs = round(330 * 72 * 670 / 999)
    assert (cost.server_agreements, cost.server_mask_expansions) == (pairs, pairs + 670)
    assert (cost.client_agreements, cost.client_mask_expansions) == (144, 73)
    assert cost.server_received_bytes == 1000 * cost.fixed_upload_bytes + 670 * cost.ring_bytes


@pytest.mark.parametrize(
    ("clients", "threat", "most"),
    [
        (30, "malicious", 3_000),
        (100, "malicious", 7_100),
        (1_000, "semi-malicious", 14_700),
        (1_000, "malicious", 23_700),
    ],
)
def test_agreement_costs_no_more_than_the_design_allowed(clients: int, threat: str, most: int) -> None:
    """Drop-out .2, collusion .1; of the 64 graphs that malicious plans count, for one. A neighbour's vote is its signed
    input too, so that less is sent than was planned.
    """
    found = plan(Cohort(clients, 0.2, 0.1, threat, security=34.0 if threat == "malicious" else 40.0))
    assert costs(found, 1_000, 16).opening_request_bytes <= most


def units(**known: float) -> Units:
    return Units(**{field.name: known.get(field.name, 0.0) for field in fields(Units)})


COUNTS: dict[str, Callable[[int, int, int, int, Costs], tuple[float, float]]] = {
    # n clients, k neighbours, threshold t, s survivors
    "agreement": lambda n, k, t, s, c: (c.client_agreements, c.server_agreements),
    "box": lambda n, k, t, s, c: (k, 0),
    "digest": lambda n, k, t, s, c: (4 * k, 0),
    "split": lambda n, k, t, s, c: (k * t, 0),
    "combine": lambda n, k, t, s, c: (0, n * t**2),
    "relay": lambda n, k, t, s, c: (0, n * k),
    "mask_call": lambda n, k, t, s, c: (c.client_mask_expansions, c.server_mask_expansions),
    "mask_byte": lambda n, k, t, s, c: (400 * c.client_mask_expansions, 400 * c.server_mask_expansions),
    "pack": lambda n, k, t, s, c: (100, 0),
    "add": lambda n, k, t, s, c: (0, 100 * s),
}


@pytest.mark.parametrize("unit", COUNTS)
def test_an_estimate_counts_each_unit(unit: str) -> None:
    found = plan(Cohort(500, 0.1, 0.05, "semi-honest"))
    cost = costs(found, 100, 16)
    n, k, t, s = 500, found.degree, found.threshold, found.cohort.survivors
    assert estimate(found, cost, units(**{unit: 1.0})) == COUNTS[unit](n, k, t, s, cost)


@pytest.mark.parametrize(
    ("threat", "signed", "checked", "checks"),
    [("semi-honest", 0, 0, 0), ("semi-malicious", 3, 0, 3), ("malicious", 4, 1, 4)],
)
def test_signatures_follow_the_threat(threat: str, signed: int, checked: int, checks: int) -> None:
    """Voters sign what they deal, what they mask with and who survived, and check a quorum of votes and the inputs of
    neighbours beside it; certified keys are one more to sign and k to check.
    """
    found = plan(Cohort(500, 0.1, 0.05, threat))
    cost = costs(found, 100, 16)
    opened = found.quorum + round(found.degree * (500 - found.quorum) / 500) if found.quorum else 0
    assert cost.opening_signatures == opened
    assert estimate(found, cost, units(signature=1.0)) == (signed, 0)
    assert estimate(found, cost, units(verification=1.0)) == (opened + checked * found.degree, 500 * checks)


def spied(monkeypatch: pytest.MonkeyPatch, calls: Counter[str]) -> None:
    """Count the calls of everything that calibration measures, and let each measurement take a second."""

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def spy(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, spy)

    for name in ("verify", "seal", "unseal", "split_array", "combine_arrays", "share_digest", "add_mask"):
        counted(calibration, name)
    for name in ("pack", "add_packed", "_relay"):
        counted(calibration, name)
    counted(PairKeys, "agree")
    counted(Identity, "sign")

    def second(work: Callable[[], object]) -> float:
        calls.clear()
        work()
        measured.append(dict(calls))
        return float(len(measured))

    measured: list[dict[str, int]] = []
    monkeypatch.setattr(calibration, "_seconds", second)
    calls.measured = measured  # type: ignore[attr-defined]  # handed back with the counter


def test_calibration_measures_what_the_units_say(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    spied(monkeypatch, calls)
    found = calibrate(40, 24, Ring(26))
    one = [{name: 1} for name in ("add_mask", "agree", "sign", "verify")]
    rest = [{name: 1} for name in ("split_array", "combine_arrays", "share_digest", "add_mask", "pack")]
    boxed = {"seal": 1, "unseal": 1}
    assert calls.measured == [*one, boxed, *rest, {"add_packed": 1}]  # type: ignore[attr-defined]  # as above
    assert (found.mask_call, found.agreement, found.signature, found.verification) == (1, 2, 3, 4)
    assert (found.box, found.split, found.combine) == (5, 6 / (40 * 24), 7 / 24**2)
    sample = calibration._SAMPLE
    assert (found.digest, found.mask_byte) == (8, (9 - 1) / (4 * sample))
    assert (found.pack, found.add) == (10 / sample, 11 / sample)
    assert found.relay > 0


@pytest.mark.parametrize(
    ("degree", "threshold", "k", "t"), [(2, 2, 2, 2), (1000, 600, 256, 153), (300, 2, 256, 2), (9, 9, 9, 9)]
)
def test_shares_are_measured_on_few_holders_and_scaled(
    monkeypatch: pytest.MonkeyPatch, degree: int, threshold: int, k: int, t: int
) -> None:
    seen: list[tuple[int, int, int]] = []
    original = calibration.split_array

    def split(secret: bytes, needed: int, points: Any, random: Any) -> Any:
        seen.append((len(secret), needed, len(points)))
        return original(secret, needed, points, random)

    monkeypatch.setattr(calibration, "split_array", split)
    monkeypatch.setattr(calibration, "_seconds", lambda work: (work(), 1.0)[1])
    found = calibrate(degree, threshold, Ring(20))
    assert set(seen) == {(64, t, k)}
    assert (found.split, found.combine, found.mask_byte) == (1 / (k * t), 1 / t**2, 0.0)


def test_the_fastest_of_several_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that other load has slowed is no measure of the work."""
    ticks, wall = iter([0.0, 5.0, 5.0, 7.0, 7.0, 10.0]), iter([0.0, 0.01, 0.02, 0.05])
    monkeypatch.setattr(calibration.time, "thread_time", lambda: next(ticks))
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(wall))
    runs: list[int] = []
    assert calibration._seconds(lambda: runs.append(1)) == 2.0
    assert len(runs) == 4  # one to warm up
