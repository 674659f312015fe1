"""A client whose own computation fails is left out with its reason, and the round goes on with the others: what is
charged, counted and printed is what it would be without the failure, and no text of the client's reaches the server.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, Ledger, SampleDP
from fl import Federation
from fl.callbacks import Callback
from fl.round.run_files import CHECKPOINT, METRICS
from protocols import PlainSum
from protocols.errors import Misuse
from protocols.layers import LocalTask
from protocols.policy import Policy
from secagg import SecAgg, SecAggPlus

NAMES = ("a", "b", "c", "d", "e")
HANGS_SECONDS = 8.0
"""What a client may take where one hangs: the others train for milliseconds, but not on a busy machine."""
SECRET = "patient 4711 has no date of birth"


def loaders() -> dict[str, DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    parts = torch.randn(40, 4, generator=drawn).split(8)
    return {
        name: DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), 4, shuffle=True)
        for name, x in zip(NAMES, parts, strict=True)
    }


def step(model: Any, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


class Loop:
    """Trains, but does `wrong` at the client `at`, from round `since` on: told by its data, as in life."""

    def __init__(self, wrong: Any, at: str = "b", since: int = 1) -> None:
        first = next(iter(DataLoader(loaders()[at].dataset)))[0]
        self.wrong, self.first, self.since = wrong, first, since

    def __call__(self, model: Any, loader: Any, optimizer: Any, round: int) -> Any:
        here = getattr(loader.dataset, "tensors", None) or loader.dataset.dataset.tensors
        if round >= self.since and torch.equal(here[0][:1], self.first):
            return self.wrong(model)
        return step(model, loader, optimizer)


def federation(train: Any, *privacy: Any, **options: Any) -> Federation:
    return Federation(lambda: torch.nn.Linear(4, 2), loaders(), train, privacy=privacy, **options)


def raises(model: Any) -> None:
    raise KeyError(SECRET)


def reshapes(model: Any) -> None:
    model.weight = torch.nn.Parameter(torch.zeros(3, 3))


def grows(model: Any) -> None:
    model.extra = torch.nn.Linear(1, 1)


def returns(model: Any) -> list[float]:
    return [1.0]


def spoils(model: Any) -> None:
    model.weight.data.fill_(float("nan"))


def dies(model: Any) -> None:
    os._exit(7)


def hangs(model: Any) -> None:
    time.sleep(600)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("secure_sum", [PlainSum, lambda: SecAgg(dropout=0.4)], ids=["plain", "masks"])
@pytest.mark.parametrize(
    "wrong, said",
    [
        (raises, "its loop failed: KeyError; its own log says why"),
        (reshapes, "weight"),
        (grows, "training changed the model's names"),
        (returns, "returned list; expected a dict of floats"),
        (spoils, "weight: holds NaN"),
    ],
)
def test_it_is_left_out_with_its_reason_and_the_round_goes_on(
    wrong: Any, said: str, secure_sum: Any, workers: int
) -> None:
    run = federation(Loop(wrong), secure_sum(), workers=workers)
    history = run.fit(2).history
    for entry in history:
        assert (entry.abandoned, entry.survivors) == (None, ("a", "c", "d", "e"))
        assert entry.refusals["b"].startswith(f"ClientFailed: client 'b', round {entry.number}: ")
        assert said in entry.refusals["b"]


@pytest.mark.parametrize("wrong", [raises, grows, returns])
def test_beside_noise_a_failure_is_told_as_its_kind_alone(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No noise covers the words, and they lie in the run's files."""
    noise = ClientDP(noise_multiplier=1.0, delta=1e-3)
    history = federation(Loop(wrong), noise, SecAgg(dropout=0.4)).fit(1).history
    kind = "KeyError" if wrong is raises else "Misuse"
    told = f"client 'b', round 1: its loop failed: {kind}; its own log says why"
    assert history[0].refusals["b"] == f"ClientFailed: {told}"
    assert {raises: SECRET, grows: "appeared", returns: "returned list"}[wrong] in caplog.text


@pytest.mark.parametrize("wrong, said", [(dies, r"died (exit code 7)"), (hangs, "took longer than 8 s")])
def test_a_worker_that_dies_or_hangs_is_replaced_for_the_clients_after_it(wrong: Any, said: str) -> None:
    began = time.monotonic()
    run = federation(Loop(wrong, at="a"), SecAgg(dropout=0.4), workers=2, client_timeout=HANGS_SECONDS)
    (entry,) = run.fit(1).history
    assert entry.survivors == ("b", "c", "d", "e")
    assert f"the worker process that trained 'a' {said}" in entry.refusals["a"]
    assert time.monotonic() - began < 300
    alone = federation(Loop(raises, at="a"), SecAgg(dropout=0.4))
    alone.fit(1)
    assert torch.allclose(run.model.weight, alone.model.weight, atol=1e-6)


def test_one_process_cannot_end_a_loop_that_hangs_and_says_so_before_round_1() -> None:
    called: list[int] = []
    with pytest.raises(
        Misuse, match=r"client_timeout: one process cannot end a loop.*workers=2 or more, or Flower"
    ):
        federation(lambda model, loader: called.append(1), client_timeout=1.0).fit(1)
    assert called == []
    for wrong in (0, -1.0, "soon"):
        with pytest.raises(Misuse, match="client_timeout: expected a number > 0"):
            federation(step, client_timeout=wrong)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loop_that_works_for_nobody_ends_the_run_with_its_own_error_and_nothing_is_charged(
    workers: int, tmp_path: Path
) -> None:
    def fails(model: Any, loader: Any) -> None:
        raise ZeroDivisionError(SECRET)

    ledger = Ledger(tmp_path / "ledger.db", epsilon=99.0, delta=1e-5)
    run = federation(fails, ClientDP(noise_multiplier=1.0, delta=1e-5), ledger=ledger, workers=workers)
    error = ZeroDivisionError if workers == 1 else Misuse
    with pytest.raises(error, match=SECRET):
        run.fit(2)
    assert not list(ledger.entries())


def test_once_it_worked_a_round_in_which_all_fail_is_abandoned_and_the_run_goes_on() -> None:
    def train(model: Any, loader: Any, optimizer: Any, round: int) -> None:
        if round == 2:
            raise RuntimeError(SECRET)
        step(model, loader, optimizer)

    history = federation(train, SecAggPlus(dropout=0.2)).fit(3).history
    assert [bool(entry.abandoned) for entry in history] == [False, True, False]
    assert set(history[1].refusals) >= set(NAMES)


def test_control_c_is_no_clients_failure() -> None:
    def stop(model: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federation(Loop(stop, at="d")).fit(1)


def test_too_few_left_abandon_the_round() -> None:
    (entry,) = federation(Loop(raises), min_survivors=5).fit(1).history
    assert entry.abandoned
    assert "KeyError" in entry.refusals["b"]


@pytest.mark.parametrize(
    "privacy", [[ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), SecAgg(dropout=0.4)]]
)
def test_a_failure_changes_no_price(privacy: list[Any], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", epsilon=99.0, delta=1e-5, accountant="rdp")
    failing = federation(Loop(raises), *privacy, ledger=ledger).fit(3)
    whole = federation(step, *privacy).fit(3)
    assert failing.epsilon == whole.epsilon == pytest.approx(ledger.epsilon())
    assert failing.statement.events == whole.statement.events


@pytest.mark.parametrize("hook, since", [("on_client_begin", 1), ("on_client_end", 2)])
def test_an_example_level_failure_is_charged_like_everybody_asked(hook: str, since: int) -> None:
    """Before its steps and after them."""

    class Broken(Callback):
        pass

    def fail(self: Any, task: LocalTask, number: int, *metrics: Any) -> None:
        if task.client == "b" and number >= since:
            raise OSError(SECRET)

    def layer() -> SampleDP:
        return SampleDP(epsilon=8.0, delta=1e-3, batch_size=4, examples=8)

    setattr(Broken, hook, fail)
    result = federation(step, layer(), callbacks=[Broken()]).fit(3)
    whole = federation(step, layer()).fit(3)
    assert [len(entry.survivors) for entry in result.history] == [5] * (since - 1) + [4] * (4 - since)
    assert [entry.epsilon for entry in result.history] == [entry.epsilon for entry in whole.history]


def test_beside_a_secret_choice_a_failure_is_told_nowhere_and_priced_as_before(tmp_path: Path) -> None:
    def made(train: Any, folder: Path | None = None) -> Federation:
        layer = ClientDP(noise_multiplier=1.0, delta=1e-5, clip=0.5, amplify=True)
        return federation(train, layer, sampling="poisson", fraction=0.5, output=folder)

    def worked(run: Federation) -> Federation:
        run.engine._worked = True  # type: ignore[attr-defined]  # as after a first round that somebody trained in
        return run

    failing = worked(made(Loop(raises), tmp_path)).fit(4)
    assert failing.epsilon == made(step).fit(4).epsilon
    assert len(failing.statement.events) == 4
    for entry in failing.history:
        assert (entry.abandoned, entry.refusals, entry.asked, entry.survivors) == (None, {}, (), ())
    kept = (tmp_path / METRICS).read_text() + json.dumps(failing.statement.to_json())
    assert "KeyError" not in kept
    assert b"KeyError" not in (tmp_path / CHECKPOINT).read_bytes()


def test_what_a_client_raised_is_in_its_own_log_and_in_no_file_of_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "fl.client"):
        result = federation(Loop(raises), output=tmp_path).fit(1)
    assert any(SECRET in str(record.exc_info) for record in caplog.records)
    assert SECRET not in repr(result.history)
    for path in tmp_path.rglob("*"):
        assert SECRET.encode() not in path.read_bytes()


def test_a_callback_that_fails_at_a_client_is_that_clients_failure() -> None:
    class Broken(Callback):
        def on_client_end(self, task: LocalTask, number: int, metrics: Any) -> None:
            if task.client == "c":
                raise OSError(SECRET)

    (entry,) = federation(step, callbacks=[Broken()]).fit(1).history
    assert entry.survivors == ("a", "b", "d", "e")
    assert "OSError" in entry.refusals["c"]


def test_a_killed_client_leaves_its_state_as_it_was() -> None:
    run = federation(Loop(hangs, since=2), stay_local=("bias",), workers=2, client_timeout=HANGS_SECONDS)
    history = run.fit(3).history
    assert [len(entry.survivors) for entry in history] == [5, 4, 4]


def test_an_abandoned_round_says_why_nobody_took_part() -> None:
    """The sum in clear offers one survivor, and this policy wants two."""
    (entry,) = federation(step, policy=Policy(allow_resend=True)).fit(1).history
    assert entry.abandoned
    assert set(entry.refusals) >= {"a", "b", "c", "d", "e"}
    assert all("the policy demands at least 2" in why for why in entry.refusals.values())
