"""Beside client-level DP an update that holds NaN or infinity counts as zero, and nobody but its client is told: an
abort would name it, outside the price. Without DP it is refused by name.
"""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP
from fl import Federation, SecureAverage
from protocols.errors import Misuse
from protocols.record import FILE_NAME
from secagg import SecAggPlus
from tests.defects.dp import account_rig as check

LAYERS: dict[str, Any] = {
    "client-dp": lambda: [ClientDP(noise_multiplier=1e-4, clip=0.5)],
    "client-dp, masked": lambda: [ClientDP(noise_multiplier=1e-4, clip=0.5), SecAggPlus(dropout=0.0)],
    "client-dp, adaptive": lambda: [ClientDP(noise_multiplier=0.3, clip="adaptive")],
    "local-dp": lambda: [LocalDP(noise_multiplier=1e-3, clip=0.5)],
    "distributed-dp": lambda: [DistributedDP(noise_multiplier=1e-2, clip=0.5), SecAggPlus(dropout=0.0)],
}


def federation(privacy: Any, *bad: int, folder: Path | None = None, **options: Any) -> Federation:
    """Eight clients whose update is .1 in every coordinate; that of `bad` holds NaN."""

    def train(model: Any, loader: Any, optimizer: Any) -> None:
        with torch.no_grad():
            for p in model.parameters():
                p += next(iter(loader))[0][0, 0]

    def loader(value: float) -> Any:
        return DataLoader(TensorDataset(torch.full((4, 1), value)), 4)

    return Federation(
        lambda: torch.nn.Linear(3, 2),
        {f"ward-{i}": loader(math.nan if i in bad else 0.1) for i in range(8)},
        train=train,
        privacy=privacy,
        output=folder,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
def test_an_update_that_holds_nan_counts_as_zero_and_its_own_log_says_so(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = []
    for bad in ((), (2,)):
        run = federation(LAYERS[name](), *bad, folder=tmp_path / str(len(bad)))
        before = run.coordinator.reference().flat.vector
        with caplog.at_level(logging.WARNING):
            result = run.fit(1)
        assert result.history[0].abandoned is None
        moved.append(run.coordinator.reference().flat.vector - before)
    assert np.isfinite(moved[1]).all()
    if name != "client-dp, adaptive":
        assert moved[1] == pytest.approx(moved[0] * 7 / 8, abs=0.02)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "dp.clipping"]
    assert "client 'ward-2', round 1" in said
    for path in (tmp_path / "1").iterdir():
        assert b"NaN" not in path.read_bytes(), path.name
    one, other = (
        [json.loads(line) for line in (tmp_path / str(n) / FILE_NAME).read_text().splitlines()]
        for n in (0, 1)
    )
    assert len(one) == len(other)


def test_a_secret_choice_is_not_told_by_who_fails() -> None:
    layer = ClientDP(noise_multiplier=2.0, clip=0.5, amplify=True)
    result = federation([layer], *range(8), sampling="poisson", fraction=0.5).fit(3)
    assert [entry.abandoned for entry in result.history] == [None] * 3


def test_a_difference_too_large_for_a_float_counts_as_zero_too() -> None:
    average = SecureAverage([ClientDP(noise_multiplier=1e-6, clip=1.0)])
    low, high = ({"w": torch.full((2,), value, dtype=torch.float64)} for value in (-1e308, 1e308))
    with np.errstate(over="ignore"):
        got = average({"a": high, "b": low}, reference=low)
    assert got["w"].tolist() == [-1e308] * 2


def test_without_dp_it_is_refused_by_name() -> None:
    said = "ClientFailed: client 'ward-2', round 1: weight: holds NaN or infinity"
    for privacy in ([], [SecAggPlus(dropout=0.2)]):
        (entry,) = federation(privacy, 2).fit(1).history
        assert len(entry.survivors) == 7
        assert "ward-2" not in entry.survivors
        assert said in entry.refusals["ward-2"]
    state = {"w": torch.zeros(2)}
    with pytest.raises(Misuse, match="client 'b': w: holds NaN"):
        SecureAverage([])({"a": state, "b": {"w": torch.tensor([0.0, math.nan])}}, reference=state)


def test_a_broken_client_is_told_nowhere() -> None:
    assert check.broken_clients_are_told_nowhere()
