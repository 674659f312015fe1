"""What watches a loop, one call at a time: losses, batches, the model between steps, options and modules."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from opacus.layers import DPGRU
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.optim import optimizer as every
from torch.utils.data import DataLoader, TensorDataset

from dp.sample import guard, loader, options, validation
from dp.sample.errors import NotPerExample, UnaccountedStep, UnsupportedModule
from dp.sample.guard import StepGuard
from dp.sample.hooks import RowHooks, agreed, gradient_left, holders, reaches, rows_left, unseen
from dp.sample.layout import Seen
from dp.sample.loader import PoissonBatches, PrivateLoader
from dp.sample.options import AdaptiveClip, Clipping
from dp.sample.targets import OwnLosses, insist_wide, tensors_in
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.defects.dp.sample_models import vectors
from tests.unit.dp.test_dp_sample_rows import line, made

T = torch.tensor
ROOM = RowHooks._room
"""As it is: the tests of this folder have rows made twice whatever the room."""
Loss = Callable[[torch.Tensor, torch.Tensor], Any]


# -- losses --


def logits() -> Any:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()


LABELS, IGNORED, ALONE = T([0, 1, 2, 0]), T([0, 1, -100, 0]), T([-100, 1, -100, -100])


def masked(x: torch.Tensor, y: torch.Tensor) -> Any:
    return functional.cross_entropy(x[y >= 0], y[y >= 0])


def counted(x: torch.Tensor, y: torch.Tensor) -> Any:
    return functional.cross_entropy(x, y, reduction="sum") / (y >= 0).sum()


def counted_later(x: torch.Tensor, y: torch.Tensor) -> Any:
    return torch.div(functional.cross_entropy(x, y, reduction="sum"), (y >= 0).sum().float().clamp(min=1.0))


def picked(x: torch.Tensor, y: torch.Tensor) -> Any:
    return torch.masked_select(functional.cross_entropy(x, y, reduction="none"), y >= 0).mean()


def nonzero(x: torch.Tensor, y: torch.Tensor) -> Any:
    each = functional.cross_entropy(x, y, reduction="none")
    return each.sum() / torch.count_nonzero(y >= 0)


def followed(x: torch.Tensor, y: torch.Tensor) -> Any:
    return -functional.log_softmax(x[y >= 0], dim=1)[:, 0].exp().mean()


DIVIDED = (followed, masked, counted, counted_later, picked, nonzero)


@pytest.mark.parametrize("loss", DIVIDED)
def test_a_divisor_that_follows_the_batch_is_refused_where_one_target_counts_for_nothing(loss: Loss) -> None:
    with OwnLosses(lambda: 4):
        assert torch.isfinite(loss(logits(), LABELS))
    for labels in (IGNORED, ALONE):
        with (
            OwnLosses(lambda: 4),
            pytest.raises(NotPerExample, match="how many values of the whole batch count"),
        ):
            loss(logits(), labels)
    with OwnLosses():  # nobody knows how many
        assert torch.isfinite(loss(logits(), IGNORED))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: functional.cross_entropy(x, y, reduction="sum") / 4,
        lambda x, y: functional.cross_entropy(x[y >= 0], y[y >= 0], reduction="sum") / 4,
        lambda x, y: x[:3].sum() / 4,
        lambda x, y: (x / (y >= 0).sum(dim=0, keepdim=True)).sum(),
        lambda x, y: x.sum(dim=1).mean(),
        lambda x, y: x[T([True, True, True, True])].mean(),
        lambda x, y: x.sum() / x.sum(),
        lambda x, y: x[0, 0] * x[3].mean(),
        lambda x, y: x.sum() / (y >= 0).sum().clamp(min=4),
    ],
)
def test_a_divisor_that_follows_no_batch_passes(loss: Loss) -> None:
    with OwnLosses(lambda: 4):
        assert torch.isfinite(loss(logits(), IGNORED))


@pytest.mark.parametrize("function", [functional.cross_entropy, functional.nll_loss])
def test_means_over_ignored_targets_and_class_weights_are_refused(function: Any) -> None:
    with OwnLosses():
        function(logits(), LABELS)
        function(logits(), LABELS, torch.full((3,), 2.0))
        function(logits(), IGNORED, reduction="sum")
        function(logits(), IGNORED, None, None, -100, None, "none")
        for given, named in (
            ((logits(), IGNORED), {}),
            ((logits(), IGNORED, None), {"reduction": "mean"}),
            ((logits(), T([0, 1, 7, 0])), {"ignore_index": 7}),
        ):
            with pytest.raises(NotPerExample, match="ignore_index"):
                function(*given, **named)
        for weight in (T([1.0, 1.0, 2.0]), T([1.0, 0.0, 1.0])):
            with pytest.raises(NotPerExample, match="class weights"):
                function(logits(), LABELS, weight)


def test_means_of_losses_are_taken_in_float64() -> None:
    x, y = logits(), LABELS
    wanted = functional.cross_entropy(x, y, reduction="none").double()
    with OwnLosses():
        for made_here in (
            functional.cross_entropy(x, y),
            functional.cross_entropy(x, y, reduction="none").mean(),
            torch.mean(functional.cross_entropy(x, y, reduction="none")),
            functional.nll_loss(functional.log_softmax(x, dim=1), y),
        ):
            assert made_here.dtype == torch.float64
            assert float(made_here.detach()) == pytest.approx(float(wanted.mean().detach()), rel=1e-6)
        total = functional.cross_entropy(x, y, reduction="none").sum()
        assert (total.dtype, float(total.detach())) == (
            torch.float64,
            pytest.approx(float(wanted.sum().detach())),
        )
        assert functional.cross_entropy(x, y, reduction="sum").dtype == torch.float32
        assert functional.cross_entropy(x, y, size_average=True).dtype == torch.float32
        assert functional.cross_entropy(x, y, reduce=True).dtype == torch.float32
        assert functional.cross_entropy(x, y, torch.ones(3)).dtype == torch.float32
        assert functional.cross_entropy(x.detach(), y).dtype == torch.float32
        assert functional.cross_entropy(x.double(), y).dtype == torch.float64
        assert functional.mse_loss(x, torch.zeros(4, 3)).dtype == torch.float64
        assert x.sum(dim=0).dtype == x.mean(dim=0).dtype == torch.float32
        assert functional.softmax(x, dim=1).dtype == torch.float32
        lengths = T([2]), T([1])
        spoken = functional.log_softmax(torch.randn(2, 1, 3, requires_grad=True), dim=2)
        assert functional.ctc_loss(spoken, T([[1]]), *lengths).dtype == torch.float32


@pytest.mark.parametrize("how", ["method", "function", "listed", "named", "several"])
def test_what_is_differentiated_is_multiplied_by_what_the_model_says(how: str) -> None:
    weight, told = torch.ones(1, requires_grad=True), []

    def times(loss: torch.Tensor) -> int:
        told.append(loss)
        return 2

    with OwnLosses(times=times):
        loss = (3 * weight).sum()
        if how == "method":
            loss.backward()
        elif how == "function":
            torch.autograd.backward(loss)
        elif how == "listed":
            torch.autograd.backward([loss], [T(2.0, dtype=torch.float64)])
        elif how == "named":
            loss.backward(gradient=T(2.0, dtype=torch.float64))
        else:
            torch.autograd.backward([loss, loss])
    wanted = {"method": 6.0, "function": 6.0, "listed": 12.0, "named": 12.0, "several": 6.0}
    assert float(weight.grad or 0) == wanted[how]
    assert len(told) == (how != "several")


def test_coarse_matrix_products_are_refused_where_a_loss_is_differentiated() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with OwnLosses(), pytest.raises(NotPerExample, match="convolution gives fewer bits"):
            logits().sum().backward()
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_gradients_in_few_bits_are_named(kind: torch.dtype) -> None:
    coarse = torch.ones(2, dtype=kind, requires_grad=True)
    with pytest.raises(NotPerExample, match=rf"\(the loop\): inner gives {str(kind)[6:]}: gradients"):
        insist_wide("inner", coarse)
    insist_wide("inner", coarse.detach())
    insist_wide("inner", torch.ones(2, requires_grad=True))
    insist_wide("inner", "no tensor")
    with OwnLosses(), pytest.raises(NotPerExample, match=r"mul(__)? gives"):
        coarse * 2


def test_tensors_are_found_in_what_a_function_is_called_with() -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert [len(t) for t in tensors_in(([one, {"b": two}, 3], "x", one))] == [1, 2, 1]
    assert tensors_in((1, None)) == []


# -- batches --


@pytest.mark.parametrize("wrong", [(-1, 0.5, 1), (1, 0.0, 1), (1, 1.5, 1), (1, 0.5, 0), (1, -0.5, 1)])
def test_batches_out_of_range_are_refused(wrong: tuple[int, float, int]) -> None:
    with pytest.raises(Misuse, match=r"expected examples, a rate in \(0, 1\] and batches, got"):
        PoissonBatches(*wrong, SystemRandom())


def test_batches_of_all_and_of_none() -> None:
    assert list(PoissonBatches(3, 1.0, 2, SystemRandom())) == [[0, 1, 2]] * 2
    assert list(PoissonBatches(0, 1.0, 2, SystemRandom())) == [[], []]
    assert len(PoissonBatches(3, 1.0, 2, SystemRandom())) == 2


class Told:
    """What a loader reports."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.heard.append((size, first, last))

    def empty(self) -> None:
        self.heard.append("empty")


class Listed(torch.utils.data.Dataset[Any]):
    """Five examples, drawn anew at each look; several at once would be others."""

    looks = 0

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        self.looks += 1
        return T([float(index), float(self.looks)])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        raise AssertionError("examples are fetched one by one")


WHOLE = TensorDataset(torch.arange(5.0)[:, None], torch.arange(5))


@pytest.mark.parametrize(
    ("rows", "most", "heard", "batches"),
    [
        ([0, 2, 4], None, [(3, True, True)], [[0, 2, 4]]),
        ([0, 2, 4], 2, [(2, True, False), (1, False, True)], [[0, 2], [4]]),
        ([0, 1, 2, 3], 2, [(2, True, False), (2, False, True)], [[0, 1], [2, 3]]),
        ([3], 1, [(1, True, True)], [[3]]),
        ([], 2, ["empty"], []),
        ([], None, ["empty"], []),
    ],
)
@pytest.mark.parametrize("data", [WHOLE, Listed()])
def test_a_batch_that_is_chosen_passes_in_parts(
    data: Any, rows: Any, most: Any, heard: Any, batches: Any
) -> None:
    told = Told()
    private = PrivateLoader(DataLoader(data, batch_size=2), 0.5, 3, SystemRandom(), told, most, rows)
    seen = [(part[0] if data is WHOLE else part)[:, 0].tolist() for part in private]
    assert (seen, told.heard) == (batches, heard)
    assert private._examples == 5
    assert len(private) == 1


def test_every_empty_batch_is_told() -> None:
    told = Told()
    data = TensorDataset(torch.zeros(0, 1))
    assert list(PrivateLoader(DataLoader(data), 0.5, 3, SystemRandom(), told)) == []
    assert told.heard == ["empty"] * 3


def test_a_loader_is_as_the_users_own() -> None:
    def own(examples: Any) -> Any:
        return len(examples)

    given = DataLoader(
        Listed(), batch_size=2, collate_fn=own, num_workers=2, timeout=7, prefetch_factor=3, persistent_workers=True,
        multiprocessing_context="spawn",
    )  # fmt: skip
    private = PrivateLoader(given, 0.5, 3, SystemRandom(), Told())
    inner: Any = private._batches
    assert (inner.num_workers, inner.timeout, inner.prefetch_factor) == (2, 7, 3)
    assert (inner.persistent_workers, inner.multiprocessing_context) == (True, given.multiprocessing_context)
    assert private._fetch([1, 2, 3]) == 3
    assert (private.rate, len(private), private.batch_size, private.drop_last) == (0.5, 3, None, False)
    assert (
        PrivateLoader(DataLoader(WHOLE, collate_fn=own), 0.5, 3, SystemRandom(), Told())._fetch([1, 2, 3])
        == 3
    )
    pinned: Any = PrivateLoader(DataLoader(WHOLE, pin_memory=True), 0.5, 3, SystemRandom(), Told())
    assert (pinned._batches.pin_memory, inner.pin_memory) == (True, False)
    started: list[int] = []
    given = DataLoader(Listed(), worker_init_fn=started.append)
    assert (
        PrivateLoader(given, 0.5, 3, SystemRandom(), Told())._batches.worker_init_fn.given == started.append
    )


def test_an_example_that_is_drawn_anew_is_kept_for_the_check() -> None:
    private = PrivateLoader(DataLoader(Listed()), 0.5, 3, SystemRandom(), Told())
    assert private._fetch([1, 3]).equal(private._fetch([1, 3]))
    whole = PrivateLoader(DataLoader(WHOLE), 0.5, 3, SystemRandom(), Told())
    assert [t.tolist() for t in whole._fetch([1, 3])] == [[[1.0], [3.0]], [1, 3]]


def test_the_largest_batch_is_the_mean_and_seven_deviations() -> None:
    data = TensorDataset(torch.zeros(1000, 1))
    for most, largest in ((None, 100 + 70 + 20), (50, 50), (500, 190)):
        assert PrivateLoader(DataLoader(data), 0.1, 10, SystemRandom(), Told(), most)._largest == largest


def test_what_a_loop_may_not_see_is_there_before_it_is_sealed() -> None:
    private = PrivateLoader(DataLoader(WHOLE), 0.5, 3, SystemRandom(), Told())
    assert len(private.dataset) == 5
    private.one_by_one()
    assert private._parts.most == 1
    private.sealed = True
    with pytest.raises(UnaccountedStep, match=r"^loader\.dataset: the loop sees secret batches alone"):
        len(private.dataset)


def test_a_loader_over_part_of_the_data_is_refused_by_name() -> None:
    for sampler, name in (
        (torch.utils.data.RandomSampler(WHOLE, replacement=True), "RandomSampler"),
        (torch.utils.data.RandomSampler(WHOLE, num_samples=3), "RandomSampler"),
        (torch.utils.data.SubsetRandomSampler(range(5)), "SubsetRandomSampler"),
    ):
        with pytest.raises(UnaccountedStep, match=f"draws by its own {name}, which"):
            PrivateLoader(DataLoader(WHOLE, sampler=sampler), 0.5, 3, SystemRandom(), Told())
    loader._insist(DataLoader(WHOLE, shuffle=True))


# -- between steps --


def watching(planned: int = 2) -> tuple[StepGuard, Any]:
    net, own = nn.Linear(2, 1), StepGuard()
    own.begin(net, planned)
    return own, net


def test_a_round_of_steps_is_counted() -> None:
    own, net = watching()
    for at in range(2):
        own.batch(2, first=True, last=False)
        assert (own.drawn, own.pending, own.awaiting) == (at, 2, True)
        own.part_done()
        assert (own.pending, own.awaiting) == (0, False)
        own.batch(3, first=False, last=True)
        own.before_step(3)
        net.weight.data += 1
        own.after_step(["weight"])
        assert (own.drawn, own.accounted, own.changed, own.pending) == (at + 1, at + 1, at + 1, 0)
    with pytest.raises(UnaccountedStep, match="2 planned steps are taken, and the loop draws another"):
        own.batch(1, first=True, last=True)
    assert own.finish() == 2
    with pytest.raises(UnaccountedStep, match="inside a round only"):
        own.finish()
    own.begin(net, 1)
    assert (own.planned, own.drawn, own.accounted, own.changed, own.pending) == (1, 0, 0, 0, 0)


def test_parts_that_the_loop_adds_up_itself_are_pending_together() -> None:
    own, _ = watching(1)
    own.batch(2, first=True, last=False)
    own.batch(3, first=False, last=True)
    assert (own.pending, own.drawn) == (5, 1)
    own.before_step(5)


def test_steps_that_are_none_are_named() -> None:
    own, net = watching()
    with pytest.raises(UnaccountedStep, match="without a new batch"):
        own.before_step(0)
    own.batch(2, first=True, last=True)
    with pytest.raises(UnaccountedStep, match="batch 1 was drawn but no optimizer"):
        own.batch(2, first=True, last=True)
    own.before_step(None)
    own.before_step(1)
    with pytest.raises(UnaccountedStep, match="of the 2 examples drawn, got 3"):
        own.before_step(3)
    net.bias.data += 1
    for check in (lambda: own.before_step(2), lambda: own.after_step(["weight"]), own.finish):
        with pytest.raises(UnaccountedStep, match=r"^bias changed outside an accounted step"):
            check()
    own.after_step(["bias"])
    with pytest.raises(UnaccountedStep, match="1 of the round's 2 planned steps"):
        own.finish()
    own.batch(2, first=True, last=True)
    own.after_step(["bias"])
    with pytest.raises(UnaccountedStep, match="2 batches were drawn, 2 steps were accounted and 1 changed"):
        own.finish()


def test_a_model_is_compared_by_name_and_bit() -> None:
    net: Any = nn.Linear(2, 1)
    net.register_buffer("mean", T([math.nan, 0.0]))
    before = guard.snapshot(net)
    assert list(before) == ["weight", "bias", "mean"]
    assert guard.difference(net, before) is None
    net.mean[1] = -0.0
    assert guard.difference(net, before) == "mean"
    net.register_buffer("also", torch.zeros(1))
    assert guard.difference(net, before) == "also"
    assert guard.difference(nn.Linear(2, 1, bias=False), before) == "bias"


def test_numbers_of_an_optimizer_by_name() -> None:
    net = nn.Linear(2, 1)
    names = {id(p): name for name, p in net.named_parameters()}
    sgd = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    before = guard.kept(guard.numbers(sgd, names))
    assert guard.changed_number(before, guard.numbers(sgd, names)) is None
    assert "param_groups[0]['lr']" in before
    sgd.param_groups[0]["lr"] = 0.25
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "param_groups[0]['lr']"
    sgd.param_groups[0]["lr"] = 0.5
    net.weight.requires_grad_(False)
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "param_groups[0]['params']"
    net.weight.requires_grad_(True)
    sgd.state[net.weight]["momentum_buffer"] = torch.zeros(1, 2)
    assert guard.changed_number(before, guard.numbers(sgd, names)) is None  # the first step's own
    before = guard.kept(guard.numbers(sgd, names))
    assert "state[weight]['momentum_buffer']" in before
    sgd.state[net.weight]["momentum_buffer"] += 1
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "state[weight]['momentum_buffer']"
    sgd.state[net.weight]["momentum_buffer"] -= 1
    sgd.state[T(0.0)]["other"] = 1
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "state[?]['other']"
    sgd.state.clear()
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "state[weight]['momentum_buffer']"
    sgd = torch.optim.SGD(net.parameters(), lr=0.5)
    before = guard.kept(guard.numbers(sgd, names))
    for register, when in (
        (sgd.register_step_pre_hook, "pre"),
        (sgd.register_step_post_hook, "post"),
        (every.register_optimizer_step_pre_hook, "pre"),
        (every.register_optimizer_step_post_hook, "post"),
    ):
        handle = register(lambda *_: None)
        assert guard.changed_number(before, guard.numbers(sgd, names)) == f"{when}-step hooks"
        handle.remove()
    handle = sgd.register_step_pre_hook(lambda *_: None)
    before = guard.kept(guard.numbers(sgd, names))
    handle.remove()
    handle = sgd.register_step_pre_hook(lambda *_: None)
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "pre-step hooks"
    before = guard.kept(guard.numbers(sgd, names))
    sgd.param_groups[0]["params"] = [net.weight, nn.Parameter(torch.zeros(1))]
    assert guard.changed_number(before, guard.numbers(sgd, names)) == "param_groups[0]['params']"
    other: Any = SimpleNamespace(param_groups=[], state={net.weight: "no numbers"})
    assert set(guard.numbers(other, names)) == {"pre-step hooks", "post-step hooks"}
    sgd = torch.optim.SGD(net.parameters(), lr=0.5)
    assert guard.raw_gradient(sgd, names) is None
    net.bias.requires_grad_(False)
    net.bias.grad = torch.ones(1)
    assert guard.raw_gradient(sgd, names) == "bias"
    net.bias.requires_grad_(True)
    assert guard.raw_gradient(sgd, names) is None


# -- hooks --


def test_modules_that_answer_for_parameters_by_name() -> None:
    net = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "gru": DPGRU(2, 2)})
    net["again"] = net["a"]
    net["deeper"] = nn.Sequential(net["a"])
    net["own"] = nn.MultiheadAttention(2, 1)
    net["normed"] = parametrizations.weight_norm(nn.Linear(2, 2))
    net["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    names = [name for name, _ in holders(net)]
    assert names[0] == "a.0"
    assert [name for name in names if not name.startswith("gru")] == ["a.0", "own", "normed"]
    assert all(".l0." in name or name.startswith("gru.") for name in names if name.startswith("gru"))
    assert [name for name, _ in holders(nn.Linear(2, 2))] == [""]


def test_a_loss_reaches_a_model_that_it_differentiates() -> None:
    net, other = made(line), made(line)
    x = torch.ones(1, 4)
    assert reaches(net(x).sum(), net)
    assert reaches(other(x).sum() + net(x).sum() * 2, net)
    assert reaches(net(x).sum() * 2 + other(x).sum(), net)
    assert not reaches(other(x).sum(), net)
    assert not reaches(net(x).sum().detach(), net)
    net.requires_grad_(False)
    assert not reaches(net(x).sum(), net)


def rows_of(net: nn.Module, size: int = 4, **given: Any) -> RowHooks:
    own = RowHooks(net, **given)
    own.start(size)
    return own


def test_rows_of_a_batch_and_autograds_own_sum() -> None:
    net, (x, y) = made(line), vectors().tensors
    own = rows_of(net)
    functional.cross_entropy(net(x[:4]), y[:4]).backward()
    assert (own.scale, dict(own.calls)) == (4, {"0": 1, "2": 1})
    rows, left = rows_left(net), gradient_left(net)
    assert {name: tuple(made_here.shape) for name, made_here in rows.items()} == {
        name: (4, p.numel()) for name, p in net.named_parameters()
    }
    for name, p in net.named_parameters():
        assert torch.allclose(rows[name].sum(dim=0), 4 * left[name].reshape(-1), atol=1e-6)
        assert left[name].equal(p.grad)
    with pytest.raises(UnaccountedStep, match="two backward passes in one batch"):
        functional.cross_entropy(net(x[:4]), y[:4]).backward()
    own.clear()
    assert rows_left(net) == {}
    own.listen(False, 4, "sum")
    assert (own.enabled, own.watching, own.reduction, own.size, own.scale) == (False, True, "sum", 4, 1)
    for _ in range(2):
        functional.cross_entropy(net(x[:4]), y[:4]).backward()
    assert rows_left(net) == {}
    assert all(torch.allclose(gradient_left(net)[name], 2 * left[name]) for name in left)
    own.listen(True, 4, "mean")
    assert own.times(functional.cross_entropy(net(x[:4]), y[:4])) == 4
    assert own.scale == 1
    assert own.times(T(1.0, requires_grad=True)) == 1
    assert own.scale == 4
    own.cleanup()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    assert set(gradient_left(net)) == set(left)
    net(x[:4]).sum().backward()
    assert rows_left(net) == {}


def test_a_module_that_gives_no_tensor_is_refused_and_a_check_collects_it() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> Any:
            return x * self.weight, x

    net = nn.Sequential(Pair())
    rows_of(net)
    with pytest.raises(UnsupportedModule, match="0: Pair gives a tuple, not one tensor"):
        net(torch.ones(4, 1))
    with torch.no_grad():
        net(torch.ones(4, 1))


def test_what_a_call_read_and_gave_is_recorded_for_the_check() -> None:
    bag = nn.EmbeddingBag(5, 2)
    own = rows_of(bag)
    own.listen(False, 2, "mean")
    own.seen = []
    bag(T([1, 2, 3]), offsets=T([0, 2]))
    assert own.seen == [Seen("", ((3,), (2,)), (2, 2), bag=True)]
    assert not own.calls
    with torch.no_grad():
        bag(T([1, 2, 3]), T([0, 2]))
    assert len(own.seen) == 1
    plain_hooks = RowHooks(made(line))
    assert (plain_hooks.functional, plain_hooks.again, plain_hooks.reduction) == (False, False, "mean")
    assert (plain_hooks.enabled, plain_hooks.layouts.known, plain_hooks.size) == (True, False, 0)


def test_a_module_that_gives_few_bits_is_named_without_a_watch() -> None:
    net = made(line)
    rows_of(net)
    with pytest.raises(NotPerExample, match="0 gives bfloat16"), torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.ones(4, 4))


def test_short_rows_are_kept_where_the_call_read_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowHooks, "_room", ROOM)
    net: Any = nn.Linear(4, 2)
    for length, kept in (
        (2, True),
        (1, False),
    ):  # 4 x 10 values of rows; 4 x 6 are read and given for each length
        own = rows_of(net, 4, again=True)
        own.room = 0
        net(torch.ones(4, length, 4)).sum().backward()
        assert ((net.weight.grad_sample is not None), (net.weight.factors is None)) == (kept, kept)
        own.cleanup()


def test_all_that_is_wrong_is_listed_by_name() -> None:
    wrong = UnsupportedModule({"a": "is one", "b": "is two"})
    assert "got a: is one; b: is two. Replace these" in str(wrong)
    assert wrong.reasons == {"a": "is one", "b": "is two"}


def test_faults_are_collected_by_name_in_a_check_and_raised_elsewhere() -> None:
    net = made(line)
    own = rows_of(net, 3)
    with pytest.raises(UnaccountedStep, match="4 rows for the 3 examples drawn"):
        net(torch.ones(4, 4)).sum().backward()
    own.listen(True, 3, "sum")
    own.faults = {}
    net(torch.ones(4, 4)).sum().backward()
    assert sorted(own.faults) == ["0", "2"]
    assert own.faults["0"].startswith("4 rows for the 3")


def test_rows_agree_with_autograds_gradient_within_a_rounding() -> None:
    rows: Any = torch.full((4, 2), 0.5)
    squares, total, names = [rows.double().pow(2).sum(dim=1)], torch.full((2,), 0.5), ["w"]
    agreed([rows], squares, [total], 4, names)
    agreed([rows], squares, [None], 4, names)
    reach = 4 * math.sqrt(0.5)
    most = 3 * math.sqrt(torch.finfo(torch.float32).eps) * reach
    agreed([rows], squares, [total + T([0.9 * most / 4, 0.0])], 4, names)
    for wrong in (T([1.1 * most / 4, 0.0]), T([math.nan, 0.0])):
        with pytest.raises(UnaccountedStep, match=r"^w is used outside the module that holds it"):
            agreed([rows], squares, [total + wrong], 4, names)
    two, bad = [rows, rows], [total, total + 1]
    agreed(two, squares * 2, bad, 4, ["v", "w"], 0)
    for only in (1, None):
        with pytest.raises(UnaccountedStep, match=r"^w is used outside"):
            agreed(two, squares * 2, bad, 4, ["v", "w"], only)
    nothing = torch.zeros(4, 2)
    agreed([nothing], [torch.zeros(4)], [torch.zeros(2)], 4, names)
    assert unseen("w", used=False).startswith("w has no fresh per-example gradients")


def test_rows_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowHooks, "_room", ROOM)
    net = made(line)
    own, params = rows_of(net, 4, again=True), list(net[0].parameters())  # type: ignore[index]
    own.room = 4 * 25
    for once, given, kept, room in [
        (False, 100, False, 100),
        (True, 100, True, 100),
        (True, 99, True, 0),
        (True, 99, False, 0),
        (True, 100, True, 0),
    ]:
        assert own._room(params, once, given) == kept
        assert own.room == room
    assert rows_of(made(line), 4)._room(params, False, 0)


# -- options --


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"start": 2.0, "most": 1.5}, "least <= start <= most, got 0.001, 2.0, 1.5"),
        ({"start": 1e-4}, "least <= start <= most"),
        ({"least": 0.0}, "least: expected a number > 0"),
        ({"most": math.inf}, "most: expected a number > 0"),
        ({"start": 1.0, "least": 1.0, "most": 1.0}, "least <= start <= most"),
        ({"quantile": 0.0}, "quantile: expected"),
        ({"quantile": 1.0}, "quantile: expected"),
        ({"rate": 0.0}, "rate: expected a number > 0"),
        ({"count_noise": 0.0}, "count_noise: expected a number > 0"),
    ],
)
def test_a_clip_that_cannot_follow_is_refused(given: dict[str, float], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        AdaptiveClip(**given)


def test_clips_of_single_tensors_need_rows_and_stay() -> None:
    for wrong in (
        Clipping(1.0, gradients="ghost"),
        Clipping(AdaptiveClip()),
    ):
        with pytest.raises(Misuse, match="per-layer clipping has fixed norms and needs"):
            replace(wrong, per_layer=True)
    with pytest.raises(Misuse):
        Clipping(math.inf)


def test_clips_at_their_limits_and_of_single_tensors() -> None:
    assert AdaptiveClip(start=1e-3).start == 1e-3
    assert AdaptiveClip(start=1e3).start == 1e3
    small = AdaptiveClip()
    assert (small.quantile, small.rate, small.count_noise) == (0.5, 0.2, 0.05)
    assert small.count_std(40.0) == pytest.approx(2.0)
    assert Clipping(small).start == 1.0
    assert Clipping((3.0, 4.0), per_layer=True).start == 5.0
    assert Clipping((3.0, 4.0), per_layer=True).layer_clips(2) == [3.0, 4.0]
    assert Clipping(2.0, per_layer=True).layer_clips(4) == [1.0] * 4
    with pytest.raises(Misuse, match="expected 3 clip norms, one per trainable parameter tensor, got 2"):
        Clipping((3.0, 4.0), per_layer=True).layer_clips(3)
    assert Clipping(physical_batch=1).physical_batch == 1
    assert Clipping() == Clipping(1.0, False, "hooks", None)
    assert options.GRADIENTS == ("hooks", "functorch", "ew", "ghost")


# -- modules --


def coarse_line() -> nn.Module:
    return nn.Linear(2, 2).half()


def with_buffer() -> nn.Module:
    net = nn.Linear(2, 2)
    net.register_buffer("mean", torch.zeros(1))
    return net


def compiled() -> nn.Module:
    net = nn.Linear(2, 2)
    net._compiled_call_impl = lambda x: x
    return net


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (compiled(), "Linear is compiled"),
        (nn.BatchNorm1d(2), "BatchNorm1d mixes the examples"),
        (nn.InstanceNorm1d(2, track_running_stats=True), "InstanceNorm1d keeps running statistics"),
        (nn.Embedding(3, 2, max_norm=1.0), r"Embedding changes the rows it looks up \(max_norm\)"),
        (nn.Embedding(3, 2, max_norm=1.0).requires_grad_(False), "changes the rows"),
        (nn.LSTM(2, 2), "LSTM has no per-example gradients"),
        (nn.MultiheadAttention(2, 1), "MultiheadAttention has no per-example gradients"),
        (coarse_line(), "Linear has parameters in float16"),
        (nn.Conv1d(1, 1, 2, padding=1, padding_mode="circular"), "zero padding only, not 'circular'"),
        (nn.EmbeddingBag(3, 2, mode="max"), 'not for "max"'),
        (nn.Embedding(3, 2, scale_grad_by_freq=True), "scales gradients by counts"),
        (parametrizations.spectral_norm(nn.Linear(2, 2)), "spectral norm"),
        (with_buffer(), "trainable parameters beside buffers"),
    ],
)
def test_what_cannot_be_private_is_said_by_name(module: nn.Module, why: str) -> None:
    for net, name in ((module, r"\(the model itself\)"), (nn.ModuleDict({"inner": module}), "inner")):
        with pytest.raises(UnsupportedModule, match=f"{name}: .*{why}"):
            validation.validate(net)


@pytest.mark.parametrize(
    "module",
    [
        coarse_line().requires_grad_(False),
        with_buffer().requires_grad_(False),
        nn.InstanceNorm1d(2),
        nn.Embedding(3, 2, padding_idx=0),
        nn.EmbeddingBag(3, 2, mode="mean"),
        nn.Conv1d(1, 1, 2, padding=1),
        parametrizations.weight_norm(nn.Linear(2, 2)),
        nn.GroupNorm(1, 2),
        nn.Tanh(),
        nn.Sequential(nn.Linear(2, 2), with_buffer().requires_grad_(False)),
    ],
)
def test_what_can_be_private_passes(module: nn.Module) -> None:
    validation.validate(module)
    assert validation.problems(nn.Sequential(module)) == {}


class Beside(nn.Module):
    """A parameter of its own beside a part that has a buffer and is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.part = nn.Parameter(torch.ones(1)), with_buffer().requires_grad_(False)


def test_what_is_wrong_is_said_of_the_part_that_it_is_in() -> None:
    for part in (coarse_line(), nn.BatchNorm1d(2), with_buffer(), nn.LSTM(2, 2)):
        assert list(validation.problems(nn.ModuleDict({"a": nn.Sequential(part), "b": nn.Linear(2, 2)}))) == [
            "a.0"
        ]
    assert validation.problems(Beside()) == {}


def test_pads_are_refused_under_expanded_weights_alone() -> None:
    table = nn.Embedding(3, 2, padding_idx=0)
    with pytest.raises(UnsupportedModule, match=r"\(the model itself\): Embedding pads"):
        validation.validate(table, "ew")
    validation.validate(table, "functorch")
    validation.validate(nn.Embedding(3, 2), "ew")
    validation.validate(table.requires_grad_(False), "ew")


def test_a_repair_keeps_what_a_module_was() -> None:
    net = nn.Sequential(
        nn.BatchNorm1d(48),
        nn.BatchNorm1d(34, affine=False),
        nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
        nn.Linear(2, 2),
    ).eval()
    fixed, changes = validation.repair(net)
    assert isinstance(fixed, nn.Sequential)
    first, second, third = list[Any](fixed)[:3]
    assert (first.num_groups, first.num_channels, first.affine) == (24, 48, True)
    assert (second.num_groups, second.affine) == (17, False)
    assert (third.num_features, third.affine, third.track_running_stats) == (3, True, False)
    assert [(c.name, c.before, c.after) for c in changes] == [
        ("0", "BatchNorm1d", "GroupNorm"),
        ("1", "BatchNorm1d", "GroupNorm"),
        ("2", "InstanceNorm1d", "InstanceNorm1d"),
    ]
    assert [
        getattr(validation.repair(nn.BatchNorm1d(n))[0], "num_groups", 0) for n in (1, 2, 33, 34, 66, 64)
    ] == [
        1,
        2,
        11,
        17,
        22,
        32,
    ]
    deep = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.BatchNorm1d(4)})})
    assert [c.name for c in validation.repair(deep)[1]] == ["a.b"]
    assert not fixed.training
    assert net[0].running_mean is not None
    assert validation.repair(nn.BatchNorm1d(4))[1] == (
        validation.Repair("(the model itself)", "BatchNorm1d", "GroupNorm"),
    )
    assert validation.repair(nn.Linear(2, 2).train())[0].training
    with pytest.raises(UnsupportedModule, match="spectral norm"):
        validation.repair(parametrizations.spectral_norm(nn.Linear(2, 2)))


@pytest.mark.parametrize(
    "module",
    [
        nn.RNN(3, 2, num_layers=2, bias=False, batch_first=True, bidirectional=True, nonlinearity="relu"),
        nn.RNN(3, 2, dropout=0.0),
        nn.GRU(3, 2, batch_first=True),
        nn.LSTM(3, 2),
    ],
)
def test_a_repaired_layer_computes_the_same_under_the_same_names(module: Any) -> None:
    fixed: Any = validation.repair(nn.ModuleDict({"inner": module}))[0]
    assert set(fixed.state_dict()) == {f"inner.{name}" for name in module.state_dict()}
    x = torch.randn(4, 5, 3)
    assert torch.allclose(module(x)[0], fixed["inner"](x)[0], atol=1e-6)
    state = {name: torch.full_like(value, 0.25) for name, value in fixed.state_dict().items()}
    fixed.load_state_dict(state)
    module.load_state_dict({name.removeprefix("inner."): value for name, value in state.items()})
    assert torch.allclose(module(x)[0], fixed["inner"](x)[0], atol=1e-6)
