"""FedBuff: sums of whoever is done, over different models. Against a few lines of its own, under masks, over drop-outs
and stops, and against a server that shows a client another model than it says.
"""

import heapq
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import FedAvg, FedBuff, Federation
from fl.cli import invoke
from fl.dropouts import delay
from fl.engines.clock import Clock
from fl.round import Broadcast, Manifest, RoundResult, Version, reference_of
from fl.round.buffers import Buffers, require_manifest
from fl.round.chain import Chain
from fl.round.contribution import contribution_of, encoded
from fl.round.kept import METRICS
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, StackError
from protocols.store import MemoryStore
from secagg import SecAggPlus

CLIENTS, RATE = 14, 0.1


def points(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + client)
    x = torch.randn(6, 2, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0]]) + 0.1 * client


def descend(model: Any, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()


def federation(privacy: Any = (), strategy: Any = None, clients: int = CLIENTS, **options: Any) -> Federation:
    loaders = [DataLoader(TensorDataset(*points(i)), 6) for i in range(clients)]
    given: dict[str, Any] = {"range": 4.0, "delays": 1.5, "seed": 3, "bits": 24, "metrics": ()}
    return Federation(
        lambda: torch.nn.Linear(2, 1),
        loaders,
        descend,
        strategy or FedBuff(4),
        privacy,
        learning_rate=RATE,
        **{**given, **options},
    )


def recorded(run: Federation) -> list[Broadcast]:
    """The broadcasts of a run's buffers, as they are opened."""
    found, opens = list[Broadcast](), run.coordinator.open_all

    def spy(number: int, asked: tuple[str, ...]) -> tuple[Broadcast, ...]:
        parts = opens(number, asked)
        found.extend(parts)
        return parts

    run.coordinator.open_all = spy  # type: ignore[method-assign]
    return found


def five_leave(run: Federation) -> Federation:
    """The same federation, in which five clients of every buffer leave."""
    run.engine.departures = (
        lambda protocol, session: (  # type: ignore[attr-defined]
            session.roster[:5],
            {"input": session.roster[:5]},
        )
    )
    return run


def vector(run: Federation) -> Any:
    return run.coordinator.reference().flat.vector


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


def test_a_client_contributes_once_to_each_buffer() -> None:
    run = federation()
    (shown,) = recorded(run) or run.coordinator.open_all(
        run.coordinator.prepare(3).rounds, run.setup.names[:4]
    )
    store = MemoryStore()
    own = replace(shown.own("0", None), store=store)
    task: Any = None
    run.setup.strategy.begin(task, own)
    for number in (own.number, own.number - 1):
        with pytest.raises(ProtocolViolation, match="it contributes once to each"):
            run.setup.strategy.begin(task, replace(own, number=number))
    run.setup.strategy.begin(task, replace(own, number=own.number + 1))
    run.setup.strategy.begin(task, replace(own, scope="another run", number=1))


def test_an_update_that_has_left_is_spent_at_every_later_age() -> None:
    run = federation(strategy=FedBuff(4))
    run.coordinator.prepare(3)
    asked, base = run.setup.names[:4], run.coordinator.reference()
    trained = replace(base.flat, vector=base.flat.vector + 0.25)
    names, sent = set(), set()
    for number, past in (
        (1, (base.digest,)),
        (2, (base.digest, bytes(32))),
        (3, (base.digest, bytes(32), bytes([1]) * 32)),
    ):
        versions = {"0": Version(base.digest, number - 1)}
        manifest = Manifest(versions, dict.fromkeys(asked, "0"), 2, Chain(past))
        shown = run.coordinator.open(number, asked, manifest=manifest)
        made = contribution_of(shown, trained, 1, client=asked[0])
        names.add(encoded(shown, made, shown.own(asked[0], MemoryStore()))[1])
        sent.add(float(made.vector[0]))
    assert len(sent) == 3, "its age makes it smaller"
    assert len(names) == 1, "two buffers over it, one without this client, would tell it alone"


def test_a_client_that_is_shown_another_model_than_is_said_leaves() -> None:
    run = federation((SecAggPlus(dropout=0.3),), FedBuff(6))
    opens = run.coordinator.open_all

    def lying(number: int, asked: tuple[str, ...]) -> tuple[Broadcast, ...]:
        (honest,) = opens(number, asked)
        made = reference_of({"weight": np.ones((1, 2), np.float32), "bias": np.ones(1, np.float32)})
        return (replace(honest, bases={**honest.bases, asked[0]: made}),)

    run.coordinator.open_all = lying  # type: ignore[method-assign]
    (played,) = run.fit(1).history
    assert "is not the version" in played.refusals[played.asked[0]]
    assert played.asked[0] not in played.survivors


def test_a_client_remembers_the_models_that_it_was_shown() -> None:
    run, seen = federation(strategy=FedBuff(6)), set[str]()
    buffers = run.setup.strategy.buffers
    assert buffers is not None

    def another_past(played: RoundResult) -> None:
        seen.update(played.asked if played.number < 3 else ())
        if played.number == 2:
            buffers.chain = Chain((bytes(32), *buffers.chain.digests[1:]))
            for state in (buffers.working, buffers.ready):
                for name in [name for name, version in state.items() if version == 0]:
                    del state[name]

    (*_, played) = run.fit(3, on_round=another_past).history
    for name in set(played.asked) & seen:
        assert "the server shows others than before" in played.refusals[name]
    assert set(played.asked) & seen


def test_a_chain_is_never_older_nor_another_one() -> None:
    store, one, two = MemoryStore(), bytes([1]) * 32, bytes([2]) * 32
    Chain((one,)).remember("run", store)
    Chain((one, two, one)).remember("run", store)
    Chain((one, two, one)).remember("run", store)
    for other in (Chain((one, two)), Chain((two, two, one)), Chain((one, one, one, two))):
        with pytest.raises(ProtocolViolation, match="shows others than before"):
            other.remember("run", store)
    Chain((two,)).remember("another run", store)


def test_a_client_takes_no_model_older_than_its_federation_says() -> None:
    models = tuple(bytes([at]) * 32 for at in range(6))
    started = dict.fromkeys("abcd", "0")
    for links, own in ((4, Buffers(4, oldest=3)), (6, Buffers(4, oldest=5))):
        shown = Manifest({"0": Version(models[0], links - 1)}, started, 2, Chain(models[:links]))
        require_manifest(shown, own)
        with pytest.raises(ProtocolViolation, match=f"at most {own.oldest - 1} versions old"):
            require_manifest(shown, Buffers(4, oldest=own.oldest - 1))


def test_a_run_may_come_back_to_a_model_that_it_had() -> None:
    one, two = bytes([1]) * 32, bytes([2]) * 32
    versions = {"0": Version(one, 2), "2": Version(one)}
    Manifest(versions, {"a": "0", "b": "0", "c": "2", "d": "2"}, 2, Chain((one, two, one)))
    with pytest.raises(Misuse, match="every model under one name"):
        Manifest({"x": Version(one), "y": Version(one)}, {"a": "x", "b": "y"}, 1)


def test_a_statement_counts_who_may_work_with_the_server() -> None:
    run = federation((SecAggPlus(dropout=0.2, collusion=0.3),), FedBuff(10, alike=5))
    run.coordinator.prepare(3)
    (told, _) = run.setup.strategy.notes()
    assert "up to 3 may work with the server" in told
    assert "at least 2 with it" in told


def test_a_client_refuses_a_manifest_that_keeps_fewer_together_than_its_federation_says() -> None:
    one = bytes([1]) * 32
    own, versions, started = Buffers(4, alike=2), {"0": Version(one)}, dict.fromkeys("abcd", "0")
    require_manifest(honest := Manifest(versions, started, 2, Chain((one,))), own)
    honest.require_alike(2)
    with pytest.raises(PolicyRefusal, match="keeps 1 clients of a version"):
        Manifest(versions, started, 1, Chain((one,))).require_alike(own.alike, PolicyRefusal)
    with pytest.raises(ProtocolViolation, match="the chain of the run's models"):
        require_manifest(Manifest(versions, started, 2), own)
    with pytest.raises(ProtocolViolation, match="one model for all"):
        require_manifest(Manifest(versions, started, 2, Chain((one,))), None)
    with pytest.raises(Misuse, match="is no link of the chain"):
        Manifest({"0": Version(one, 1)}, started, 2, Chain((one,)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fraction": 0.5}, "fraction: buffers take whoever is done"),
        ({"sampling": "poisson"}, "sampling: buffers take"),
        ({"spare": 0.5}, "spare: buffers take"),
        ({"clients": 3}, "expected a buffer of at most 3 clients, got 4"),
        ({"range": None}, "expected a range"),
        ({"min_survivors": 5}, "min_survivors=5, but a round asks 4"),
    ],
)
def test_what_no_buffer_could_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        federation(**options).fit(1)


def test_running_statistics_and_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(Misuse, match="running statistics from several models"):
        Federation(
            lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)),
            [DataLoader(TensorDataset(*points(i)), 6) for i in range(4)],
            strategy=FedBuff(4),
            range=1.0,
        )
    for sizes in ({"size": 2}, {"alike": 0}, {"leaving": -1}, {"oldest": 0}, {"at_once": 9}):
        with pytest.raises(Misuse, match="expected"):
            FedBuff(**sizes)


def test_the_command_line_knows_it(tmp_path: Path) -> None:
    given = [
        "run",
        "--clients",
        "8",
        "--strategy",
        "fedbuff:size=4,leaving=0",
        "--range",
        "1",
        "--delays",
        "1.5",
    ]
    assert invoke([*given, "--rounds", "3", "--output", str(tmp_path / "out"), "--json"]) == 0
    lines = (tmp_path / "out" / METRICS).read_text().splitlines()
    assert [json.loads(line)["survivors"] for line in lines] == [4, 4, 4]
