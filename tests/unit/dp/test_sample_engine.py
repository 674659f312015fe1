"""What a client's engine attaches, looks at once, keeps and takes off again."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp.sample import draws, engine
from dp.sample.engine import ClientEngine
from dp.sample.errors import NonFiniteGradient, UnaccountedStep, UnsupportedModule
from dp.sample.expanded import Expanded
from dp.sample.hooks import HUNG, gradient_left
from dp.sample.memory import remembered
from dp.sample.options import GRADIENTS, Clipping
from protocols.errors import Misuse
from tests.defects.dp.sample_models import padded, tokens, vectors
from tests.unit.dp.test_dp_sample_rows import CLIP, line, made
from tests.unit.dp.test_sample_steps import begun


def played(at: Any) -> list[int]:
    """A pass of an honest loop; the sizes of what it was given."""
    sizes = []
    for x, y in at.loader:
        sizes.append(len(x))
        at.criterion(at.model(x), y).backward()
        at.optimizer.step()
    return sizes


@pytest.mark.parametrize("mode", GRADIENTS)
def test_a_mode_is_how_rows_are_made(mode: str) -> None:
    net = made(line)
    client, _ = begun(net, vectors(), Clipping(CLIP, gradients=mode), "sum")
    assert isinstance(client._hooks, Expanded) == (mode == "ew")
    client.abandon()
    hooks = client.row_hooks(net)
    assert (hooks.functional, hooks.again, hooks.reduction) == (mode == "functorch", mode == "ghost", "sum")


def test_pads_that_expanded_weights_would_train_are_refused_at_the_beginning() -> None:
    with pytest.raises(UnsupportedModule, match="pads"):
        begun(made(padded), tokens(), Clipping(CLIP, gradients="ew"))


def test_a_batch_passes_in_parts_that_are_no_larger_than_asked() -> None:
    client, at = begun(made(line), vectors(), Clipping(CLIP, physical_batch=5))
    assert played(at) == [5, 5, 2]
    assert client.finish() == 1


@pytest.mark.parametrize("mode", GRADIENTS)
def test_nothing_is_left_on_a_model_whose_loop_broke(mode: str) -> None:
    net = made(line)
    client, at = begun(net, vectors(), Clipping(CLIP, gradients=mode, physical_batch=5))
    x, y = next(iter(at.loader))
    at.criterion(at.model(x), y).backward()
    at.optimizer.step()
    assert all(hasattr(p, "summed_grad") for p in net.parameters())
    client.abandon()
    assert not [name for p in net.parameters() for name in HUNG if hasattr(p, name)]
    assert [p.grad for p in net.parameters()] == [None] * 4


class Looked:
    """Stands in the place of the check: what it was asked."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        LOOKED.append(self)

    def script(self) -> Any:
        return iter(())

    def drive(self, run: Any) -> Any:
        if FAILS:
            raise NonFiniteGradient("no example has a finite gradient")
        return SimpleNamespace(insist=lambda: FOUND)


LOOKED: list[Looked] = []
FAILS: list[bool] = []
FOUND = SimpleNamespace(layouts=None, reduction="sum", constants={})


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> tuple[ClientEngine, Any]:
    """An engine in a round, of thirty public and twelve examples."""
    monkeypatch.setattr(engine, "Probe", Looked)
    LOOKED.clear()
    FAILS.clear()
    made_here = ClientEngine(Clipping(CLIP), 1.0, 1.0, 1)
    made_here.size(30)
    net, criterion = made(line), nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    return made_here, made_here.begin(net, sgd, DataLoader(vectors(), batch_size=4), criterion)


def test_a_loop_is_checked_until_it_is_known_and_its_own_examples_too(client: Any) -> None:
    own, at = client
    for known, checked, looks in [
        (None, False, 1),
        (None, True, 1),
        (FOUND, False, 1),
        (FOUND, True, 0),
    ]:
        own.probed, own.checked = known, checked
        LOOKED.clear()
        assert own.probe(lambda: None) is FOUND
        assert (own.probed, own.checked) == (FOUND, True)
        assert len(LOOKED) == looks
        assert at.loader._parts.most is None


def test_the_check_is_told_the_public_number_and_what_is_known(client: Any) -> None:
    own, at = client
    own.probed = FOUND
    own.check(lambda: None)
    model, fetch, examples, largest, hooks, copies, known, seen, public, criterion = LOOKED[0].given
    assert (model, hooks, criterion) == (own._model, own._hooks, at.criterion)
    assert (examples, largest, copies, known, seen, public) == (12, at.loader._largest, 2, FOUND, False, 30)
    assert fetch([1, 2])[1].tolist() == [1, 2]
    assert (at.loader.script, at.optimizer.probe) == (None, None)
    assert own._hooks.reduction == "sum"


def test_where_nothing_can_be_checked_examples_pass_one_by_one(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own, at = client
    FAILS.append(True)
    assert own.probe(lambda: None) is None
    assert at.loader._parts.most == 1
    assert caplog.messages[0].startswith("this client: no example has a finite gradient")
    with caplog.at_level(logging.WARNING):
        own.probe(lambda: None, "ward-1")
    assert caplog.messages[1].startswith("ward-1: no example has a finite gradient")


def test_how_many_examples_counted_as_zero_is_told_in_the_clients_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    x = torch.randn(12, 4)
    x[:2] = float("nan")
    for whose in ([], ["ward-1"]):
        client, at = begun(
            made(line), TensorDataset(x, torch.arange(12) % 3), Clipping(CLIP, physical_batch=1)
        )
        played(at)
        client.finish(*whose)
    ends = " counted as zero, and nobody else is told: check the data, the loss and the learning rate"
    for said, whose in zip(caplog.messages, ("this client", "ward-1"), strict=True):
        assert said.startswith(f"{whose}: the gradients of 2 examples held NaN or infinity")
        assert said.endswith(ends)


def test_where_draws_are_secret_a_seed_is_refused_and_elsewhere_not() -> None:
    own = ClientEngine(Clipping(), 1.0, 1.0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        with own.watched():
            torch.manual_seed(2)
            torch.ones(1).sum()
        with own.watched(secret=True):
            torch.ones(1).sum()
            torch.manual_seed(3)
            with pytest.raises(UnaccountedStep, match="seeds torch"):
                torch.ones(1).sum()


def test_outside_a_round_a_gradient_is_what_it_is() -> None:
    weight = torch.ones(1, requires_grad=True)
    with ClientEngine(Clipping(), 1.0, 1.0, 1).watched():
        (3 * weight).sum().backward()
    assert float(weight.grad or 0) == 3
    net = made(line)
    client, at = begun(net, vectors(), Clipping(CLIP))
    x, _ = next(iter(at.loader))
    assert client._times(net(x).sum()) == 12


class Caches(nn.Module):
    """Writes a table that follows nothing, in its first pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = line()

    def forward(self, x: torch.Tensor) -> Any:
        self.table = [1.0, 2.0]
        return self.inner(x)


def test_what_the_check_saw_every_first_pass_write_may_stay() -> None:
    other = Caches()
    other(torch.ones(1, 4))
    client, at = begun(Caches(), vectors(), Clipping(CLIP))
    played(at)
    with pytest.raises(UnaccountedStep, match="table is an attribute"):
        client.finish()
    client, at = begun(Caches(), vectors(), Clipping(CLIP))
    assert client.probed is not None
    client.probed.constants.update(remembered(other, nn.CrossEntropyLoss()))
    played(at)
    assert client.finish() == 1


class Bare(torch.optim.SGD):
    """Steps without a learning rate."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        for group in self.param_groups:
            group["own"] = group.pop("lr")

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns nothing
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["own"] * p.grad


@pytest.mark.parametrize("schedule", [(), (0.5,)])
def test_a_schedule_needs_a_learning_rate_and_multiplies_it(schedule: tuple[float, ...]) -> None:
    moved = []
    for factors in ((), schedule):
        client, net = ClientEngine(Clipping(CLIP), 1e-5, 1.0, 1), made(line)
        client.size(12)
        data, before = DataLoader(vectors(), batch_size=4), net[0].weight.detach().clone()  # type: ignore[index]
        sgd = torch.optim.SGD(net.parameters(), lr=1.0)
        played(client.begin(net, sgd, data, nn.CrossEntropyLoss(), schedule=factors))
        assert client.finish() == 1
        assert sgd.param_groups[0]["lr"] == 1.0
        moved.append(net[0].weight.detach() - before)  # type: ignore[index]
    assert torch.allclose(moved[1], moved[0] * (schedule or (1.0,))[0], atol=1e-6)
    client.size(12)
    if schedule:
        with pytest.raises(Misuse, match="groups have a learning rate"):
            client.begin(net, Bare(net.parameters()), data, schedule=schedule)
    else:
        played(client.begin(net, Bare(net.parameters()), data, nn.CrossEntropyLoss()))


def test_after_a_check_expanded_weights_listen_again() -> None:
    net = made(line)
    rows = Expanded(net, "mean")
    rows.listen(False, 12, "mean")
    assert rows.wrapped.forward == net.forward
    assert rows.times(net(torch.ones(1, 4)).sum()) == 1
    rows.listen(True, 12, "mean")
    assert rows.wrapped.forward != net.forward
    assert rows.times(net(torch.ones(1, 4)).sum()) == 12
    assert rows.times(torch.ones(1, requires_grad=True).sum()) == 1
    assert rows.times(rows.wrapped(torch.ones(12, 4)).sum()) == 12
    rows.listen(False, 12, "mean")
    (net(torch.ones(2, 4)) * 3).sum().backward()
    once = gradient_left(net)
    (net(torch.ones(2, 4)) * 3).sum().backward()
    for name, p in net.named_parameters():
        p.grad = None  # whatever the loop does to it
        assert gradient_left(net)[name].allclose(2 * once[name])
    rows.listen(True, 12, "sum")
    assert rows.times(net(torch.ones(1, 4)).sum()) == 1
    rows.cleanup()


def test_secret_states_begin_at_their_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy keeps a normal draw back: one that is known would be the first that the loop sees."""
    kept: Any = np.random.get_state()
    seeds: list[int] = []
    with torch.random.fork_rng():
        draws.draw_secretly()
        assert np.random.get_state()[2:4] == (624, 0)
        monkeypatch.setattr(draws, "accelerated", lambda: True)
        monkeypatch.setattr(torch, "manual_seed", seeds.append)
        draws.seed_torch(5)
        monkeypatch.setattr(draws, "accelerated", lambda: False)
        draws.seed_torch(6)
    np.random.set_state(kept)
    assert seeds == [5]
