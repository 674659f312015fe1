"""A run that is cut off at any point goes on to what the uninterrupted one ends in, record and ledger included."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, Ledger
from fl import Federation
from fl.checkpoint import MODEL
from fl.cli.run_view import closing_table, summary
from fl.round import run_files
from fl.round.run_files import CHECKPOINT, METRICS, STATEMENT
from protocols import PlainSum
from protocols.errors import Misuse, RecordError
from protocols.record import FILE_NAME, RunRecord, check_files, verify_record
from protocols.statement import Statement

CLIENTS, ROUNDS = 3, 3


def make_model() -> torch.nn.Module:
    return torch.nn.Linear(4, 2)


def loaders() -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(CLIENTS * 8, 4, generator=drawn)
    data = [TensorDataset(part, (part.sum(1) > 0).long()) for part in x.split(8)]
    return [DataLoader(part, batch_size=4, shuffle=True) for part in data]


def federation(folder: Path, **options: Any) -> Federation:
    return Federation(make_model, loaders(), output=folder, **options)


def tensors(folder: Path) -> bytes:
    return (folder / MODEL).read_bytes()


def cut_off(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def cut_in_round(number: int) -> Any:
    def train(model: Any, loader: Any, optimizer: Any, round: int) -> None:
        if round == number:
            cut_off()
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return train


@pytest.mark.parametrize("number", [1, 2, ROUNDS])
def test_a_run_cut_off_in_any_round_goes_on(number: int, tmp_path: Path) -> None:
    federation(tmp_path / "whole", train=cut_in_round(0)).fit(ROUNDS)
    with pytest.raises(KeyboardInterrupt):
        federation(tmp_path / "cut", train=cut_in_round(number)).fit(ROUNDS)
    result = federation(tmp_path / "cut", train=cut_in_round(0)).fit(ROUNDS, resume=True)
    assert len(result.history) == ROUNDS
    assert tensors(tmp_path / "cut") == tensors(tmp_path / "whole")


@pytest.mark.parametrize("rounds", [1, ROUNDS])
@pytest.mark.parametrize("place", [MODEL, METRICS, STATEMENT, "append"])
def test_a_run_cut_off_between_checkpoint_and_record_catches_up(
    place: str, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation(tmp_path / "whole").fit(rounds)
    with monkeypatch.context() as patch:
        if place == "append":
            patch.setattr(RunRecord, "append", cut_off)
        else:
            write = run_files.write_atomic
            patch.setattr(
                run_files,
                "write_atomic",
                lambda path, *rest: cut_off() if path.name == place else write(path, *rest),
            )
        with pytest.raises(KeyboardInterrupt):
            federation(tmp_path / "cut").fit(rounds)
    assert len(federation(tmp_path / "cut").fit(rounds, resume=True).history) == rounds
    assert tensors(tmp_path / "cut") == tensors(tmp_path / "whole")
    verdict = verify_record(tmp_path / "cut" / FILE_NAME)
    assert [entry.body["round"] for entry in verdict.entries] == list(range(1, rounds + 1))
    assert {CHECKPOINT, STATEMENT} <= set(check_files(verdict, tmp_path / "cut"))


def test_a_checkpoint_that_was_changed_is_told_by_name_and_not_gone_on_from(tmp_path: Path) -> None:
    federation(tmp_path).fit(1)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for edited in (whole[:-1] + bytes([whole[-1] ^ 1]), None):
        path.unlink()
        if edited is not None:
            path.write_bytes(edited)
            with pytest.raises(RecordError, match=f"{CHECKPOINT} is not the file of the last entry"):
                federation(tmp_path).fit(2, resume=True)
        with pytest.raises(RecordError, match=CHECKPOINT):
            check_files(verify_record(tmp_path / FILE_NAME), tmp_path)
        path.write_bytes(whole)
    assert len(federation(tmp_path).fit(2, resume=True).history) == 2


def test_what_a_run_paid_before_it_was_cut_off_in_its_first_round_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def private() -> Federation:
        ledger = Ledger(tmp_path / "ledger.db", epsilon=1e3, delta=1e-5)
        layers = [ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), PlainSum()]
        return federation(tmp_path / "run", privacy=layers, ledger=ledger)

    first = private()
    with monkeypatch.context() as patch:
        patch.setattr(first.coordinator, "move", cut_off)
        with pytest.raises(KeyboardInterrupt):
            first.fit(1)
    paid = first.account.events
    assert paid
    again = private()
    again.fit(1, resume=True)
    assert again.account.events[: len(paid)] == paid
    assert len(again.account.events) == 2 * len(paid)
    assert {entry.run for entry in again.setup.ledger.entries()} == {again.account.run}


def test_a_run_that_never_ended_a_round_may_begin_again_and_others_are_not_overwritten(
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        federation(tmp_path, train=cut_in_round(1)).fit(1)
    federation(tmp_path).fit(1)
    with pytest.raises(Misuse, match="holds a run already"):
        federation(tmp_path).fit(1)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    federation(tmp_path).fit(1)
    other = Federation(lambda: torch.nn.Linear(4, 2, bias=False), loaders(), output=tmp_path)
    with pytest.raises(Misuse, match="another model"):
        other.fit(2, resume=True)


@pytest.mark.parametrize("options", [{}, {"sampling": "poisson", "fraction": 0.5}])
def test_a_round_that_asks_fewer_than_min_survivors_is_no_round(options: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match="min_survivors=9"):
        Federation(make_model, loaders(), min_survivors=9, **options).fit(1)


def test_a_drawn_cohort_below_min_survivors_is_abandoned() -> None:
    result = Federation(make_model, loaders(), min_survivors=CLIENTS, sampling="poisson", fraction=0.5).fit(
        12
    )
    assert {len(names) for names in result.survivors} <= {0, CLIENTS}
    assert any("min_survivors" in (entry.abandoned or "") for entry in result.history)


def test_noise_calibrated_for_an_epsilon_is_not_stretched_over_more_rounds(tmp_path: Path) -> None:
    def private() -> Federation:
        return federation(tmp_path, privacy=[ClientDP(epsilon=8.0, delta=1e-5, clip=1.0), PlainSum()])

    spent = private().fit(2).epsilon
    with pytest.raises(Misuse, match="'rounds': 2"):
        private().fit(4, resume=True)
    assert private().fit(2, resume=True).epsilon == spent


def test_worthless_noise_ends_in_a_statement_that_says_so_and_goes_on(tmp_path: Path) -> None:
    def worthless() -> Federation:
        return federation(
            tmp_path, privacy=[ClientDP(noise_multiplier=0.02, delta=1e-5, clip=1.0), PlainSum()]
        )

    assert worthless().fit(1).epsilon == math.inf
    result = worthless().fit(2, resume=True)
    assert [entry.epsilon for entry in result.history] == [math.inf, math.inf]
    written = json.loads((tmp_path / STATEMENT).read_text())
    assert Statement.from_json(written) == result.statement
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert [json.loads(line)["epsilon"] for line in lines] == ["infinite", "infinite"]
    verdict = verify_record(tmp_path / FILE_NAME)
    assert [entry.body["epsilon"] for entry in verdict.entries] == ["infinite", "infinite"]
    shown = SimpleNamespace(clients=3, privacy=("client-dp", "none"), output=str(tmp_path))
    assert summary(result, shown)["epsilon"] == "infinite"
    assert "infinite: protects nobody per client at 1e-05 (zero-out, not against the server)" in [
        *closing_table(result, None, shown).columns[1].cells
    ]
