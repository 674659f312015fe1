"""Who is asked in a round besides a uniform or a Poisson choice: turns, windows, and more than are awaited; what each
means for amplification.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP
from fl import Federation, GroupMedian
from fl.cli import invoke
from fl.dropouts import delay
from fl.run_options import RunOptions
from fl.sampling import Participants
from protocols.errors import Misuse, ProtocolViolation, StackError
from secagg import SecAggPlus

NAMES = tuple(f"ward-{i}" for i in range(10))


def federation(*privacy: Any, clients: int = 10, **options: Any) -> Federation:
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(8, 3, generator=generator), torch.arange(8) % 2)
    loaders = {name: DataLoader(data, 8) for name in NAMES[:clients]}
    return Federation(lambda: torch.nn.Linear(3, 2), loaders, privacy=privacy, **{"seed": 5, **options})


def rounds_asked(**options: Any) -> list[tuple[str, ...]]:
    made = Participants(RunOptions(**options), NAMES)
    return [made.choose(number, secret=False) for number in range(1, 21)]


def test_everyone_has_a_turn_before_anyone_has_the_next() -> None:
    asked = rounds_asked(sampling="round-robin", fraction=0.3)
    assert all(len(names) == 3 for names in asked)
    for upto in range(1, 21):
        turns = [sum(name in names for names in asked[:upto]) for name in NAMES]
        assert max(turns) - min(turns) <= 1
        assert max(turns) == -(-upto * 3 // len(NAMES))


@pytest.mark.parametrize(
    ("windows", "there"),
    [
        (("ward-0=2-3",), {2, 3}),
        (("ward-0=2-3/5",), {2, 3, 7, 8, 12, 13, 17, 18}),
        (("ward-?=5-1/5",), {1, 5, 6, 10, 11, 15, 16, 20}),
        (("ward-0=1-1", "ward-*=4-4"), {1, 4}),
        (("ward-1=1-1",), set(range(1, 21))),
    ],
)
def test_a_client_is_asked_in_its_windows_alone(windows: tuple[str, ...], there: set[int]) -> None:
    made = Participants(RunOptions(windows=windows), NAMES)
    assert {n for n in range(1, 21) if "ward-0" in made.available(n)} == there
    asked = rounds_asked(windows=windows, fraction=0.4)
    assert {n for n, names in enumerate(asked, 1) if "ward-0" in names} <= there


@pytest.mark.parametrize(
    "text", ["ward-0", "=1-2", "ward-0=0-2", "ward-0=3-2", "ward-0=1-9/8", "ward-0=1-2/0"]
)
def test_a_window_that_is_none_is_refused_by_what_was_said(text: str) -> None:
    with pytest.raises(Misuse, match=r"windows: expected NAMES=FIRST-LAST.*got"):
        federation(windows=(text,))


def test_a_window_that_names_nobody_is_refused() -> None:
    with pytest.raises(Misuse, match="'wards-\\*=1-2' names none of the"):
        federation(windows=("ward-0=1-1", "wards-*=1-2"))


def test_rounds_go_on_with_who_is_there_and_too_few_abandon_one() -> None:
    run = federation(SecAggPlus(), windows=("ward-[0-5]=1-2/3", "ward-[6-9]=3-3/3"), min_survivors=5)
    history = run.fit(6).history
    assert [len(played.asked) for played in history] == [6, 6, 4, 6, 6, 4]
    assert [played.abandoned is None for played in history] == [True, True, False, True, True, False]
    with pytest.raises(Misuse, match="none of 3 has so many"):
        federation(windows=("*=7-9",)).fit(3)


def test_of_more_than_are_awaited_the_first_to_answer_are_taken() -> None:
    run = federation(SecAggPlus(dropout=0.5), fraction=0.5, spare=0.4, delays=1.5)
    for played in run.fit(4).history:
        times = {name: delay(5, played.session_number, name, 1.5) for name in played.asked}
        first = sorted(times, key=times.__getitem__)[:5]
        assert (len(played.asked), set(played.survivors)) == (7, set(first))
        assert played.waited == max(times[name] for name in first)
    waiting = federation(fraction=0.5, delays=1.5).fit(4).history
    assert all(played.waited > 0 and len(played.survivors) == 5 for played in waiting)


def test_noise_and_openings_count_on_the_awaited_alone() -> None:
    run = federation(DistributedDP(noise_multiplier=1.0), SecAggPlus(dropout=0.4), fraction=0.5, spare=0.4)
    planned = run.coordinator.prepare(2)
    assert planned.cohort == 7
    assert run.setup.stack.layers[0].survivors(planned) <= 5
    with pytest.raises(Misuse, match=r"spare: 5 clients of 10 are awaited, and the secure sum opens with"):
        federation(SecAggPlus(dropout=0.1), fraction=0.5, spare=1.0).fit(1)
    with pytest.raises(Misuse, match=r"min_survivors=6, but a round awaits 5"):
        federation(fraction=0.5, spare=1.0, min_survivors=6).fit(1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sampling": "round-robin"}, "round-robin"),
        ({"windows": ("ward-0=1-1",)}, "fixed within windows"),
        ({"spare": 0.3}, "fixed, the first to answer"),
        ({"sampling": "round-robin", "spare": 0.3}, "round-robin, the first to answer"),
    ],
)
def test_turns_windows_and_speed_amplify_nothing(options: dict[str, Any], told: str) -> None:
    noise: dict[str, Any] = {"noise_multiplier": 2.0, "clip": 0.5}
    with pytest.raises(StackError, match=f"client-dp claims amplification.*chosen otherwise: {told}"):
        federation(ClientDP(amplify=True, **noise), fraction=0.5, **options).fit(2)
    found = federation(ClientDP(**noise), fraction=0.5, **options).fit(2)
    everybody = federation(ClientDP(**noise)).fit(2)
    assert found.epsilon == everybody.epsilon
    smaller = federation(ClientDP(amplify=True, **noise), fraction=0.2, sampling="poisson").fit(2)
    assert (smaller.epsilon or 0) < (everybody.epsilon or 0)


def test_what_does_not_go_together_is_refused() -> None:
    for options in ({"windows": ("ward-0=1-2",)}, {"spare": 0.5}):
        with pytest.raises(Misuse, match="every client tosses a coin in every round"):
            federation(sampling="poisson", fraction=0.5, **options)
    with pytest.raises(StackError, match="spare leaves out who answers last"):
        federation(strategy=GroupMedian(3), fraction=0.6, spare=0.5).fit(1)
    assert federation(sampling="round-robin").coordinator.planned(1).sampling == "all"
    assert federation(spare=0.5).coordinator.planned(1).sampling == "all"


def test_a_client_knows_whose_turn_and_window_it_is() -> None:
    node = federation(sampling="round-robin", fraction=0.3, windows=("ward-1=2-2",)).coordinator.participants
    node.require_chosen(1, ("ward-0", "ward-2"))
    for clients in (("ward-0", "ward-1", "ward-2"), ("ward-0", "ward-3")):
        with pytest.raises(ProtocolViolation, match="whose turn or window it is not"):
            node.require_chosen(1, clients)


def test_the_command_line_and_toml_know_them(tmp_path: Path) -> None:
    written = 'clients = 6\nfraction = 0.5\nsampling = "round-robin"\nwindows = ["*5=1-1"]\ndelays = 1.0\nrounds = 2\n'
    (tmp_path / "run.toml").write_text(written)
    given = ["run", str(tmp_path / "run.toml"), "--output", str(tmp_path / "out"), "--json"]
    assert invoke([*given, "--spare", "0.3"]) == 0
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [(found["asked"], found["survivors"]) for found in map(json.loads, lines)] == [(4, 3), (3, 3)]
    assert all(json.loads(line)["waited"] > 0 for line in lines)
