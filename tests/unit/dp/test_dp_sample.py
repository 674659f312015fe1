"""Private local training: every clipping mode, steps counted against changes, exact sums, secret batches,
validation by name."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dp.sample.engine import ClientEngine
from dp.sample.errors import UnaccountedStep, UnclippedLoss, UnsupportedModule
from dp.sample.gradients import clipped_sum
from dp.sample.loader import PrivateLoader
from dp.sample.options import AdaptiveClip, Clipping
from dp.sample.sums import clip_factors, grid_sum, squared_norms
from dp.sample.validation import problems, repair
from protocols.errors import Misuse
from protocols.randomness import SystemRandom

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
EXAMPLES = 200
MODES = [
    Clipping(1.0),
    Clipping(1.0, per_layer=True),
    Clipping((0.5, 0.5, 0.5, 0.5), per_layer=True),
    Clipping(AdaptiveClip()),
    Clipping(1.0, gradients="functorch"),
    Clipping(1.0, gradients="ew"),
    Clipping(1.0, gradients="ghost"),
    Clipping(AdaptiveClip(), gradients="ghost"),
    Clipping(1.0, physical_batch=7),
    Clipping(1.0, gradients="ghost", physical_batch=7),
]


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, :3]).argmax(1)), batch_size=20)


def begin(engine: ClientEngine, net: nn.Module, lr: float = 0.1) -> Any:
    engine.size(EXAMPLES)
    return engine.begin(net, torch.optim.SGD(net.parameters(), lr=lr), loader(), nn.CrossEntropyLoss())


def honest(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def probed(engine: ClientEngine, at: Any) -> None:
    """Train as SampleDP does: without the probe, a Poisson batch as long as its sentences has two candidates for the
    examples' axis and is refused."""

    def loop() -> None:
        honest(at.model, at.loader, at.optimizer, at.criterion)

    engine.probe(loop)
    loop()


def clears_the_model(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        model.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def own_optimizer(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        mine.zero_grad()
        criterion(model(x), y).backward()
        mine.step()


def own_optimizer_beside(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        mine.step()


def own_loss(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def touched_gradient(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        model[0].weight.grad.add_(1.0)
        optimizer.step()


def added_penalty(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        (criterion(model(x), y) + model[0].weight.pow(2).sum()).backward()
        optimizer.step()


def other_examples(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, _ in loader:
        more = torch.cat([x, torch.randn(5, 6)])
        optimizer.zero_grad()
        criterion(model(more), torch.zeros(len(more), dtype=torch.long)).backward()
        optimizer.step()


def skipped_batch(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for i, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        if i != 3:
            optimizer.step()


def two_steps(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        optimizer.step()


def trained_copy(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    honest(model, loader, optimizer, criterion)
    with torch.no_grad():
        model[0].bias.add_(1e-3)


@pytest.mark.parametrize("clipping", MODES, ids=str)
def test_every_mode_trains_over_rounds_and_keeps_names_and_account(clipping: Clipping) -> None:
    net, engine = model(), ClientEngine(clipping, noise_multiplier=0.5, rate=0.1, steps=10)
    names, before = list(net.state_dict()), [p.detach().clone() for p in net.parameters()]
    for taken in (10, 20):
        attached = begin(engine, net)
        honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
        assert engine.finish() == 10
        assert engine.taken == taken
        assert list(net.state_dict()) == names
    assert engine.account.history == [(0.5, 0.1, 20)]  # Opacus' own account agrees on what happened
    assert all(not torch.equal(a, p) for a, p in zip(before, net.parameters(), strict=True))
    assert not any(hasattr(p, "grad_sample") for p in net.parameters())


@pytest.mark.parametrize(
    ("loop", "gradients", "error"),
    [
        (own_optimizer, "hooks", UnaccountedStep),
        (own_optimizer, "ghost", UnaccountedStep),
        (own_optimizer_beside, "hooks", UnaccountedStep),
        (own_optimizer_beside, "ghost", UnaccountedStep),
        (own_loss, "ghost", UnclippedLoss),
        (touched_gradient, "ghost", UnclippedLoss),
        (added_penalty, "ghost", UnclippedLoss),
        (other_examples, "hooks", UnaccountedStep),
        (other_examples, "ghost", UnaccountedStep),
        (skipped_batch, "hooks", UnaccountedStep),
        (two_steps, "hooks", UnaccountedStep),
        (two_steps, "ghost", UnaccountedStep),
        (trained_copy, "hooks", UnaccountedStep),
    ],
)
def test_a_loop_that_steps_past_the_account_is_refused(
    loop: Any, gradients: str, error: type[Exception]
) -> None:
    engine = ClientEngine(Clipping(1.0, gradients=gradients), 0.5, 0.1, 10)
    attached = begin(engine, model())
    with pytest.raises(error):  # noqa: PT012  # the loop or the end of the round may see it first
        loop(attached.model, attached.loader, attached.optimizer, attached.criterion)
        engine.finish()


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_gradients_are_used_once_even_if_the_loop_forgets_the_optimizers_zero_grad(gradients: str) -> None:
    engine = ClientEngine(Clipping(1.0, gradients=gradients), 0.5, 0.1, 10)
    attached = begin(
        engine, nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    )
    clears_the_model(attached.model, attached.loader, attached.optimizer, attached.criterion)
    assert engine.finish() == 10


def test_a_step_that_changes_nothing_is_refused() -> None:
    engine = ClientEngine(Clipping(1.0), 0.5, 0.1, 10)
    attached = begin(engine, model(), lr=0.0)
    honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
    with pytest.raises(UnaccountedStep, match="0 changed parameters"):
        engine.finish()


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_an_empty_secret_batch_is_a_step_of_noise_that_the_loop_never_sees(gradients: str) -> None:
    seen = []

    def loop(attached: Any) -> None:
        for x, y in attached.loader:
            seen.append(len(x))
            attached.optimizer.zero_grad()
            attached.criterion(attached.model(x), y).backward()
            attached.optimizer.step()

    engine, net = ClientEngine(Clipping(1.0, gradients=gradients), 1.0, rate=1 / 400, steps=40), model()
    loop(begin(engine, net))
    assert engine.finish() == 40  # a batch holds half an example on average: many were empty
    assert 0 not in seen
    assert len(seen) < 40


@pytest.mark.parametrize("clipping", [Clipping(1.0), Clipping(1.0, gradients="ghost")], ids=str)
def test_the_noise_has_the_variance_that_is_stated(clipping: Clipping) -> None:
    """At learning rate 1 and rate 2^-40 every step adds pure noise: 60 steps x 53 parameters, 3,180
    draws."""
    torch.manual_seed(0)
    multiplier, steps, batch = 2.0, 60, 4.0
    engine, net = ClientEngine(clipping, multiplier, rate=2.0**-40, steps=steps), model()
    engine.size(round(batch * 2**40))
    start = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).double()
    attached = engine.begin(net, torch.optim.SGD(net.parameters(), lr=1.0), loader(), nn.CrossEntropyLoss())
    draws = []
    for _ in range(steps):
        engine.empty()
        now = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).double()
        draws.append((now - start) * batch)
        start = now
    assert attached.optimizer.dims == start.numel()
    variance = float(torch.cat(draws).var())
    # chi-square with 3,180 degrees of freedom: relative sd 2.5 %; 5.2 sd is a false alarm below 10^-6
    assert abs(variance / multiplier**2 - 1) < 0.13


def test_noise_and_batches_do_not_follow_torchs_generator() -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(7)
        net = model()
        engine = ClientEngine(Clipping(1.0), 1.0, 0.1, 10)
        attached = begin(engine, net)
        honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
        ends.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    assert not torch.equal(ends[0], ends[1])


def test_adaptive_clip_moves_towards_the_quantile_and_lives_over_rounds() -> None:
    clip = AdaptiveClip(start=100.0, least=1e-3, most=1e3, rate=0.5, count_noise=0.1)
    engine, net = ClientEngine(Clipping(clip), 0.5, 0.1, 10), model()
    clips = []
    for _ in range(4):
        attached = begin(engine, net)
        honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
        engine.finish()
        clips.append(engine.clip or math.inf)
    assert clips[0] < 20  # nobody's gradient is near 100: every step shrinks the clip by up to exp(-1/4)
    assert max(clips[1:]) < 10  # and the next rounds begin where the last one ended


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_an_example_moves_the_integer_sum_by_no_more_than_its_bound(scale: float) -> None:
    gradients = (torch.randn(50, 300, generator=torch.Generator().manual_seed(1)) * scale).float()
    clip, step = 0.7, 2.0**-12
    factors = clip_factors(squared_norms(gradients), clip)
    whole = grid_sum(gradients, factors, step)
    for left_out in range(5):
        keep = torch.arange(50) != left_out
        without = grid_sum(gradients[keep], factors[keep], step)
        moved = float((whole - without).double().norm())
        assert moved <= clip / step + math.sqrt(300) / 2


def test_clipped_sums_agree_with_a_plain_loop_over_examples() -> None:
    net, data = model(), loader()
    named, _ = clipped_sum(
        net, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), data, rate=1.0, clip=0.3, step=2.0**-30,
        random=SystemRandom(),
    )  # fmt: skip
    expected = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for x, y in zip(*data.dataset.tensors, strict=True):  # type: ignore[attr-defined]
        net.zero_grad()
        nn.functional.cross_entropy(net(x[None]), y[None]).backward()
        norm = math.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in net.parameters()))  # type: ignore[union-attr]
        for name, p in net.named_parameters():
            expected[name] += p.grad * min(1.0, 0.3 / norm)  # type: ignore[operator]
    for name, total in named.items():
        assert np.allclose(total * 2.0**-30, expected[name].numpy(), atol=1e-4)


def test_examples_whose_gradient_is_not_finite_count_as_zero(caplog: pytest.LogCaptureFixture) -> None:
    net, data = model(), loader()
    with torch.no_grad():
        net[2].weight[0, 0] = math.inf  # type: ignore[index]
    step, random = 2.0**-20, SystemRandom()
    named, _ = clipped_sum(net, _square, data, rate=1.0, clip=1.0, step=step, random=random, whose="ward-1")
    assert not any(total.any() for total in named.values())
    assert f"ward-1: the gradients of {len(data.dataset)} examples held NaN" in caplog.text  # type: ignore[arg-type]


def _square(net: Any, batch: Any) -> torch.Tensor:
    out: torch.Tensor = net(batch[0]).square().mean()
    return out


class _Steps:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.sizes.append(size)

    def empty(self) -> None:
        self.sizes.append(0)


class _Words(Dataset[Any]):
    """A map-style data set that is no TensorDataset and needs the user's own collation."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return [index] * 3, index % 2


def _collate(examples: list[Any]) -> dict[str, torch.Tensor]:
    return {"words": torch.tensor([e[0] for e in examples]), "label": torch.tensor([e[1] for e in examples])}


def test_secret_batches_have_poisson_sizes_and_pass_the_users_collation() -> None:
    steps = _Steps()
    batches = PrivateLoader(
        DataLoader(_Words(), collate_fn=_collate), 0.2, 300, SystemRandom(), steps, most=None
    )
    for batch in batches:
        assert batch["words"].shape == (steps.sizes[-1], 3)
        assert len(set(batch["words"][:, 0].tolist())) == steps.sizes[-1]  # nobody twice in a batch
    # 30,000 coins of probability 0.2: sd 69 of 6,000; 5 sd
    assert abs(sum(steps.sizes) - 6000) < 350
    # variance of binomial(100, 0.2) is 16; sd of the estimate over 300 batches about 1.3
    assert 9 < float(np.var(steps.sizes)) < 24


def test_streams_without_length_are_refused() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(Misuse, match="stream"):
        PrivateLoader(DataLoader(Stream()), 0.2, 3, SystemRandom(), _Steps())


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
    assert set(caught.value.modules) == {"1", "2", "3", "4"}


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
