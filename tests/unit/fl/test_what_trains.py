"""Only what trains is sent and noised: frozen layers stay bit for bit, running statistics are refused beside noise or
stay at the client, in a federation and in SecureAverage.
"""

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import Federation, FedSGD, SecureAverage
from fl.tensors.trained import buffers_of
from protocols.errors import Misuse
from secagg import SecAggPlus

CLIENTS = 4


class Adapted(nn.Module):
    """A frozen base with a small adapter beside it, as in low-rank adaptation."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 50)
        self.adapter = nn.Linear(6, 2)
        self.head = nn.Linear(50, 2)
        self.register_buffer("scale", torch.full((), 0.5))
        for frozen in (self.base, self.head):
            frozen.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.head(self.base(x)) + self.scale * self.adapter(x)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def loaders() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    made = {}
    for i in range(CLIENTS):
        x = torch.randn(24, 6, generator=generator) + i
        made[f"site-{i}"] = DataLoader(TensorDataset(x, (x.sum(1) > i).long()), 8)
    return made


def loss(model: Any, batch: Any) -> Any:
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def federation(model: Any, *privacy: Any, **options: Any) -> Federation:
    return Federation(model, loaders(), privacy=privacy, loss=loss, **{"metrics": (), **options})


STACKS = {
    "none": ((), {}),
    "masks": ((SecAggPlus(dropout=0.0),), {}),
    "client": ((ClientDP(noise_multiplier=1.0),), {}),
    "shares": ((DistributedDP(noise_multiplier=1.0), SecAggPlus(dropout=0.0)), {}),
    "local": ((LocalDP(noise_multiplier=1.0),), {}),
    "examples": (
        (
            DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=0.5, examples=96),
            SecAggPlus(dropout=0.0),
        ),
        {"strategy": FedSGD()},
    ),
    "sample": ((SampleDP(noise_multiplier=1.0, batch_size=8),), {}),
}


@pytest.mark.parametrize("name", STACKS)
def test_frozen_layers_are_neither_sent_nor_noised(name: str) -> None:
    """A LoRA run sent and noised its frozen base, and the base moved."""
    privacy, options = STACKS[name]
    run = federation(Adapted, *privacy, **options)
    before = {key: value.clone() for key, value in run.coordinator.model.state_dict().items()}
    # buffers travel where nothing is noised
    assert run.coordinator.schema.dimension == 14 + (name in ("none", "masks"))
    result = run.fit(2)
    after = result.model.state_dict()
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {"adapter.weight", "adapter.bias"}


def test_everything_or_a_pattern_travels_on_request() -> None:
    whole = sum(p.numel() for p in Adapted().parameters())
    assert federation(Adapted, parameters="all").coordinator.schema.dimension == whole + 1  # the buffer, too
    assert federation(Adapted, parameters="adapter.b*").coordinator.schema.dimension == 2 + 1
    both = federation(Adapted, ClientDP(noise_multiplier=1.0), parameters=["adapter.*", "head.bias"])
    assert both.coordinator.schema.dimension == 14 + 2  # beside noise, buffers that are no statistics stay
    for wrong in ("nose.*", ["adapter.*", "nose"], [], "", 3):
        with pytest.raises(Misuse, match="parameters"):
            federation(Adapted, parameters=wrong)


def test_a_model_in_which_nothing_trains_is_refused() -> None:
    with pytest.raises(Misuse, match="nothing trains"):
        federation(lambda: Adapted().requires_grad_(False))


def thawing(model: Any, loader: Any, optimizer: Any) -> None:
    with torch.no_grad():
        model.base.bias += 1


def stretching(model: Any, loader: Any, optimizer: Any) -> None:
    model.scale += 1


@pytest.mark.parametrize(("train", "name"), [(thawing, "base.bias"), (stretching, "scale")])
def test_training_what_is_not_sent_is_an_error_not_a_loss(train: Any, name: str) -> None:
    run = federation(Adapted, ClientDP(noise_multiplier=1.0), train=train)
    with pytest.raises(
        Misuse, match=rf"client 'site-0', round 1: {name}: training changed it, and it is not sent"
    ):
        run.fit(1)


def test_tied_weights_travel_under_both_names() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        model[1].weight = model[0].weight
        return model

    assert federation(tied).coordinator.schema.dimension == 2 * 42


@pytest.mark.parametrize("name", ["client", "shares", "local", "sample"])
def test_running_statistics_beside_noise_are_refused_by_name_with_the_cure(name: str) -> None:
    """LocalDP left a negative variance and NaN."""
    with pytest.raises(Misuse, match=r'1.running_mean: .* would clip and noise.*buffers="local".*GroupNorm'):
        federation(normed, *STACKS[name][0]).fit(1)


@pytest.mark.parametrize("name", ["client", "shares", "local"])
def test_running_statistics_stay_at_the_client_on_request(name: str, tmp_path: Path) -> None:
    run = federation(normed, *STACKS[name][0], buffers="local", output=tmp_path)
    before = run.coordinator.model[1].running_var.clone()
    means: dict[tuple[str, int], Any] = {}

    def train(model: Any, loader: Any, optimizer: Any, round: int) -> None:
        means[loader.dataset.tensors[0].mean().item(), round, "before"] = model[1].running_mean.clone()
        for batch in loader:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
        means[loader.dataset.tensors[0].mean().item(), round, "after"] = model[1].running_mean.clone()

    run.setup.train = type(run.setup.train)(train)
    result = run.fit(2)
    assert torch.equal(result.model[1].running_var, before)  # the server's stay as they were made
    clients = {key[0] for key in means}
    assert len(clients) == CLIENTS
    for client in clients:
        assert torch.equal(means[client, 1, "after"], means[client, 2, "before"])
        assert not torch.equal(means[client, 1, "before"], means[client, 1, "after"])
    assert all(math.isfinite(float(p.detach().sum())) for p in result.model.parameters())


def test_without_noise_running_statistics_travel_as_they_did() -> None:
    run = federation(normed, SecAggPlus(dropout=0.0))
    assert run.coordinator.schema.dimension == sum(p.numel() for p in normed().parameters()) + 8
    assert not torch.equal(run.fit(1).model[1].running_mean, torch.zeros(4))
    with pytest.raises(Misuse, match="buffers"):
        federation(normed, buffers="refuse")


def states(model: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    reference = {k: v.detach().clone() for k, v in model.state_dict(**options).items()}
    moved = {k: v + 0.25 if v.is_floating_point() else v for k, v in reference.items()}
    return {"a": moved, "b": moved, "c": moved}, dict(model.state_dict(**options))


def test_an_average_keeps_statistics_out_of_the_noise_too() -> None:
    updates, reference = states(normed())
    with pytest.raises(Misuse, match=r'1.running_mean: client-dp would clip.*buffers="local"'):
        SecureAverage([ClientDP(noise_multiplier=1.0)])(updates, reference=reference)
    average = SecureAverage([ClientDP(noise_multiplier=1.0)], buffers="local")(updates, reference=reference)
    assert torch.equal(average["1.running_var"], reference["1.running_var"])
    assert not torch.equal(average["0.weight"], reference["0.weight"])


def test_an_average_knows_what_trains_where_the_reference_says_so() -> None:
    updates, reference = states(Adapted(), keep_vars=True)
    with pytest.raises(Misuse, match=r"client 'a': .*: training changed it"):
        SecureAverage()(updates, reference=reference)
    for state in updates.values():
        state.update({k: v.detach() for k, v in reference.items() if not k.startswith("adapter")})
    average = SecureAverage([ClientDP(noise_multiplier=1.0)])(updates, reference=reference)
    changed = {key for key in average if not torch.equal(average[key], reference[key])}
    assert changed == {"adapter.weight", "adapter.bias"}
    plain = {k: v.detach() for k, v in reference.items()}
    named = SecureAverage([ClientDP(noise_multiplier=1.0)], parameters="adapter.*")(updates, reference=plain)
    assert torch.equal(named["base.weight"], plain["base.weight"])
    with pytest.raises(Misuse, match="matches no tensor"):
        SecureAverage(parameters="nose.*")(updates, reference=plain)


def test_noise_that_drowns_the_update_says_so_once_before_round_1_and_in_the_statement() -> None:
    run = federation(Adapted, ClientDP(noise_multiplier=50.0), parameters="all")
    said: list[str] = []
    run.setup.train = type(run.setup.train)(lambda model, loader: said.append("trained"))
    with pytest.warns(UserWarning, match="it drowns the update. About") as seen:
        result = run.fit(2)
    assert len([w for w in seen if "drowns" in str(w.message)]) == 1
    assert len([note for note in result.statement.notes if "it drowns the update" in note]) == 1
    updates, reference = states(Adapted())
    with pytest.warns(UserWarning, match="it drowns the update"):
        SecureAverage([ClientDP(noise_multiplier=50.0)])(updates, reference=reference)


def test_a_pattern_of_a_buffer_matches_its_name_alone() -> None:
    model = torch.nn.Linear(2, 1)
    for name in ("w*", "[b]ias", "bi?s"):
        model.register_buffer(name, torch.zeros(1))
    patterns = buffers_of(model)
    matched = {name for name in model.state_dict() if any(fnmatchcase(name, p) for p in patterns)}
    assert matched == {"w*", "[b]ias", "bi?s"}
