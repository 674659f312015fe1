"""On Flower, too: only what trains moves, running statistics stay at the nodes, a secret choice stays secret."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from dp import ClientDP
from fl import Federation
from fl.flower.arrays import arrays_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round.hidden import WITHHELD
from fl.round.run_files import METRICS
from protocols.errors import Misuse
from protocols.plain import PlainSum
from protocols.record import FILE_NAME, verify_record
from tests.flower.direct import DirectGrid
from tests.flower.test_flower_apps import federation, grid_of, same, serve


class Adapted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = torch.nn.Linear(5, 30)
        self.head = torch.nn.Linear(30, 2)
        self.base.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.head(self.base(x))


def of(model: Any, privacy: list[Any], **named: Any) -> Federation:
    made = federation(privacy, **named)
    made.setup.model = model
    return made.with_privacy(privacy)


def normed() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def test_frozen_layers_stay_what_they_were(tmp_path: Path) -> None:
    noisy = [ClientDP(noise_multiplier=1.0), PlainSum()]
    own = of(Adapted, noisy)
    before = {name: value.clone() for name, value in own.coordinator.model.state_dict().items()}
    result = serve(grid_of(tmp_path, lambda: of(Adapted, noisy)), own, 2)
    after = result.model.state_dict()
    assert {name for name in after if not torch.equal(before[name], after[name])} == {
        "head.weight",
        "head.bias",
    }
    plain = serve(grid_of(tmp_path / "plain", lambda: of(Adapted, [])), of(Adapted, []), 2)
    assert same(plain.model, of(Adapted, []).fit(2).model)


def test_what_does_not_train_travels_in_neither_direction(tmp_path: Path) -> None:
    """Every side makes it, the session binds it; the model is that of the run in memory, and the bytes say it."""
    grid = grid_of(tmp_path, lambda: of(Adapted, []))
    result = serve(grid, of(Adapted, []), 2)
    sent = [
        set(m.content.array_records["arrays"]) for _, m in grid.log if "arrays" in m.content.array_records
    ]
    assert sent
    assert all(names == {"head.weight", "head.bias"} for names in sent)
    assert same(result.model, of(Adapted, []).fit(2).model)
    head = 4 * (30 * 2 + 2)
    # 6000: session and frames
    assert all(entry.bytes_down_per_client < head + 6000 for entry in result.history)


def test_a_node_that_makes_another_frozen_part_trains_nothing(tmp_path: Path) -> None:
    class Other(Adapted):
        def __init__(self) -> None:
            super().__init__()
            torch.nn.init.zeros_(self.base.bias)

    made = iter([Other] + [Adapted] * 99)
    grid = grid_of(tmp_path, lambda: of(next(made), []))
    (entry,) = serve(grid, of(Adapted, []), 1).history
    assert "model: this node has" in entry.refusals["site-1"]
    assert "what of a Federation's model does not train, which each side makes" in entry.refusals["site-1"]
    assert "site-1" not in entry.survivors
    assert len(entry.survivors) == 3


def test_running_statistics_stay_at_the_nodes_on_request(tmp_path: Path) -> None:
    noisy = [ClientDP(noise_multiplier=1.0), PlainSum()]
    grid = grid_of(tmp_path, lambda: of(normed, noisy, buffers="local"))
    result = serve(grid, of(normed, noisy, buffers="local"), 2)
    assert [entry.abandoned for entry in result.history] == [None, None]
    assert torch.equal(result.model[1].running_var, torch.ones(4))
    sent = {name for _, message in grid.log for name in message.content.array_records.get("arrays", {})}
    assert not any("running" in name for name in sent)


def test_running_statistics_beside_noise_are_refused_by_name_with_a_strategy_of_ones_own() -> None:
    arrays = {"w": np.zeros(3), "bn.running_mean": np.zeros(2), "bn.running_var": np.ones(2)}
    layers = [ClientDP(noise_multiplier=1.0), PlainSum()]
    grid = DirectGrid({n: (ClientApp(mods=[privacy_mod(layers)]), {}) for n in (1, 2)})
    strategy = PrivateStrategy(FedAvg(min_train_nodes=2, min_available_nodes=2), layers)
    with pytest.raises(Misuse, match=r"bn.running_mean: client-dp would clip and noise"):
        strategy.start(grid, arrays_of(arrays), num_rounds=1)


def test_who_and_how_many_took_part_is_withheld_and_every_round_is_charged(tmp_path: Path) -> None:
    def secret(**named: Any) -> Federation:
        layers = [ClientDP(noise_multiplier=1.0, amplify=True), PlainSum()]
        return federation(layers, sampling="poisson", fraction=0.4, **named)

    own = secret(output=tmp_path / "run")
    own.coordinator.choose = {1: own.setup.names[:2], 2: (), 3: own.setup.names}.__getitem__
    result = serve(grid_of(tmp_path, secret), own, 3)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    assert WITHHELD not in str(result.history)
    assert len(result.statement.events) == 3
    assert result.survivors == [(), (), ()]
    for line in (tmp_path / "run" / METRICS).read_text().splitlines():
        told = json.loads(line)
        assert (told["asked"], told["survivors"], told["seconds"], told.get("trips", [])) == (
            None,
            None,
            {},
            [],
        )
    for entry in verify_record(tmp_path / "run" / FILE_NAME).entries:
        assert (entry.body.get("asked"), entry.body.get("survivors")) == (None, None)
