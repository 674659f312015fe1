"""The audit of per-example gradients finds every planted defect, names the parameter, and passes sound models.

The planted ones are the rows that the library under `dp.sample` makes where it is given such a model, in steps
that check nothing.
"""

from collections import UserDict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dp.audit import per_example
from dp.audit.one_run import one_run_epsilon
from dp.sample import loader
from dp.sample.audit import canary_run, probe
from dp.sample.audit.canary_run import ALARM, DELTA, FEWEST, estimate, lower_bound
from dp.sample.audit.per_example import ExampleAudit, Mode
from dp.sample.engine import ClientEngine
from dp.sample.errors import NotPerExample, UnsupportedModule
from dp.sample.layout import Layouts
from dp.sample.loader import PrivateLoader
from dp.sample.options import GRADIENTS
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.defects.dp import broken
from tests.defects.dp.sample_models import FLOATS, REFUSED, SOUND, line
from tests.unit.dp.test_dp_sample_exact import released
from tests.unit.dp.test_sample_memory import Remembers, first
from tests.unit.dp.test_sample_packed import Pooled, packed, trained


class Counted:
    """Hears of batches."""

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        assert size

    def empty(self) -> None:
        raise AssertionError("every example comes at rate 1")


PLANTED = {
    "time first: rows of time steps": ("time first", "hooks", "inner.weight", 2.0),
    "time first, torch.func": ("time first", "functorch", "inner.weight", 2.0),
    "ghost clipping beside a function of a weight": (
        "weight used by a function",
        "ghost",
        "words.weight",
        1.1,
    ),
    "hooks beside a function of a weight": ("weight used by a function", "hooks", "words.weight", None),
    "a Linear called twice": ("Linear called twice", "hooks", "inner.weight", None),
    "Linears tied": ("Linears tied", "hooks", "a.weight", None),
    "padding trained, hooks": ("padding", "hooks", "words.weight", None),
    "padding trained, expanded weights": ("padding", "ew", "words.weight", None),
    "padding trained, ghost": ("padding", "ghost", "words.weight", None),
    "words that come twice in a bag": ("bag, offsets, padding", "hooks", "words.weight", None),
    "time folded into the batch": ("time folded into the batch", "hooks", "inner.weight", None),
    "attention, time first": ("attention, time first", "hooks", "attention.out_proj.weight", None),
    "norm over time": ("norm over time", "hooks", "norm.weight", None),
}


pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
]


def audited(name: str, gradients: str, **options: object) -> ExampleAudit:
    """Audit a model in one gradient mode; `modes` says which others are compared beside it."""
    options = {"modes": (), **options}
    case = {**SOUND, **REFUSED, **FLOATS}[name]
    torch.manual_seed(3)
    return per_example(case[0](), None, case[1](), gradients=gradients, clip=0.05, **options)  # type: ignore[arg-type]


def mode_of(audit: ExampleAudit) -> Mode:
    return next(mode for mode in audit.modes if mode.name == audit.gradients)


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_the_defect_is_found_and_its_parameter_named(planted: tuple[str, str, str, float | None]) -> None:
    name, gradients, parameter, moved = planted
    with broken.unchecked():
        audit = audited(name, gradients, engine=broken.LibraryEngine, ascent=5)
    assert not audit.passed
    wrong = {p.name for p in audit.parameters if p.status == "refused"}
    assert parameter in wrong, audit
    if moved is not None:
        assert (mode_of(audit).moved or 0.0) > moved, audit


@pytest.mark.parametrize("name", FLOATS)
def test_ghost_clipping_in_floats_is_found_where_one_example_moves_it_by_more_than_a_clip(name: str) -> None:
    """Norms by sums of products lose what cancels, a second backward pass rounds the sum to the activations' bits: the
    rows of the examples at hand are right, and the one that is found is not clipped."""
    with broken.unchecked():
        audit = audited(name, "ghost", engine=broken.LibraryEngine)
    assert mode_of(audit).status == "failed", audit
    assert (mode_of(audit).moved or 0.0) > 1.3, audit
    sound = audited(name, "ghost", modes=GRADIENTS)
    assert sound.passed == (name != "scores in eight bits"), sound
    assert {mode.status for mode in sound.modes} <= {"sound", "refused"}, sound


@pytest.mark.parametrize("name", FLOATS)
def test_rows_rounded_with_the_number_of_examples_are_found(name: str) -> None:
    """Right for every example, and off by the same little in a whole crowd of them."""
    for mode in ("hooks", "ghost"):
        with broken.unchecked():
            audit = audited(name, mode, engine=broken.DividingEngine)
        assert not audit.passed
        if name == "terms that cancel":  # in eight bits the rows themselves are seen to be off
            assert (mode_of(audit).moved or 0.0) > 1.1, audit


def test_a_model_that_remembers_its_first_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches agree with their parts, and no example moves a sum, once the first batch has come."""
    data = torch.randn(24, 8), torch.arange(24) % 2
    audit = per_example(Remembers(first), None, data, ascent=1, modes=())
    assert "held is an attribute" in mode_of(audit).reason
    monkeypatch.setattr(probe, "written", lambda *given, **options: None)
    assert per_example(Remembers(first), None, data, ascent=1, modes=()).passed  # the check as it was


def test_rows_packed_one_example_after_the_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sum is right; whose they are is not, once their number happens to divide."""
    lengths = [4] * 25
    lengths[5] = 4 + 4 * 25
    with pytest.raises(NotPerExample, match="different numbers of rows"):
        trained(Pooled(), lengths, packed)
    monkeypatch.setattr(Layouts, "counted", lambda self, batches: (self, set()))
    trained(Pooled(), lengths, packed)


def test_examples_that_are_fetched_together_are_each_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that scales what it is asked for at once: checked one by one, and trained in batches."""

    class Batched(TensorDataset):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            x, y = self[torch.tensor(indices)]
            return list(zip(x / x.abs().max(), y, strict=True))

    def scaled() -> bool:
        data = Batched(1 + torch.arange(8.0)[:, None], torch.arange(8))
        parts = PrivateLoader(DataLoader(data, batch_size=8), 1.0, 1, SystemRandom(), Counted())
        return [float(x) for x in next(iter(parts))[0]] != [1.0 + at for at in range(8)]

    assert not scaled()
    monkeypatch.setattr(
        loader._Tagged, "__getitems__", lambda self, given: [given[0], *self.dataset.__getitems__(given[1:])]
    )
    assert scaled()


@pytest.mark.parametrize("engine", [broken.LibraryEngine, ClientEngine])
def test_unclipped_examples_counted_at_every_backward_pass_are_found(engine: type[ClientEngine]) -> None:
    """Fifty passes count 64 examples 3,200 times; the noise of two counts differs by 362 in one of 10^88 runs."""
    with broken.unchecked():
        apart = abs(released(50, False, "ghost", engine) - released(1, False, "ghost", engine))
    assert (apart > 2000) == (engine is broken.LibraryEngine)


@pytest.mark.parametrize("name", ["time first", "Linears tied", "padding", "two layouts", "frozen"])
def test_a_sound_model_passes_and_no_example_moves_it_by_more_than_a_clip(name: str) -> None:
    for gradients in ("hooks", "ghost"):
        audit = audited(name, gradients, ascent=3)
        assert audit.passed, audit
        assert 0.5 < (mode_of(audit).moved or 0.0) < 1.02


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_every_sound_model_passes(name: str) -> None:
    for gradients in ("hooks", "functorch", "ghost"):
        assert audited(name, gradients).passed


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_layer_refuses_does_not_pass(name: str) -> None:
    audit = audited(name, "hooks", ascent=0)
    assert not audit.passed
    assert mode_of(audit).reason


class Fails(nn.Linear):
    """Ends in an error of its own above a size of inputs."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.abs().max() > 100:
            raise KeyError("too large")
        return super().forward(input)


def test_a_model_whose_movement_cannot_be_measured_is_not_called_sound() -> None:
    """A search that broke off was passed over in silence."""
    audit = per_example(Fails(4, 3), None, (torch.randn(8, 4), torch.arange(8) % 3))
    assert not audit.passed
    assert "no movement was measured: KeyError" in str(audit)


class Steep(nn.Module):
    """Above a size of inputs, all examples of a batch are scaled by a hundred."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = self.inner(x)
        return given * 100 if x.abs().max() > 1e3 else given


def test_ascent_that_ends_on_a_plain_does_not_end_the_search() -> None:
    """A gradient whose norm is zero in floats and whose entries are not."""
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(24, 6, generator=generator), torch.arange(24) % 3
    torch.manual_seed(0)
    audit = per_example(
        Steep(), lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]), data
    )
    assert all((mode.moved or 0.0) > 1.5 for mode in audit.modes[:3])
    assert all("one example moves the clipped sum by" in mode.reason for mode in audit.modes[:3])
    assert all(mode.reason for mode in audit.modes if mode.status != "sound")


def hardest(model: nn.Module, batch: Any) -> torch.Tensor:
    """The mean over the 64 examples with the largest losses: one example takes another's place, in larger batches."""
    losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return losses.topk(min(64, len(losses))).values.mean()


def test_mixing_that_begins_in_large_batches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 examples, of which one more moved the sum by two clips; batches of at most 16 were looked at."""
    torch.manual_seed(3)
    data = torch.randn(64, 6), torch.arange(64) % 3
    audit = per_example(nn.Linear(6, 3), hardest, data, ascent=0, modes=())
    assert not audit.passed
    assert "changes with the others of its batch" in str(audit)
    assert (mode_of(audit).moved or 0.0) > 1.02
    monkeypatch.setattr(PrivateLoader, "_largest", 16)  # the check as it was
    assert per_example(nn.Linear(6, 3), hardest, data, ascent=0, modes=()).passed


def test_a_verdict_names_holders_ties_layouts_frozen_and_errors() -> None:
    audit = audited("Linears tied", "hooks", ascent=0, modes=GRADIENTS)
    tied = next(p for p in audit.parameters if p.name == "a.weight")
    assert tied.modules == ("a", "b")
    assert tied.errors.keys() >= {"hooks", "functorch", "ghost"}
    found = {p.name: p for p in audited("frozen", "hooks", ascent=0).parameters}
    assert found["0.weight"].status == "frozen"
    first = next(p for p in audited("time first", "hooks", ascent=0).parameters if p.name == "inner.weight")
    assert "axis 1" in first.layouts[0]
    assert audit.to_json()["parameters"][0]["tied"]


def test_canaries_refute_a_loop_without_a_clip_and_pass_a_sound_one() -> None:
    torch.manual_seed(3)
    data = torch.randn(64, 20), torch.arange(64) % 3
    net = line(20)
    sound = lower_bound(estimate(net, None, data, canaries=200))
    assert sound.sound, sound
    with broken.optimizer_with("_factors", broken.no_clip):
        loose = lower_bound(estimate(net, None, data, clip=0.01, canaries=200))
    assert loose.measured.epsilon > sound.measured.epsilon
    assert not loose.sound, loose
    assert "about" in str(estimate(net, None, data))


@pytest.fixture
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        canary_run,
        "ClientEngine",
        lambda clip, noise, *given, **named: ClientEngine(clip, 1e-6, *given, **named),
    )


def test_canaries_refute_a_loop_without_noise_and_no_number_of_them_that_cannot_is_taken(
    without_noise: None,
) -> None:
    """Of 40 loops without noise 34 were called sound, all of those with 24 canaries. One example without a finite
    gradient blinded the guesses.
    """
    torch.manual_seed(3)
    data = torch.randn(64, 20), torch.arange(64) % 3
    net = line(20)
    net.train()
    plan = estimate(net, None, data)
    assert not lower_bound(plan).sound
    assert net.training
    broken_one = plan.others[0][0] * torch.inf, plan.others[0][1]
    assert not lower_bound(replace(plan, others=[broken_one, *plan.others[1:]])).sound
    fewest = one_run_epsilon(FEWEST, guesses := FEWEST // 4, guesses, DELTA, ALARM)
    assert fewest > lower_bound(plan).stated
    with pytest.raises(Misuse, match="at least 60 canaries"):
        estimate(line(20), None, data, canaries=59)


class Rows(Dataset[Any]):
    """Few rows: `make(row, label)`."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 30

    def __getitem__(self, at: int) -> Any:
        return self.make(np.random.default_rng(at).normal(size=24).astype(np.float32), at % 8)


def listed(examples: list[Any]) -> Any:
    x, y = zip(*(each.values() if isinstance(each, UserDict) else each for each in examples), strict=True)
    return torch.tensor(x), torch.tensor(y)


class Bag(nn.Module):
    """What the order of its tokens does not change."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.last = nn.Embedding(200, 8), nn.Linear(8, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(self.tokens(tokens).mean(1))
        return made


class Floats(nn.Linear):
    """Takes numbers of any kind."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.float())


class Pairs(nn.Module):
    """Of a user and an item, one number each."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items, self.last = nn.Embedding(300, 6), nn.Embedding(300, 6), nn.Linear(6, 2)

    def forward(self, pair: Any) -> torch.Tensor:
        made: torch.Tensor = self.last(self.users(pair[0]) * self.items(pair[1]))
        return made


def in_training(model: nn.Module, batch: Any) -> torch.Tensor:
    model.train()
    return functional.cross_entropy(model(batch[0]), batch[1])


def dropping() -> nn.Module:
    return nn.Sequential(line(24), nn.Dropout(0.5))


NORMAL = torch.randn(64, 24), torch.arange(64) % 3
FEW = DataLoader(Rows(lambda x, y: UserDict(x=x.tolist(), y=y)), batch_size=8, collate_fn=listed)


@pytest.mark.parametrize(
    ("make", "loss", "data", "canaries"),
    [
        (dropping, None, NORMAL, 100),
        (dropping, in_training, NORMAL, 100),
        (lambda: nn.Linear(24, 8), None, Rows(lambda x, y: (x, y)), 100),
        (lambda: Floats(24, 8), None, Rows(lambda x, y: (x > 0, y)), 100),
        (lambda: nn.Linear(24, 8), None, FEW, 100),
        (Pairs, None, (tuple(torch.randint(0, 300, (2, 64))), torch.arange(64) % 2), 100),
        # some are bags of nearly the same tokens: of 50 guesses 40 have to be right, of 25 it would be 22
        (Bag, None, (torch.randint(0, 200, (64, 12)), torch.arange(64) % 4), 200),
    ],
    ids=["dropout", "dropout set by the loss", "arrays", "truth values", "lists", "numbers", "bags"],
)
def test_canaries_are_told_apart(without_noise: None, make: Any, loss: Any, data: Any, canaries: int) -> None:
    """Another mask when scored, copies of what was not disturbed, and a permutation that changes nothing hid them."""
    torch.manual_seed(3)
    assert not lower_bound(estimate(make(), loss, data, canaries=canaries)).sound


def drawing(model: nn.Module, batch: Any) -> torch.Tensor:
    kept = torch.bernoulli(torch.full_like(batch[0], 0.5))
    return functional.cross_entropy(model(batch[0] * kept), batch[1])


@pytest.mark.parametrize(
    ("loss", "data", "said"),
    [
        (None, (torch.zeros(16, 24), torch.zeros(16, dtype=torch.long)), "gradients of their own, got 1 "),
        (
            None,
            DataLoader(
                Rows(lambda x, y: str(y)),
                collate_fn=lambda given: (NORMAL[0][:1] * int(given[0]), NORMAL[1][:1]),
            ),
            "got 8 ",
        ),
        (drawing, NORMAL, "the same gradient each time"),
    ],
    ids=["no loss", "text", "random loss"],
)
def test_canaries_that_cannot_be_told_apart_are_refused(loss: Any, data: Any, said: str) -> None:
    """A loop without noise was called sound."""
    classes = 1 if "got 1 " in said else 3
    with pytest.raises(Misuse, match=said):
        lower_bound(estimate(nn.Linear(24, classes), loss, data, canaries=60))


def test_the_model_its_gradients_and_the_random_numbers_are_put_back() -> None:
    net = nn.Sequential(nn.Linear(24, 3), nn.Dropout(0.5))
    net[0].weight.grad = gradient = torch.ones(3, 24)
    weight, state, numbers = net[0].weight.detach().clone(), torch.get_rng_state(), np.random.get_state()[1]
    lower_bound(estimate(net, in_training, NORMAL, canaries=60))
    assert torch.equal(net[0].weight, weight)
    assert net[0].weight.grad is gradient
    assert net[0].bias.grad is None
    assert torch.equal(gradient, torch.ones(3, 24))
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)


def test_a_model_that_mixes_its_batch_is_refused_before_canaries_are_planned() -> None:
    with pytest.raises(UnsupportedModule, match="ask for repair"):
        estimate(nn.Sequential(nn.Linear(24, 3), nn.BatchNorm1d(3)), None, NORMAL)
