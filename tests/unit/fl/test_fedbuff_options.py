"""Which buffers are refused, and FedBuff on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import FedBuff, Federation
from fl.cli import invoke
from fl.round.run_files import METRICS
from protocols.errors import Misuse
from tests.unit.fl.fedbuff_rig import federation, points


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
