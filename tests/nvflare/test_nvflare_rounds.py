"""A Federation over NVFlare's tasks: totals as in memory bit for bit, ledgers, statements, stops and leavers."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nvflare", reason="the extra nvflare is not installed")

from nvflare.apis.shareable import Shareable

from dp import ClientDP, Ledger
from fl import Federation, checkpoint
from fl.account import DEFAULT_DELTA
from fl.callbacks import Callback
from fl.engines.memory import MemoryEngine
from fl.network.messages import CLOSE, START
from fl.network.network_engine import NetworkEngine
from fl.nvflare import PrivateExecutor
from fl.nvflare.controller import TaskParty
from fl.nvflare.messages import unpack_answer, unpack_request
from fl.round import party
from fl.round.party_ledger import LEDGER
from fl.round.run_files import KeptRun
from protocols.record import FILE_NAME, verify_record
from protocols.simulate import simulate
from tests.nvflare import federations
from tests.nvflare.direct import Deployment
from tests.nvflare.federations import SITES

HERE = "tests.nvflare.federations"
Totals = dict[type, list[Any]]


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> Totals:
    """What each engine's sums ended with, in order: the session, and what came out."""
    found: Totals = {MemoryEngine: [], NetworkEngine: []}
    for kind in found:

        def watched(self: Any, broadcast: Any, session: Any, charge: Any, sum_: Any = kind.sum) -> Any:
            summed = sum_(self, broadcast, session, charge)
            found[type(self)].append((session, summed))
            return summed

        monkeypatch.setattr(kind, "sum", watched)
    return found


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The integers that each client last put into a sum."""
    found: dict[str, np.ndarray] = {}
    encoded = party.encoded

    def watched(broadcast: Any, contribution: Any, own: Any) -> Any:
        made = encoded(broadcast, contribution, own)
        found[own.client] = made[0]
        return made

    monkeypatch.setattr(party, "encoded", watched)
    return found


def place(name: str) -> str:
    return f"{HERE}:{name}"


def folder(deployment: Deployment, run: str = "run") -> Path:
    at = "simulate_job/secagg" if deployment.simulated else "local/secagg"
    return deployment.root / "server" / at / "runs" / run


def kept(deployment: Deployment) -> KeptRun:
    found = checkpoint.load_run(folder(deployment))
    assert found is not None
    return found


def stage_of(message: Shareable) -> str:
    return unpack_request(message, None)[0].stage


def losing(client: str, stage: str) -> Callable[[str, Shareable], Shareable | None]:
    """Nothing reaches a client from a stage on."""
    gone = set[str]()

    def change(name: str, message: Shareable) -> Shareable | None:
        if name == client and stage_of(message) == stage:
            gone.add(name)
        return None if name in gone else message

    return change


@pytest.mark.parametrize("name", ["plain", "masked"])
def test_totals_and_model_are_those_of_the_run_in_memory_bit_for_bit(
    tmp_path: Path, name: str, totals: Totals
) -> None:
    deployment = Deployment(tmp_path, place(name), SITES)
    assert deployment.play(2) == []
    expected = getattr(federations, name)().fit(2)
    for (_, ours), (_, theirs) in zip(totals[NetworkEngine], totals[MemoryEngine], strict=True):
        assert np.array_equal(ours.total, theirs.total)
    for key, array in expected.model.state_dict().items():
        assert torch.equal(torch.from_numpy(np.asarray(kept(deployment).model[key])), array)


@pytest.mark.parametrize(
    ("name", "helpers"),
    [
        ("masked", ()),
        ("paillier", ("ward-9",)),
        ("ckks", ("ward-9",)),
        ("client_dp", ()),
        ("distributed_dp", ()),
        ("sample_dp", ()),
        ("local_dp", ()),
    ],
)
def test_every_layer_gives_the_total_of_the_same_vectors_in_memory(
    tmp_path: Path, name: str, helpers: tuple[str, ...], totals: Totals, vectors: dict[str, np.ndarray]
) -> None:
    deployment = Deployment(tmp_path, place(name), (*SITES, *helpers))
    assert deployment.play(1) == []
    ((session, summed),) = totals[NetworkEngine]
    assert summed.survivors == SITES
    assert sorted(vectors) == sorted(SITES)
    protocol = getattr(federations, name)().setup.stack.secure_sum
    again = simulate(protocol, vectors, bound=session.bound, modulus=session.modulus)
    assert np.array_equal(summed.total, again.total)


@pytest.mark.parametrize("name", ["client_dp", "distributed_dp", "sample_dp", "local_dp"])
def test_what_noise_costs_is_in_every_sites_ledger_and_in_the_statement(tmp_path: Path, name: str) -> None:
    """The noise is calibrated for epsilon 8 over two rounds, and no site's own account says more."""
    deployment = Deployment(tmp_path, place(name), SITES)
    assert deployment.play(2) == []
    for site in SITES:
        own = tmp_path / site / "simulate_job" / "secagg" / LEDGER
        ledger = Ledger(own, epsilon=math.inf, delta=DEFAULT_DELTA, accountant="rdp")
        assert [entry.round for entry in ledger.entries()] == [1, 2]
        assert 7.0 < ledger.epsilon() <= 8.0
    statement = json.loads((folder(deployment) / "statement.json").read_text())
    assert {event["layer"] for event in statement["events"]} == {name.replace("_", "-")}
    assert "simulated nodes" in json.dumps(statement)
    verify_record(folder(deployment) / FILE_NAME)


@pytest.mark.parametrize("stage", ["masked-input", "unmask"])
def test_a_client_that_falls_silent_is_left_out_and_the_round_ends(
    tmp_path: Path, stage: str, totals: Totals
) -> None:
    lost = losing("site-4", stage)
    deployment = Deployment(tmp_path, place("masked"), SITES, before=lost)
    assert deployment.play(1) == []
    (result,) = kept(deployment).history
    assert result.abandoned is None
    assert result.survivors == (SITES if stage == "unmask" else SITES[:3])
    assert "no answer" in result.refusals["site-4"]


def test_a_job_that_was_killed_is_submitted_again_and_goes_on(tmp_path: Path) -> None:
    """The server dies in its second round with the last answer: that round is lost, the third is played."""
    deployment = Deployment(tmp_path, place("masked"), SITES, simulated=False)
    deployment.allow()
    assert deployment.play(1) == []
    before, answers = kept(deployment), set[str]()

    def stops(name: str, reply: Shareable) -> Shareable:
        if unpack_answer(reply, None)[0].stage == "unmask":
            answers.add(name)
        if answers == set(SITES):  # all of them may lie there when the server looks again
            deployment.abort.trigger(True)
        return reply

    deployment.after = stops
    assert deployment.play(3) == ["SecAggError: the job was aborted"]
    assert kept(deployment).rounds == before.rounds
    again = Deployment(tmp_path, place("masked"), SITES, simulated=False)
    assert again.play(3) == []
    history = kept(again).history
    assert [result.number for result in history] == [1, 2, 3]
    assert "stopped after inputs" in str(history[1].abandoned)
    assert [result.abandoned for result in history][::2] == [None, None]
    assert history[2].survivors == SITES


def test_nothing_is_sent_or_paid_for_after_an_abort_between_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the end of round 1, when no answer is waited for: round 2 is not asked for, and goes on later."""
    deployment = Deployment(tmp_path, place("stopped"), SITES, simulated=False)

    class Stops(Callback):
        def on_round_end(self, run: Any, result: Any) -> None:
            deployment.abort.trigger(result.number == 1)

    def stopped(site: Any = None) -> Federation:
        noise = ClientDP(epsilon=8, delta=1e-5, clip=1.0)
        return federations.made(noise, federations.masks(), callbacks=[Stops()])

    monkeypatch.setattr(federations, "stopped", stopped, raising=False)
    deployment.allow()
    late: list[str] = []

    def watched(name: str, task: Shareable) -> Shareable:
        if deployment.abort.triggered:
            late.append(name)
        return task

    deployment.before = watched
    assert deployment.play(3)[0] == "SecAggError: the job was aborted"
    assert late == []
    assert len(json.loads((folder(deployment) / "statement.json").read_text())["events"]) == 1
    again = Deployment(tmp_path, place("stopped"), SITES, simulated=False)
    assert again.play(3) == []
    assert [result.abandoned for result in kept(again).history] == [None] * 3
    assert len(json.loads((folder(again) / "statement.json").read_text())["events"]) == 3


def test_after_an_abort_no_further_client_is_sent_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(tmp_path, place("masked"), SITES)
    sent, send = list[str](), TaskParty._send

    def first(party: TaskParty, name: str, *what: Any) -> Any:
        task = send(party, name, *what)
        sent.append(name)
        deployment.abort.trigger(True)
        return task

    monkeypatch.setattr(TaskParty, "_send", first)
    assert deployment.play(1) == ["SecAggError: the job was aborted"]
    assert len(sent) == 1


def test_a_server_that_reads_every_update_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deployment = Deployment(tmp_path, place("plain"), SITES)
    assert deployment.play(1) == []
    assert "no secure sum is listed: the server reads every update" in caplog.text
    assert "the server reads what this node sends" in caplog.text


def test_who_is_connected_and_takes_no_part_is_in_the_servers_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = Deployment(tmp_path, place("masked"), (*SITES, "hospital"))
    assert deployment.play(2) == []
    assert [result.survivors for result in kept(deployment).history] == [SITES] * 2
    said = [r.getMessage() for r in caplog.records if "takes no part" in r.getMessage()]
    assert said == [
        f"node 'hospital' takes no part: it calls itself 'hospital', the clients are {list(SITES)}"
    ]


def test_an_aborted_job_waits_for_no_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deployment = Deployment(tmp_path, place("masked"), SITES[:1])
    deployment.abort.trigger(True)
    caplog.set_level("INFO")
    assert deployment.play(1, timeout=2.0) == ["SecAggError: the job was aborted"]
    assert "of 4 clients are connected" not in caplog.text


def test_a_job_whose_run_is_over_says_so_and_another_run_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = Deployment(tmp_path, place("masked"), SITES, simulated=False)
    deployment.allow()
    for _ in range(2):
        assert deployment.play(1) == []
    assert [r.getMessage() for r in caplog.records if "is over, with its 1 rounds" in r.getMessage()]
    (said,) = deployment.play(1, run="same")  # the very updates of the first run
    assert "another seed of a Federation" in said
    deployment.place = place("other")
    deployment.executors = {name: PrivateExecutor(deployment.place) for name in SITES}
    deployment.allow()
    assert deployment.play(1, run="second") == []
    second = checkpoint.load_run(folder(deployment, "second"))
    assert second is not None
    assert [result.survivors for result in second.history] == [SITES]


def test_every_client_is_sent_a_task_of_its_own(tmp_path: Path) -> None:
    """One send per client and trip: what one is sent is addressed to it and nobody else is sent it."""
    seen: list[tuple[str, str, str]] = []

    def watched(name: str, message: Shareable) -> Shareable:
        request = unpack_request(message, None)[0]
        seen.append((name, request.recipient, request.stage))
        return message

    assert Deployment(tmp_path, place("masked"), SITES, before=watched).play(1) == []
    assert all(name == recipient for name, recipient, _ in seen)
    stages = {stage for _, _, stage in seen}
    assert {START, CLOSE}.isdisjoint(stages - {CLOSE})
    assert len(seen) == len(set(seen)) == len(SITES) * len(stages)
