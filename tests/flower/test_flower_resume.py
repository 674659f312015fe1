"""A server that was stopped goes on: to the same model, with the same momenta, past a round whose inputs had left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
    Strategy,
)

from fl.flower.arrays import arrays_of, tree_of
from fl.flower.files import MODEL
from fl.flower.messages import unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round import run_files
from fl.round.run_files import CHECKPOINT, METRICS, STATEMENT
from protocols.errors import Misuse, RecordError, SecAggError
from protocols.record import FILE_NAME, check_files, verify_record
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, client_app, fedavg, model, play_out, rostered

NODES = {"fraction_evaluate": 0.0, "min_train_nodes": 3, "min_available_nodes": 3}
MAKERS: dict[str, Callable[[], Strategy]] = {
    "FedAvg": lambda: FedAvg(**NODES),
    "FedProx": lambda: FedProx(**NODES, proximal_mu=0.1),
    "FedAvgM": lambda: FedAvgM(**NODES, server_learning_rate=0.5, server_momentum=0.9),
    "FedAdagrad": lambda: FedAdagrad(**NODES),
    "FedAdam": lambda: FedAdam(**NODES),
    "FedYogi": lambda: FedYogi(**NODES),
}


class Killed(BaseException):
    """Stands for SIGKILL of the ServerApp."""


class Remembering(FedAvg):
    """A declared subclass with a state of its own: it says how to keep it."""

    needs_only_the_mean = True
    seen = 0

    def secagg_state(self) -> dict[str, np.ndarray]:
        return {"seen": np.array(self.seen)}

    def secagg_restore(self, kept: dict[str, np.ndarray]) -> None:
        self.seen = int(kept["seen"])

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        self.seen += 1
        return super().aggregate_train(server_round, replies)


class Forgetful(FedAvg):
    """A declared subclass that does not say what it keeps."""

    needs_only_the_mean = True


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.33, collusion=0.0, setup="fresh")]


def nodes(folder: Path, **hooks: Any) -> DirectGrid:
    apps = {n: (client_app(privacy_mod(masks(), site=folder / f"n{n}")), {}) for n in (1, 2, 3)}
    return DirectGrid(apps, **hooks)


def run(grid: DirectGrid, inner: Strategy, folder: Path | None, rounds: int, **named: Any) -> dict[str, Any]:
    strategy = PrivateStrategy(inner, masks(), folder=folder, stage_timeout=0.1, poll=0.01, **named)
    return tree_of(strategy.start(grid, arrays_of(model()), num_rounds=rounds).arrays)


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, name: str) -> None:
    make = MAKERS[name]
    expected = run(nodes(tmp_path / "whole"), make(), tmp_path / "a", 4)
    grid = nodes(tmp_path / "stopped")
    run(grid, make(), tmp_path / "b", 2)
    found = run(grid, make(), tmp_path / "b", 4)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype
    assert len(verify_record(tmp_path / "b" / FILE_NAME).entries) == 5


@pytest.mark.parametrize("moment", [MODEL, METRICS, STATEMENT, "record"])
def test_a_kill_between_checkpoint_and_record_is_caught_up_with(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = nodes(tmp_path)
    run(grid, MAKERS["FedAvgM"](), tmp_path / "run", 1)
    write = run_files.write_atomic

    def cut_off(path: Path, *rest: Any) -> None:
        if path.name == moment:
            raise Killed
        write(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(run_files, "write_atomic", cut_off)
        if moment == "record":
            patched.setattr(run_files.RunRecord, "append", lambda *_: cut_off(Path("record")))
        with pytest.raises(Killed):
            run(grid, MAKERS["FedAvgM"](), tmp_path / "run", 2)
    found = run(grid, MAKERS["FedAvgM"](), tmp_path / "run", 3)
    expected = run(nodes(tmp_path / "whole"), MAKERS["FedAvgM"](), None, 3)
    np.testing.assert_array_equal(found["layer.weight"], expected["layer.weight"])
    verdict = verify_record(tmp_path / "run" / FILE_NAME)
    assert [entry.body["round"] for entry in verdict.entries] == [0, 1, 2, 3]
    assert {CHECKPOINT, METRICS} <= set(check_files(verdict, tmp_path / "run"))
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 3


def test_a_checkpoint_that_was_edited_or_put_back_is_not_gone_on_from(tmp_path: Path) -> None:
    grid, folder = nodes(tmp_path), tmp_path / "run"
    run(grid, FedAvg(**NODES), folder, 1)
    first = (folder / CHECKPOINT).read_bytes()
    run(grid, FedAvg(**NODES), folder, 2)
    second = (folder / CHECKPOINT).read_bytes()
    with np.load(folder / CHECKPOINT) as saved:
        np.savez(folder / CHECKPOINT, **{k: a * 2 if a.dtype.kind == "f" else a for k, a in saved.items()})
    with pytest.raises(RecordError, match=r"checkpoint\.npz is not the file of the last entry"):
        run(grid, FedAvg(**NODES), folder, 3)
    (folder / CHECKPOINT).write_bytes(first)
    with pytest.raises(RecordError, match="2 rounds and the checkpoint beside it 1"):
        run(grid, FedAvg(**NODES), folder, 3)
    (folder / CHECKPOINT).write_bytes(second)
    run(grid, FedAvg(**NODES), folder, 3)
    assert CHECKPOINT in check_files(verify_record(folder / FILE_NAME), folder)
    (folder / FILE_NAME).unlink()
    with pytest.raises(RecordError, match="holds nothing and the checkpoint beside it 3"):
        run(grid, FedAvg(**NODES), folder, 4)


def test_a_declared_subclass_says_what_it_keeps_or_starts_anew(tmp_path: Path) -> None:
    grid = nodes(tmp_path)
    run(grid, Remembering(**NODES), tmp_path / "run", 1)
    again = Remembering(**NODES)
    run(grid, again, tmp_path / "run", 3)
    assert again.seen == 3
    grid = nodes(tmp_path / "others")  # for these training would give the same update again
    run(grid, Forgetful(**NODES), tmp_path / "other", 1)
    with pytest.raises(Misuse, match="secagg_state"):
        run(grid, Forgetful(**NODES), tmp_path / "other", 2)


def test_rounds_are_numbered_on_in_the_result(tmp_path: Path) -> None:
    grid = nodes(tmp_path)
    run(grid, FedAvg(**NODES), tmp_path / "run", 2, metrics=["loss"])
    strategy = PrivateStrategy(FedAvg(**NODES), masks(), folder=tmp_path / "run", metrics=["loss"], poll=0.01)
    seen: list[int] = []
    result = strategy.start(
        grid, arrays_of(model()), num_rounds=4, evaluate_fn=lambda number, arrays: seen.append(number)
    )
    assert seen == [3, 4]
    assert sorted(result.train_metrics_clientapp) == [3, 4]


def test_another_strategy_model_or_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    grid, folder = nodes(tmp_path), tmp_path / "run"
    run(grid, FedAvg(**NODES), folder, 1)
    with pytest.raises(Misuse, match="made with FedAvg, this one is FedAdam"):
        run(grid, FedAdam(**NODES), folder, 2)
    strategy = PrivateStrategy(FedAvg(**NODES), masks(), folder=folder)
    with pytest.raises(Misuse, match="another model"):
        strategy.start(grid, arrays_of({"w": np.zeros(3)}), num_rounds=2)
    whole = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(whole[:-30])
    with pytest.raises(SecAggError, match="not a checkpoint"):
        run(grid, FedAvg(**NODES), folder, 2)
    (folder / CHECKPOINT).unlink()
    with pytest.raises(Misuse, match=r"no checkpoint\.npz"):
        run(grid, FedAvg(**NODES), folder, 2)


def stage_of(message: Message) -> str:
    return unpack_request(message.content, None)[0].stage


@pytest.mark.parametrize(
    ("stage", "lost"), [("advertise-keys", 0), ("share-keys", 0), ("masked-input", 1), ("unmask", 1)]
)
def test_a_round_whose_inputs_had_left_is_counted_as_lost(tmp_path: Path, stage: str, lost: int) -> None:
    """Stopped before, it is played again; stopped after, the next round brings other updates."""
    armed = [False]

    def before(node: int, message: Message) -> Message:
        if armed and armed[0] and stage_of(message) == stage:
            raise Killed
        return message

    grid = nodes(tmp_path, before=before)
    run(grid, MAKERS["FedAvgM"](), tmp_path / "run", 1)
    armed[0] = True
    with pytest.raises(Killed):
        run(grid, MAKERS["FedAvgM"](), tmp_path / "run", 4)
    armed.clear()
    grid.replies.clear()
    run(grid, MAKERS["FedAvgM"](), tmp_path / "run", 4)
    verdict = verify_record(tmp_path / "run" / FILE_NAME)
    abandoned = [entry.body["abandoned"] for entry in verdict.entries[1:]]
    assert [why is not None for why in abandoned] == [False, bool(lost), False, False]
    assert [entry.body["number"] for entry in verdict.entries[1:]] == ([1, 2, 3, 4] if lost else [1, 3, 4, 5])
    if lost:
        assert "stopped after inputs had been asked for" in abandoned[1]


def test_training_that_repeats_itself_stops_with_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    """Too few unmask, so nobody has a total; the model stays, and training gives the same updates for ever."""

    def before(node: int, message: Message) -> Message | None:
        return None if stage_of(message) == "unmask" and node > 1 else message

    class Constant(FedAvg):
        """Tells every round that it is the first."""

        needs_only_the_mean = True

        def configure_train(self, server_round: int, *rest: Any) -> Any:
            return super().configure_train(1, *rest)

    grid = nodes(tmp_path, before=before)
    strategy = PrivateStrategy(
        Constant(**NODES), masks(), folder=tmp_path / "run", stage_timeout=0.1, poll=0.01
    )
    with pytest.raises(SecAggError, match="allow_resend"):
        strategy.start(grid, arrays_of(model()), num_rounds=9)
    assert [report.abandoned is not None for report in strategy.history] == [True, True, True]
    assert "3 clients would have sent" in str(strategy.history[1].abandoned)


def test_the_statement_of_a_lost_round_counts_it(tmp_path: Path) -> None:
    """It is the run's last: nothing is played after it, and still it is paid for and in the record."""
    armed = [True]

    def before(node: int, message: Message) -> Message:
        if armed and stage_of(message) == "unmask":
            raise Killed
        return message

    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()), before=before)
    with pytest.raises(Killed):
        PrivateStrategy(fedavg(4), masks(), **arguments, poll=0.01).start(
            grid, arrays_of(model()), num_rounds=1
        )
    armed.clear()
    again = PrivateStrategy(fedavg(4), masks(), **arguments, poll=0.01)
    play_out(again, grid, arrays_of(model()), num_rounds=1)
    verdict = verify_record(tmp_path / "run" / FILE_NAME, arguments["identity"].public)
    assert verdict.entries[-1].body["abandoned"] is not None
    assert "statement.json" in check_files(verdict, tmp_path / "run")
