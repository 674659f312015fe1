"""What clients of a buffer do for themselves: they send once, and believe no other model or manifest than they may."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl import FedBuff
from fl.round import Broadcast, Manifest, RoundResult, Version, reference_of
from fl.round.buffers import Buffers, require_manifest
from fl.round.chain import Chain
from fl.round.contribution import contribution_of, encoded
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation
from protocols.store import MemoryStore
from secagg import SecAggPlus
from tests.unit.fl.fedbuff_rig import federation, recorded


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
