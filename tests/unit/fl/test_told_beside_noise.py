"""Beside noise nothing that is told follows a client's number of examples: no size, no cap made of sizes, no seconds of
training. Without noise all of them are there.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import checkpoint
from fl.round.run_files import METRICS
from secagg import SecAggPlus
from tests.defects.dp import account_rig as check

Z: dict[str, Any] = {"noise_multiplier": 2.0, "delta": 1e-5}
LAYERS: dict[str, Any] = {
    "client-dp": lambda: [ClientDP(**Z)],
    "client-dp, bounded": lambda: [ClientDP(**Z, weights="bounded", weight_cap=100), SecAggPlus(dropout=0.0)],
    "local-dp": lambda: [LocalDP(**Z)],
    "distributed-dp": lambda: [DistributedDP(**Z), SecAggPlus(dropout=0.0)],
    "sample-dp, public number": lambda: [SampleDP(**Z, batch_size=8, examples=40)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_told_beside_noise_follows_no_client_s_size(name: str, tmp_path: Path) -> None:
    plans, kept = [], []
    for size in (8, 40):
        folder = tmp_path / str(size)
        run = check.federation(LAYERS[name](), [8, size, 8], output=folder)
        run.fit(2)
        shown = run.coordinator.sample()
        plans.append((run.coordinator.run.weight_cap, shown.plan.signals, shown.plan.modulus))
        kept.append(checkpoint.load_run(folder).made_with)
        for line in (folder / METRICS).read_text().splitlines():
            assert set(json.loads(line)["seconds"]) == {"privacy_server"}
    assert plans[0] == plans[1]
    assert kept[0] == kept[1]
    assert check.federation(LAYERS[name](), [8, 8, 8], output=tmp_path / "8").fit(3, resume=True).history[2]


def test_where_sizes_are_public_or_nothing_is_noised_they_are_kept_and_compared(tmp_path: Path) -> None:
    for name, privacy in (("plain", []), ("sizes declared", [SampleDP(**Z, batch_size=8)])):
        check.federation(privacy, [8, 40], output=tmp_path / name).fit(1)
        kept = checkpoint.load_run(tmp_path / name).made_with
        assert kept["examples"] == {"ward-0": 8, "ward-1": 40}
    told = json.loads((tmp_path / "plain" / METRICS).read_text().splitlines()[-1])
    assert set(told["seconds"]) == {"train", "privacy_client", "privacy_server"}


def test_sizes_and_seconds_are_told_nowhere() -> None:
    assert check.sizes_and_seconds_are_told_nowhere()
