"""What a soak says of a run's files: right ones pass, and a round that was lost without a fault does not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dp import ClientDP, Ledger
from examples.flower.keys import deployment_in
from fl.flower.arrays import arrays_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus
from tests.flower.direct import fedavg, model, rostered
from tests.flower.soak import Soak


def layers() -> list[Any]:
    return [ClientDP(noise_multiplier=1.0, clip=1.0), SecAggPlus()]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def soak(folder: Path) -> Soak:
    """A soak over a run that is there, without the processes that play one."""
    made = object.__new__(Soak)
    run = folder / "run"
    it = SimpleNamespace(files=deployment_in(folder / "keys"))
    made.d = SimpleNamespace(it=it, run_folder=run, lines=lambda: lines(run))  # type: ignore[assignment]  # what it asks
    made.folder, made.log, made.memory = folder, folder / "faults.json", {"superlink 1": [9, 10, 10, 10]}
    return made


def test_a_summary_names_what_is_wrong(tmp_path: Path) -> None:
    gone: list[int] = []
    grid, arguments = rostered(
        tmp_path, 4, privacy_mod(layers()), before=lambda node, message: None if node in gone else message
    )
    account = Ledger(tmp_path / "server.ledger", epsilon=1e6, delta=1e-5, accountant="rdp")
    strategy = PrivateStrategy(fedavg(4), layers(), poll=0.01, stage_timeout=0.2, ledger=account, **arguments)
    strategy.start(
        grid, arrays_of(model()), num_rounds=3, evaluate_fn=lambda n, _: gone.extend([1, 2] * (n == 2))
    )
    found = soak(tmp_path).summary()
    assert (found["rounds"], found["closed"]) == (3, 2)
    assert [text.partition(":")[0] for text in found["wrong"]] == ["round 3"]
    hits = [{"after": 2, "fault": "kill a node", "whom": f"site-{node}"} for node in (1, 2)]
    (tmp_path / "faults.json").write_text("".join(json.dumps(hit) + "\n" for hit in hits))
    assert soak(tmp_path).summary()["wrong"] == []
    grown = soak(tmp_path)
    grown.memory = {"superlink 1": [9, 10, 20, 40]}
    assert grown.summary()["wrong"] == ["superlink 1: 10 to 40 KiB"]
