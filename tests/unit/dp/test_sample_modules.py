"""Modules and options that cannot be private are refused or repaired by name."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp.sample.engine import ClientEngine
from dp.sample.errors import UnsupportedModule
from dp.sample.options import Clipping
from dp.sample.validation import problems, repair
from protocols.errors import Misuse
from tests.unit.dp.sample_rig import EXAMPLES, begin, loader, model, probed

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")


def test_modules_that_cannot_be_private_are_named() -> None:
    class Normal(nn.BatchNorm1d):
        """A subclass that a check by exact type would pass over."""

    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), Normal(8), nn.BatchNorm1d(8, affine=False), nn.LSTM(8, 4)
    )
    assert set(problems(net)) == {"1", "2", "3", "4"}
    engine = ClientEngine(Clipping(1.0), 1.0, 0.1, 10)
    with pytest.raises(UnsupportedModule, match="1: BatchNorm1d") as caught:
        begin(engine, net)
    assert set(caught.value.reasons) == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), "zero padding only, not 'circular'"),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), "zero padding only, not 'reflect'"),
        (nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), "zero padding only, not 'replicate'"),
        (nn.Embedding(9, 3, max_norm=1.0), "(max_norm) without clip and noise"),
        (nn.EmbeddingBag(9, 3, max_norm=1.0), "(max_norm) without clip and noise"),
        (nn.Embedding(9, 3, scale_grad_by_freq=True), "counts over the batch"),
    ],
)
def test_options_that_break_per_example_gradients_are_named(module: nn.Module, reason: str) -> None:
    assert reason in problems(nn.Sequential(nn.Identity(), module))["1"]
    module.requires_grad_(requires_grad=False)
    assert bool(problems(module)) == ("max_norm" in reason)  # it writes to a frozen weight too


def test_repair_names_what_it_replaced_and_keeps_names_of_recurrent_layers() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 6)
            self.memory = nn.LSTM(6, 5, batch_first=True)
            self.norm = nn.BatchNorm1d(5)
            self.out = nn.Linear(5, 2)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.memory(self.words(words))
            out: torch.Tensor = self.out(self.norm(hidden[:, -1]))
            return out

    fixed, changes = repair(Reader())
    assert {change.name: change.after for change in changes} == {"memory": "DPLSTM", "norm": "GroupNorm"}
    own = {name for name in Reader().state_dict() if "running" not in name and "tracked" not in name}
    assert set(fixed.state_dict()) == own  # no second names of Opacus' own
    copy.deepcopy(fixed).load_state_dict(fixed.state_dict())
    engine = ClientEngine(Clipping(1.0), 1.0, 0.2, 3)
    engine.size(60)
    words = torch.randint(0, 50, (60, 7), generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(words, words[:, 0] % 2), batch_size=12)
    names = list(fixed.state_dict())
    attached = engine.begin(fixed, torch.optim.SGD(fixed.parameters(), lr=0.1), data, nn.CrossEntropyLoss())
    probed(engine, attached)
    assert engine.finish() == 3
    assert list(fixed.state_dict()) == names


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_recurrent_layers_are_named_repaired_and_trained(kind: Any, gradients: str) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = kind(6, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.memory(x[:, None])[0][:, -1]
            return out

    assert set(problems(Last())) == {"memory"}
    fixed, changes = repair(Last())
    assert [change.name for change in changes] == ["memory"]
    fixed.load_state_dict(Last().state_dict())
    engine = ClientEngine(Clipping(1.0, gradients=gradients), 0.5, 0.1, 10)
    probed(engine, begin(engine, fixed))
    assert engine.finish() == 10
    assert set(fixed.state_dict()) == set(Last().state_dict())


def test_an_optimizer_that_leaves_parameters_out_is_refused_by_name() -> None:
    net, engine = model(), ClientEngine(Clipping(1.0), 1.0, 0.1, 10)
    engine.size(EXAMPLES)
    with pytest.raises(Misuse, match=r"2\.weight"):
        engine.begin(net, torch.optim.SGD(net[0].parameters(), lr=0.1), loader())  # type: ignore[index]


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": 0.0},
        {"clip": math.nan},
        {"gradients": "magic"},
        {"clip": (1.0, 1.0)},
        {"per_layer": True, "gradients": "ghost"},
        {"physical_batch": 0},
    ],
)
def test_clipping_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        Clipping(**wrong)
