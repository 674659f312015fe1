"""FedBuff: sums of whoever is done, over different models. Against a few lines of its own, under masks, over drop-outs
and stops.
"""

import heapq
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import FedAvg, FedBuff
from fl.dropouts import delay
from fl.engines.clock import Clock
from fl.round import reference_of
from fl.round.buffers import Buffers
from fl.round.run_files import METRICS
from protocols.errors import Misuse, StackError
from secagg import SecAggPlus
from tests.unit.fl.fedbuff_rig import CLIENTS, RATE, federation, five_leave, points, recorded, vector


def test_the_model_moves_as_algorithm_1_says() -> None:
    run = federation()
    shown, versions = recorded(run), [vector(run)]
    run.fit(12)
    for broadcast in shown:
        moves = []
        for client, start in broadcast.manifest.started.items():  # type: ignore[union-attr]
            x, y = (part.double().numpy() for part in points(int(client)))
            base = versions[int(start)]
            error = x @ base[:2] + base[2] - y[:, 0]
            gradient = np.array([*(2 * x.T @ error / len(x)), 2 * error.mean()])
            age = len(versions) - 1 - int(start)
            moves.append(-RATE * gradient / np.sqrt(1 + age))
        versions.append(versions[-1] + np.mean(moves, axis=0))
    assert vector(run) == pytest.approx(versions[-1], abs=1e-5)
    assert {v.age for b in shown for v in b.manifest.versions.values()} > {0}  # type: ignore[union-attr]


def test_whoever_is_done_first_is_in_the_first_sum() -> None:
    run = federation(strategy=FedBuff(3, alike=1, leaving=0, oldest=1000))
    heap = [(delay(3, 1, str(i), 1.5), str(i), 1) for i in range(CLIENTS)]
    heapq.heapify(heap)
    for played in run.fit(20).history:
        first = [heapq.heappop(heap) for _ in range(3)]
        assert set(played.asked) == {name for _, name, _ in first}
        for _, name, times in first:
            heapq.heappush(heap, (first[-1][0] + delay(3, times + 1, name, 1.5), name, times + 1))
    assert "nothing is claimed against a server that shows a client a model made for it" in str(
        run.statement().notes
    )


def test_a_buffer_of_everybody_without_delays_is_fedavg() -> None:
    run = federation(strategy=FedBuff(CLIENTS), delays=0.0)
    waiting = federation(strategy=FedAvg(weighted=False), delays=0.0)
    assert [played.waited for played in run.fit(3).history] == [1.0] * 3
    waiting.fit(3)
    assert (vector(run) == vector(waiting)).all()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_masked_sums_give_the_plain_model_bit_for_bit(dropout: float) -> None:
    runs = [
        federation(privacy, FedBuff(6, leaving=1), dropout=dropout)
        for privacy in ((), (SecAggPlus(dropout=0.2),))
    ]
    plain, masked = (run.fit(6) for run in runs)
    assert (vector(runs[0]) == vector(runs[1])).all()
    assert [one.asked for one in plain.history] == [one.asked for one in masked.history]
    assert all(len(played.survivors) >= 5 and played.abandoned is None for played in masked.history)


def test_more_who_leave_than_are_planned_abandon_a_buffer_and_its_clients_begin_anew() -> None:
    run, before = five_leave(federation((), FedBuff(6))), vector(federation())
    result = run.fit(3)
    assert all(played.abandoned for played in result.history)
    assert (vector(run) == before).all()
    buffers = run.setup.strategy.buffers
    assert buffers is not None
    assert buffers.chain.newest == 0
    assert {*buffers.working, *buffers.ready} <= set(run.setup.names)


def test_no_version_falls_below_its_least_by_those_who_leave() -> None:
    run = federation(strategy=FedBuff(6, alike=2, leaving=1))
    shown = recorded(run)
    run.fit(10)
    for broadcast in shown:
        manifest = broadcast.manifest
        assert manifest is not None
        started = list(manifest.started.values())
        away = len(started) - broadcast.plan.min_survivors
        assert all(started.count(version) - away >= 2 for version in manifest.versions)
    assert any(len(b.manifest.versions) > 1 for b in shown)  # type: ignore[union-attr]


@given(
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 5),
    st.integers(0, 10),
    st.integers(0, 2**32),
    st.data(),
)
def test_every_sum_is_whole_whatever_the_delays(
    alike: int, leaving: int, more: int, others: int, seed: int, data: st.DataObject
) -> None:
    size = alike + leaving + more
    names = [str(i) for i in range(size + others)]
    at_once = data.draw(st.sampled_from([0, *range(size, len(names) + 1)]))
    buffers = Buffers(size, alike, leaving, 5, at_once)
    buffers.arrivals = Clock(seed, 1.5)
    model = reference_of({"w": np.zeros(1)})
    for number in range(1, 15):
        if number == 1:
            buffers.started((), model)
        asked = buffers.due(names)
        manifest, bases = buffers.started(asked, model)
        manifest.require(asked, number)
        assert len(asked) == size == len(bases)
        assert min(list(manifest.started.values()).count(v) for v in manifest.versions) >= alike + leaving
        assert manifest.least <= size - leaving
        assert all(version.age <= 5 for version in manifest.versions.values())
        assert not set(buffers.working) & set(buffers.ready)
        assert len(buffers.working) + len(buffers.ready) <= (at_once or len(names))
        moved = data.draw(st.booleans())
        model = reference_of({"w": np.full(1, float(number))}) if moved else model
        buffers.closed(asked, model if moved else None)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, first = federation(), federation(output=tmp_path)
    expected = whole.fit(8)
    first.fit(3)
    second = federation(output=tmp_path)
    result = second.fit(8, resume=True)
    assert [(p.asked, p.waited) for p in result.history] == [(p.asked, p.waited) for p in expected.history]
    assert (vector(second) == vector(whole)).all()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert all(line["waited"] > 0 for line in lines)


def test_a_second_run_of_one_federation_is_refused_unless_it_goes_on(tmp_path: Path) -> None:
    run = federation(output=tmp_path)
    run.fit(2)
    with pytest.raises(Misuse, match="this federation has played its buffers"):
        run.fit(2)
    assert len(run.fit(4, resume=True).history) == 4
    whole = federation()
    whole.fit(4)
    assert (vector(run) == vector(whole)).all()


def test_every_buffer_is_charged_for_everybody_and_amplifies_nothing() -> None:
    noise: dict[str, Any] = {"noise_multiplier": 4.0, "clip": 0.5}
    result = federation((ClientDP(**noise),), range=None).fit(5)
    assert len(result.statement.events) == 5
    assert result.epsilon == federation((ClientDP(**noise),), FedAvg()).fit(5).epsilon
    with pytest.raises(StackError, match=r"client-dp claims amplification.*chosen otherwise: who is done"):
        federation((ClientDP(amplify=True, **noise),), range=None).fit(5)
    lost = five_leave(federation((ClientDP(**noise),), FedBuff(6), range=None)).fit(2)
    assert [played.abandoned is None for played in lost.history] == [False, False]
    assert len(lost.statement.events) == 2


def test_layers_of_noise_clip_last_and_compose() -> None:
    for layer in (
        DistributedDP(noise_multiplier=2.0, clip=0.5),
        LocalDP(noise_multiplier=2.0, clip=0.5),
    ):
        result = federation((layer, SecAggPlus(dropout=0.2)), FedBuff(6), range=None).fit(2)
        assert [played.abandoned for played in result.history] == [None, None]
        assert result.guarantees

    def loss(model: Any, batch: Any) -> Any:
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    examples = federation((SampleDP(noise_multiplier=2.0, clip=0.5),), loss=loss).fit(2)
    assert examples.guarantees[0].unit == "example"
