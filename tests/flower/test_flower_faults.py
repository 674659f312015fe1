"""What goes wrong between two messages: silence, repeats, forgeries, restarts, old copies. The order is forced here;
the same with real processes is in test_flower_deployment.py.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fl.flower.arrays import arrays_of, tree_of
from fl.flower.messages import FRAMES, pack, strip, unpack_answer, unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.messages import START, Header
from fl.round import RoundResult
from protocols.errors import Misuse, NoResult
from protocols.identity import Identity, Roster, SignedRoster
from protocols.layers import PrivacyLayer, RoundFacts
from protocols.session import Session
from protocols.statement import PrivacyEvent
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, fedavg, model, play_out, rostered

STAGES = ("advertise-keys", "share-keys", "masked-input", "unmask")


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0, setup="fresh")]


def federation(folder: Path, count: int = 4, **named: Any) -> tuple[DirectGrid, dict[str, Any]]:
    return rostered(folder, count, privacy_mod(masks()), **named)


def play(grid: DirectGrid, arguments: dict[str, Any], rounds: int = 1, **named: Any) -> list[RoundResult]:
    strategy = PrivateStrategy(
        fedavg(2), masks(), **{"stage_timeout": 0.1, "poll": 0.01, **arguments, **named}
    )
    play_out(strategy, grid, arrays_of(model()), num_rounds=rounds)
    return strategy.history


def stage_of(message: Message) -> str:
    return unpack_request(message.content, None)[0].stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_node_that_vanishes_before_a_stage_is_survived(tmp_path: Path, stage: str) -> None:
    gone: list[int] = []

    def before(node: int, message: Message) -> Message | None:
        if node == 2 and stage_of(message) == stage:
            gone.append(node)
        return None if node in gone else message

    grid, arguments = federation(tmp_path, before=before)
    (report,) = play(grid, arguments)
    expected = 4 if stage == "unmask" else 3
    assert (report.abandoned, len(report.survivors)) == (None, expected)
    assert "no answer" in report.refusals["site-2"]


def test_too_few_survivors_abandon_the_round_whole_and_the_next_one_works(
    tmp_path: Path, totals: list[np.ndarray]
) -> None:
    def before(node: int, message: Message) -> Message | None:
        request, _ = unpack_request(message.content, None)
        lost = request.header is None and node > 1 and request.stage == "masked-input" and not recovered
        return None if lost else message

    recovered: list[bool] = []
    grid, arguments = federation(tmp_path, before=before)
    (report,) = play(grid, arguments)
    assert report.abandoned is not None
    assert (report.survivors, totals) == ((), [])
    recovered.append(True)
    (later,) = play(grid, arguments, rounds=2)
    assert (later.abandoned, later.number, later.session_number) == (None, 2, 2)


def test_a_node_that_fails_says_why_and_the_others_finish(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, policy={"min_cohort": 2})
    site = tmp_path / "keys" / "site-3" / "site.toml"
    site.write_text(site.read_text().replace("min_cohort = 2", "min_cohort = 99"))
    (report,) = play(grid, arguments)
    assert report.survivors == ("site-1", "site-2", "site-4")
    assert "cohort: the policy demands at least 99" in report.refusals["site-3"]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"min_threshold": 50}, "threshold"),
        ({"allow_layers": ("paillier",)}, "allow_layers"),
        ({"threat": "malicious"}, "threat"),
        ({"signed_roster": True}, "signed_roster"),
    ],
)
def test_a_policy_in_the_nodes_own_files_is_kept(tmp_path: Path, policy: dict[str, Any], reason: str) -> None:
    grid, arguments = federation(tmp_path, policy=policy)
    (report,) = play(grid, arguments)
    assert report.abandoned is not None
    assert all(reason in why for why in report.refusals.values())


def test_an_unknown_policy_or_key_is_refused_by_name(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, policy={"min_cohort": 2})
    site = tmp_path / "keys" / "site-1" / "site.toml"
    site.write_text(site.read_text().replace("min_cohort", "least_cohort"))
    (report,) = play(grid, arguments)
    assert "least_cohort" in report.refusals["site-1"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_request_that_comes_twice_is_answered_once(tmp_path: Path, stage: str) -> None:
    second: list[Message] = []

    def after(node: int, reply: Message) -> Message:
        return reply

    grid, arguments = federation(tmp_path, after=after)
    play(grid, arguments)
    for node, message in grid.log:
        request, _ = unpack_request(message.content, None)
        if request.stage == stage:
            reply = grid.deliver(node, message)
            assert reply is not None
            second.append(reply)
    assert len(second) == 4
    assert all(reply.has_error() for reply in second)


def test_frames_that_come_twice_in_one_reply_count_once(tmp_path: Path, totals: list[np.ndarray]) -> None:
    identity: dict[int, Identity] = {}

    def after(node: int, reply: Message) -> Message:
        if node != 1 or reply.has_error():
            return reply
        answer, frames = unpack_answer(reply.content, None)
        reply.content = pack(answer, [*frames, *frames], identity[1])
        return reply

    grid, arguments = federation(tmp_path, after=after)
    identity[1] = Identity.load(tmp_path / "keys" / "site-1" / "site-1.key")
    (report,) = play(grid, arguments)
    honest, again = federation(tmp_path / "again")
    (clean,) = play(honest, again)
    assert (report.abandoned, clean.abandoned) == (None, None)
    np.testing.assert_array_equal(*totals)
    assert "site-1" in report.refusals


def test_a_forged_answer_is_silence(tmp_path: Path) -> None:
    def after(node: int, reply: Message) -> Message:
        if node == 4 and not reply.has_error():
            answer, frames = unpack_answer(reply.content, None)
            reply.content = pack(answer, frames, Identity.generate("site-4"))
        return reply

    grid, arguments = federation(tmp_path, after=after)
    (report,) = play(grid, arguments)
    assert report.survivors == ("site-1", "site-2", "site-3")
    assert "BadSignature" in report.refusals["site-4"]


def test_a_frame_in_anothers_name_is_silence(tmp_path: Path) -> None:
    frames_of_3: list[bytes] = []

    def after(node: int, reply: Message) -> Message:
        if reply.has_error():
            return reply
        answer, frames = unpack_answer(reply.content, None)
        if node == 3:
            frames_of_3[:] = frames
        if node == 4:
            key = Identity.load(tmp_path / "keys" / "site-4" / "site-4.key")
            reply.content = pack(answer, frames_of_3, key)
        return reply

    grid, arguments = federation(tmp_path, after=after)
    (report,) = play(grid, arguments)
    assert "in the name of" in report.refusals["site-4"]
    assert "site-4" not in report.survivors


def test_a_node_that_is_not_on_the_roster_gets_no_message(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, count=3, strangers=1)
    (report,) = play(grid, arguments)
    assert len(report.survivors) == 3
    assert {node for node, _ in grid.log} == {1, 2, 3}


def test_requests_that_the_rosters_server_did_not_sign_are_refused(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path)
    (report,) = play(grid, {**arguments, "identity": Identity.generate("server")})
    assert all("BadSignature" in why for why in report.refusals.values())


def test_another_authority_or_an_older_roster_is_refused_by_the_node(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path)
    play(grid, arguments)
    path = tmp_path / "keys" / "roster.json"
    authority = Identity.load(tmp_path / "keys" / "authority" / "authority.key")
    current = SignedRoster.load(path).roster
    SignedRoster.sign(replace(current, serial=5), authority).save(path)
    newer = {**arguments, "roster": SignedRoster.load(path)}
    (report,) = play(grid, newer, rounds=2)
    assert report.abandoned is None
    SignedRoster.sign(current, authority).save(path)
    (report,) = play(grid, arguments, rounds=3)
    assert all("older" in why for why in report.refusals.values())
    SignedRoster.sign(replace(current, serial=9), Identity.generate("mallory")).save(path)
    (report,) = play(grid, arguments, rounds=4)
    assert all("pinned" in why for why in report.refusals.values())


def test_a_client_that_is_shown_another_model_takes_no_part(tmp_path: Path) -> None:
    def before(node: int, message: Message) -> Message:
        request, frames = unpack_request(message.content, None)
        if node != 2 or request.kind != START:
            return message
        tree = tree_of(message.content.array_records["arrays"])
        tree["layer.bias"] = tree["layer.bias"] + 1e-9
        content = RecordDict({**strip(message.content), "arrays": arrays_of(tree)})
        server = Identity.load(tmp_path / "keys" / "server" / "server.key")
        return Message(
            RecordDict({**content, **pack(request, frames, server)}), dst_node_id=node, message_type="train"
        )

    grid, arguments = federation(tmp_path, before=before)
    (report,) = play(grid, arguments)
    assert "model: this node has" in report.refusals["site-2"]
    assert "every node must be sent the same one" in report.refusals["site-2"]
    assert "site-2" not in report.survivors


def test_a_session_number_of_a_run_is_taken_part_in_once(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path)
    play(grid, arguments)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    play(grid, arguments, rounds=2)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "copy").rename(tmp_path / "run")  # a server that was put back from a copy
    (report,) = play(grid, arguments, rounds=2)
    assert report.abandoned is not None
    assert all("begin a new run in another folder" in why for why in report.refusals.values())


def test_a_second_experiment_in_another_folder_loses_no_round(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path)
    play(grid, arguments, rounds=3)
    other = {name: array + (array.dtype.kind == "f") for name, array in model().items()}
    strategy = PrivateStrategy(fedavg(2), masks(), poll=0.01, **{**arguments, "folder": tmp_path / "second"})
    strategy.start(grid, arrays_of(other), num_rounds=2)
    assert [(r.abandoned, len(r.survivors)) for r in strategy.history] == [(None, 4)] * 2


def test_a_run_that_is_over_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid, arguments = federation(tmp_path)
    play(grid, arguments)
    assert play(grid, arguments) == []
    assert "is over, with its 1 rounds: nothing is left to do" in caplog.text


def test_a_run_without_a_total_fails_and_leaves_no_model(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, policy={"min_threshold": 50})
    for _ in range(2):  # the second finds nothing left to do
        strategy = PrivateStrategy(fedavg(2), masks(), poll=0.01, **arguments)
        with pytest.raises(NoResult, match=r"every round was abandoned, 2 of 2.*4 parties: .*threshold"):
            strategy.start(grid, arrays_of(model()), num_rounds=2)
    assert not (tmp_path / "run" / "model.npz").exists()
    assert (tmp_path / "run" / "checkpoint.npz").exists()


def test_a_restored_old_store_answers_nothing(tmp_path: Path) -> None:
    site = tmp_path / "keys" / "site-1"

    def before(node: int, message: Message) -> Message:
        if node == 1 and stage_of(message) == "share-keys":
            shutil.copy(site / "state", tmp_path / "old")
        if node == 1 and stage_of(message) == "unmask":
            shutil.copy(tmp_path / "old", site / "state")
        return message

    grid, arguments = federation(tmp_path, before=before)
    (report,) = play(grid, arguments)
    assert (report.abandoned, len(report.survivors)) == (None, 4)
    assert "RollbackDetected" in report.refusals["site-1"]
    (report,) = play(grid, arguments, rounds=2)
    assert "RollbackDetected" in report.refusals["site-1"]


def test_the_same_update_never_leaves_twice(tmp_path: Path) -> None:
    """A feigned abort: the masked vectors came, the server says nothing did and asks the same clients again."""
    grid, arguments = federation(tmp_path)
    play(grid, arguments)
    shutil.rmtree(tmp_path / "run")

    def forget(node: int) -> None:
        """Only the round counter is reset, as by a federation of another name: the spent mark is left to refuse."""
        other = Roster.of("another", 1, arguments["roster"].roster.members)
        authority = Identity.load(tmp_path / "keys" / "authority" / "authority.key")
        SignedRoster.sign(other, authority).save(tmp_path / "keys" / "roster.json")

    forget(1)
    (report,) = play(grid, {**arguments, "roster": SignedRoster.load(tmp_path / "keys" / "roster.json")})
    assert report.abandoned is not None
    assert all("SpentUpdate" in why for why in report.refusals.values())


class Killed(BaseException):
    """Stands for SIGKILL of the ServerApp."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_server_killed_in_mid_round_goes_on_with_a_new_round(tmp_path: Path, stage: str) -> None:
    armed = [True]

    def before(node: int, message: Message) -> Message:
        if armed and stage_of(message) == stage:
            raise Killed
        return message

    grid, arguments = federation(tmp_path, before=before)
    with pytest.raises(Killed):
        play(grid, arguments, rounds=2)
    armed.clear()
    grid.replies.clear()
    reports = play(grid, arguments, rounds=2)
    inputs_left = stage in ("masked-input", "unmask")  # then the round is lost, else it is played again
    assert [r.number for r in reports] == ([2] if inputs_left else [1, 2])
    assert [r.session_number for r in reports] == ([2] if inputs_left else [2, 3])
    assert [r.abandoned for r in reports] == [None] * len(reports)


class Costly(PrivacyLayer):
    """A toy layer that spends something every round."""

    name = "costly"

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        return (PrivacyEvent("Gaussian", {"noise_multiplier": 10.0 + facts.number}, "client", "zero-out"),)


def test_a_round_that_a_kill_interrupted_stays_charged(tmp_path: Path) -> None:
    armed = [True]

    def before(node: int, message: Message) -> Message:
        if armed and stage_of(message) == "unmask":
            raise Killed
        return message

    def layers() -> list[Any]:
        return [Costly(), *masks()]

    grid, arguments = rostered(tmp_path, 4, privacy_mod(layers()), before=before)
    named: dict[str, Any] = {"stage_timeout": 0.1, "poll": 0.01, **arguments}
    strategy = PrivateStrategy(fedavg(2), layers(), **named)
    with pytest.raises(Killed):
        strategy.start(grid, arrays_of(model()), num_rounds=1)
    assert [event.facts["noise_multiplier"] for event in strategy.account.events] == [11.0]
    armed.clear()
    again = PrivateStrategy(fedavg(2), layers(), **named)
    play_out(again, grid, arrays_of(model()), num_rounds=2)
    # updates of round 1 had left: it is lost, and paid for
    assert [report.number for report in again.history] == [2]
    assert [event.facts["noise_multiplier"] for event in again.account.events] == [11.0, 12.0]
    assert len(again.statement().events) == 2


def test_a_roster_needs_a_folder_an_authority_and_an_identity(tmp_path: Path) -> None:
    _, arguments = federation(tmp_path)
    with pytest.raises(Misuse, match="folder"):
        PrivateStrategy(FedAvg(), masks(), **{**arguments, "folder": None})
    with pytest.raises(Misuse, match="all three"):
        PrivateStrategy(FedAvg(), masks(), **{**arguments, "identity": None})


def test_a_header_survives_its_encoding(tmp_path: Path) -> None:
    headers: list[Header] = []

    def before(node: int, message: Message) -> Message:
        request, _ = unpack_request(message.content, None)
        if request.header is not None and request.kind == START:
            headers.append(request.header)
        return message

    grid, arguments = federation(tmp_path, before=before)
    play(grid, arguments)
    assert Header.decode(headers[0].encode()).encode() == headers[0].encode()
    assert Session.decode(headers[0].session).roster == ("site-1", "site-2", "site-3", "site-4")
    assert len({header.encode() for header in headers}) == 1
    assert FRAMES == "secagg.frames"
