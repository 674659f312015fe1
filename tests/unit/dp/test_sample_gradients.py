"""What a client adds up for a distributed sum, number by number; and an example's own gradients as factors."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dp.sample import factors, gradients, own_sum
from dp.sample.audit.probe import Probed
from dp.sample.errors import NonFiniteGradient, UnaccountedStep, UnsupportedModule
from dp.sample.gradients import clipped_sum, prove
from dp.sample.hooks import HUNG
from dp.sample.layout import Layout, Layouts
from dp.sample.memory import remembered
from dp.sample.own_sum import OwnSum
from dp.sample.remade import LookedUp
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.defects.dp.sample_models import SOUND, sequences, vectors
from tests.unit.dp.test_dp_sample_rows import CLIP, line, loss_of, made, plain
from tests.unit.dp.test_sample_engine import Caches
from tests.unit.dp.test_sample_steps import unclipped

STEP = 2.0**-30


def summed(net: nn.Module, data: Any, loss: Any = loss_of, **options: Any) -> tuple[Any, dict[str, float]]:
    given: dict[str, Any] = {"rate": 1.0, "clip": CLIP, "step": STEP, "random": SystemRandom()} | options
    return clipped_sum(net, loss, DataLoader(data, batch_size=4), **given)


def vector(named: dict[str, Any]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(total * STEP).reshape(-1) for total in named.values()]).float()


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float((one - other).norm()) < 1e-2 * CLIP


def total_loss(model: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")


@pytest.mark.parametrize("most", [5, None])
@pytest.mark.parametrize(("loss", "options"), [(loss_of, {}), (total_loss, {"reduction": "sum"})])
def test_a_sum_its_type_and_its_mean_loss(loss: Any, options: dict[str, str], most: int | None) -> None:
    net, data, sizes = made(line), vectors(), []

    def counted(model: Any, batch: Any) -> torch.Tensor:
        sizes.append(len(batch[0]))
        return loss(model, batch)  # type: ignore[no-any-return]

    named, private = summed(net, data, counted, physical_batch=most, **options)
    assert sizes == ([12] if most is None else [5, 5, 2])
    assert close(vector(named), plain(net, data))
    assert {total.dtype for total in named.values()} == {np.dtype(np.int64)}
    assert [total.shape for total in named.values()] == [tuple(p.shape) for p in net.parameters()]
    x, y = data.tensors
    loose = vector(summed(net, data, loss, clip=50.0, physical_batch=most, **options)[0])
    assert loose.allclose(unclipped(net, data), atol=1e-4)
    assert private["loss"] == pytest.approx(functional.cross_entropy(net(x), y).item(), rel=1e-5)
    assert not [
        name for p in net.parameters() for name in (*HUNG, "grad") if getattr(p, name, None) is not None
    ]


def test_the_batch_may_be_chosen_and_may_be_empty() -> None:
    net, data = made(line), vectors()
    named, _ = summed(net, data, rows=[1, 4, 7])
    assert close(vector(named), plain(net, torch.utils.data.Subset(data, [1, 4, 7])))
    named, private = summed(net, data, rows=[])
    assert not any(total.any() for total in named.values())
    assert private == {}


def test_a_sum_takes_what_a_check_found_in_place_of_what_it_was_told() -> None:
    net, data = made(SOUND["norm over time"][0]), sequences(12)
    found = Probed(Layouts({"norm": [Layout((1,), 1)], "out": [Layout()]}), "sum", (), 12)
    named, _ = summed(net, data, total_loss, probed=found)
    assert close(vector(named), plain(net, data))


def test_a_frozen_part_and_the_mode_of_a_model_stay_as_they_are() -> None:
    net, data = made(line), vectors()
    net[0].requires_grad_(False)  # type: ignore[index]
    net.eval()
    modes = []

    def loss(model: Any, batch: Any) -> torch.Tensor:
        modes.append(model.training)
        return loss_of(model, batch)

    named, _ = summed(net, data, loss)
    assert list(named) == ["2.weight", "2.bias"]
    prove(net, loss, DataLoader(data, batch_size=4))
    assert set(modes) == {True}
    assert not net.training


def test_a_sum_of_what_cannot_be_private_is_refused() -> None:
    for run in (lambda net: summed(net, vectors()), lambda net: prove(net, loss_of, DataLoader(vectors()))):
        with pytest.raises(UnsupportedModule, match="mixes the examples"):
            run(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))


class Counts(nn.Module):
    """A loss that remembers, where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, model: Any, batch: Any) -> torch.Tensor:
        self.seen += 1
        return loss_of(model, batch)


def test_what_a_loss_remembers_or_seeds_sends_nothing() -> None:
    counts = Counts()
    summed(made(line), vectors(), counts)
    with pytest.raises(UnaccountedStep, match="seen is an attribute"):
        summed(made(line), vectors(), counts, criterion=counts)

    def seeds(model: Any, batch: Any) -> torch.Tensor:
        torch.manual_seed(int(torch.initial_seed() + 1) % 2**31)
        return loss_of(model, batch)

    with torch.random.fork_rng(), pytest.raises(UnaccountedStep, match="seeds torch"):
        summed(made(line), vectors(), seeds)


def test_what_the_check_saw_every_first_pass_write_may_stay_in_a_sum() -> None:
    other, constants = Caches(), remembered(Caches())
    with pytest.raises(UnaccountedStep, match="table is an attribute"):
        summed(Caches(), vectors(), probed=Probed(Layouts(), "mean", (), 12, constants))
    other(torch.ones(1, 4))
    summed(Caches(), vectors(), probed=Probed(Layouts(), "mean", (), 12, remembered(other)))


def test_two_backward_passes_add_to_no_later_batch() -> None:
    """A batch that passes in parts leaves nothing for the next part."""
    net, data = made(line), vectors()
    assert close(vector(summed(net, data, physical_batch=1)[0]), plain(net, data))


def test_examples_that_are_not_finite_are_told_in_the_clients_log(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(12, 4)
    x[:2] = float("nan")
    data = TensorDataset(x, torch.arange(12) % 3)
    with caplog.at_level(logging.WARNING):
        summed(made(line), data)
        summed(made(line), data, whose="ward-1", physical_batch=1)
    assert [said.partition(" examples")[0] for said in caplog.messages] == [
        "this client: the gradients of 2",
        "ward-1: the gradients of 2",
    ]


def test_the_check_of_a_sum_is_told_what_a_sum_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    class Looked:
        def __init__(self, *found: Any, **options: Any) -> None:
            given.append((found, options))
            found[4].start(12)

        def script(self) -> Any:
            return iter([next(iter(DataLoader(vectors(), batch_size=12)))])

        def step(self) -> None:
            given.append("stepped")

        def drive(self, run: Any) -> Any:
            run()
            raise NonFiniteGradient("none")

    monkeypatch.setattr(gradients, "Probe", Looked)
    net, known, criterion = made(line), SimpleNamespace(), nn.MSELoss()
    loader = DataLoader(vectors(), batch_size=4)
    assert prove(net, loss_of, loader, known, 0.5, 7, criterion) is None  # type: ignore[arg-type]  # stands for one
    (model, fetch, examples, largest, _), options = given[0]
    assert (model, examples, largest, options) == (net, 12, 7, {"known": known, "criterion": criterion})
    assert fetch([1, 2])[1].tolist() == [1, 2]
    assert given[1:] == ["stepped"]
    prove(net, loss_of, loader)
    assert given[2][0][3] > 12  # all of them


def test_the_longest_gradient_that_counts_is_2_to_the_50() -> None:
    d, x = torch.tensor([[1.0], [1.0], [float("inf")]]), torch.tensor([[2.0**50], [1.5 * 2.0**50], [1.0]])
    rows = d * x
    parts: list[Any] = [(d, x), rows]
    for part in parts:
        left, squares, lost = factors.counted([part], [factors.squared(part)])
        assert (lost, squares[0].tolist()) == (2, [2.0**100, 0.0, 0.0])
        assert factors.written_out(left[0]).tolist() == [[2.0**50], [0.0], [0.0]]
        assert factors.count(part) == 3
    assert factors.counted([rows[:1]], [factors.squared(rows[:1])])[2] == 0


def test_factors_are_outer_products() -> None:
    d, x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 10.0, 100.0], [1.0, 1.0, 2.0]])
    rows = torch.tensor([[1.0, 10.0, 100.0, 2.0, 20.0, 200.0], [3.0, 3.0, 6.0, 4.0, 4.0, 8.0]])
    assert factors.written_out((d, x)).equal(rows)
    assert factors.plain_sum((d, x)).equal(rows.sum(dim=0))
    assert factors.plain_sum(rows.double()).dtype == torch.float32
    assert factors.squared((d, x)).tolist() == rows.double().pow(2).sum(dim=1).tolist()
    scale = torch.tensor([1.0, 0.5], dtype=torch.float64)
    wanted = torch.round(rows.double() * scale[:, None] / 4).sum(dim=0)
    for part in ((d, x), rows):
        assert factors.summed(part, scale, 4.0).equal(wanted.to(torch.int64))


def test_a_parameter_without_gradients_of_examples_has_no_part() -> None:
    p: Any = nn.Parameter(torch.ones(2, 2))
    assert factors.part_of(p) is None
    p.grad_sample = "none"
    assert factors.part_of(p) is None
    p.grad_sample = torch.ones(3, 2, 2)
    assert factors.part_of(p).shape == (3, 4)  # type: ignore[union-attr]
    p.factors = LookedUp(torch.tensor([0]), torch.tensor([1]), torch.ones(1, 2), 5, 2)
    assert factors.count(factors.part_of(p)) == 5  # type: ignore[arg-type]


# -- a client's part, round by round --


class Given(SimpleNamespace):
    """A task's members, as the sum reads them."""


def task(net: nn.Module, data: Any, **options: Any) -> Any:
    return Given(
        **{"model": net, "loader": DataLoader(data, batch_size=4), "loss": None, "criterion": nn.CrossEntropyLoss(),
           "sent": (), "result": None} | options
    )  # fmt: skip


def facts(client: str = "a", scope: str = "run") -> Any:
    return SimpleNamespace(client=client, scope=scope, whose=f"ward-{client}", random=SystemRandom())


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loss is a mean, with the examples first."""
    monkeypatch.setattr(own_sum, "prove", lambda *_: Probed(Layouts(), "mean", (), 12))


@pytest.mark.usefixtures("proven")
def test_an_own_sum_is_that_of_its_batch_and_leaves_the_mean_step() -> None:
    net, data = made(line), vectors()
    own, given = OwnSum(1.0, 24, CLIP, "mean", 5), task(net, data)
    flat, private = own.of(given, STEP, facts())
    assert close(torch.from_numpy(flat * STEP).float(), plain(net, data))
    assert set(private) == {"loss"}
    left = torch.cat([torch.from_numpy(given.result[name]).reshape(-1) for name, _ in net.named_parameters()])
    assert close(left.float() * -24, plain(net, data))
    chosen, _ = own.of(task(net, data), STEP, facts(), [3])
    assert close(torch.from_numpy(chosen * STEP).float(), plain(net, torch.utils.data.Subset(data, [3])))


@pytest.mark.usefixtures("proven")
def test_the_mean_step_follows_the_rate() -> None:
    net, data = made(line), vectors()
    given = task(net, data)
    flat, _ = OwnSum(0.5, 24, CLIP, "mean", 5).of(given, STEP, facts())
    assert given.result["0.bias"] == pytest.approx(flat[20:25] * STEP / -12)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the check and the sum are asked, in place of them."""
    seen: dict[str, list[Any]] = {"prove": [], "sum": [], "found": []}

    def looked(*given: Any) -> Any:
        seen["prove"].append(given)
        return seen["found"].pop() if seen["found"] else None

    def added(*given: Any, **options: Any) -> Any:
        seen["sum"].append((given, options))
        return {"0.weight": np.ones((5, 4), np.int64)}, {}

    monkeypatch.setattr(own_sum, "prove", looked)
    monkeypatch.setattr(own_sum, "clipped_sum", added)
    return seen


def test_each_client_is_checked_once_a_run_and_layouts_are_handed_on(asked: dict[str, list[Any]]) -> None:
    net, own = made(line), OwnSum(0.25, 24, CLIP, "mean", 5)
    for client, scope, found, checks, known in [
        ("a", "run", "first", 1, None),
        ("a", "run", None, 1, None),
        ("b", "run", "second", 2, "first"),
        ("a", "run", None, 2, None),
        ("a", "another", "third", 3, None),
        ("b", "another", "fourth", 4, "third"),
    ]:
        asked["found"] = [found] if found else []
        given = task(net, vectors())
        own.of(given, STEP, facts(client, scope))
        assert len(asked["prove"]) == checks
        if found:
            model, _, loader, before, rate, most, criterion = asked["prove"][-1]
            assert (model, loader, before) == (given.model, given.loader, known)
            assert (rate, most, criterion) == (0.25, 5, given.criterion)
        (model, _, loader), options = asked["sum"][-1]
        assert (model, loader, options["criterion"]) == (given.model, given.loader, given.criterion)
        assert (options["rate"], options["clip"], options["step"]) == (0.25, CLIP, STEP)
        assert (options["reduction"], options["physical_batch"]) == ("mean", 5)
        assert (options["probed"] is not None, options["whose"]) == (True, f"ward-{client}")


def test_where_a_client_cannot_be_checked_its_examples_pass_alone(
    asked: dict[str, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    own, data = OwnSum(0.25, 24, CLIP, "mean", 5), vectors()
    for many, checks in ((data, 1), (data, 2), (torch.utils.data.Subset(data, []), 2)):
        own.of(task(made(line), many), STEP, facts())
        assert len(asked["prove"]) == checks
        assert asked["sum"][-1][1]["physical_batch"] == 1
    assert [said.partition(":")[0] for said in caplog.messages] == ["ward-a", "ward-a"]


def test_a_loss_of_the_tasks_own_is_taken(asked: dict[str, list[Any]]) -> None:
    def own_loss(model: Any, batch: Any) -> Any:
        return (model, batch)

    own, plain_task = OwnSum(0.25, 24, CLIP, "mean", 5), task(made(line), vectors())
    own.of(task(made(line), vectors(), loss=own_loss), STEP, facts())
    assert (asked["sum"][-1][0][1], asked["sum"][-1][1]["criterion"]) == (own_loss, own_loss)
    assert asked["prove"][-1][-1] == own_loss
    own.of(plain_task, STEP, facts())
    x, y = vectors().tensors
    loss = asked["sum"][-1][0][1](plain_task.model, (x, y))
    assert loss.item() == pytest.approx(functional.cross_entropy(plain_task.model(x), y).item())


class State(nn.Module):
    """Two parameters, one of them frozen, a mean in a buffer and a count that is no number of the model's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(2, 2))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.zeros(4, dtype=torch.int64))
        self.none = nn.Parameter(torch.zeros(0))


def test_what_is_sent_lies_in_the_order_of_the_state() -> None:
    named = {"first": np.arange(1, 5).reshape(2, 2), "none": np.zeros(0, np.int64)}
    given = SimpleNamespace(model=State(), sent=())
    assert own_sum._in_state_order(given, named).tolist() == [1, 2, 3, 4, 0, 0, 0, 0, 0]  # type: ignore[arg-type]
    assert own_sum._in_state_order(given, named).dtype == np.int64  # type: ignore[arg-type]
    given.sent = ("count", "first")
    assert own_sum._in_state_order(given, named).tolist() == [1, 2, 3, 4, 0, 0, 0, 0]  # type: ignore[arg-type]


def test_values_that_two_parameters_share_are_refused() -> None:
    net = State()
    net.frozen = nn.Parameter(net.first.data.view(-1), requires_grad=False)
    with pytest.raises(Misuse, match="frozen shares its values"):
        own_sum._in_state_order(SimpleNamespace(model=net, sent=()), {"first": np.ones((2, 2), np.int64)})  # type: ignore[arg-type]
