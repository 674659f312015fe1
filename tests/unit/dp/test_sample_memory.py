"""A model that remembers what it saw in plain attributes: one example then changes the gradients of others in later
batches, and one batch compared with its parts shows nothing. It trained under an epsilon of .48 while sums of
neighbours lay 247 clips apart.
"""

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import DistributedDP, SampleDP
from dp.audit import per_example
from dp.sample.engine import ClientEngine
from dp.sample.errors import NotPerExample, UnaccountedStep
from dp.sample.options import Clipping
from fl import Federation, FedSGD
from tests.unit.dp.sample_rig import honest

EXAMPLES = 40


class Remembers(nn.Module):
    """Scales its input by what `note` makes of a batch and of what was held before."""

    def __init__(self, note: Callable[[Any, torch.Tensor], Any], held: Any = None) -> None:
        super().__init__()
        self.line, self.note, self.held = nn.Linear(8, 2), note, held

    def forward(self, x: torch.Tensor) -> Any:
        self.held = self.note(self.held, x.detach())
        return self.line(x)


def first(held: Any, x: torch.Tensor) -> Any:
    return x.mean(dim=0) if held is None else held


def largest(held: Any, x: torch.Tensor) -> float:
    return max(held or 0.0, float(x.abs().max()))


def seen(held: Any, x: torch.Tensor) -> set[float]:
    return (held or set()) | set(x[:, 0].tolist())


def count(held: Any, x: torch.Tensor) -> int:
    return (held or 0) + 1


def history(held: Any, x: torch.Tensor) -> Any:
    held.append(x[0].numpy())
    return held


def cache(held: Any, x: torch.Tensor) -> Any:
    return {"places": torch.arange(x.shape[1]), "names": ["a", "b"]}


NOTES: dict[str, Callable[[], Remembers]] = {
    "the first batch's mean": lambda: Remembers(first),
    "the largest value": lambda: Remembers(largest),
    "values seen": lambda: Remembers(seen),
    "a count of calls": lambda: Remembers(count),
    "the last examples": lambda: Remembers(history, deque(maxlen=3)),
}


class Scale:
    """An object of a class of one's own, which adds up what it is shown."""

    total = 0.0

    def of(self, x: torch.Tensor) -> Any:
        self.total += float(x.abs().max())
        return self.total


class Scaled(nn.Module):
    """The same as a module that its owner holds in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("top", torch.zeros(()))
        self.kept = nn.Parameter(torch.zeros(()), requires_grad=False)

    def of(self, x: torch.Tensor) -> Any:
        self.top = x.abs().max()
        return self.top


def unit(held: Any, x: torch.Tensor) -> str:
    return held or ("bytes" if float(x.max()) > 2 else "unit")


def beside_a_dtype(held: Any, x: torch.Tensor) -> Any:
    held["top"] = held["top"] or float(x.max())
    return held


def by_an_object(held: Any, x: torch.Tensor) -> Any:
    next(iter(held.values() if isinstance(held, dict) else held)).of(x)
    return held


def in_a_parameter(held: Any, x: torch.Tensor) -> Any:
    held[0].data.fill_(float(x.max()))
    return held


def in_a_partial(held: Any, x: torch.Tensor) -> Any:
    return partial(dict, other=float(x.max())) if held.keywords["other"] is None else held


def by_a_method(held: Any, x: torch.Tensor) -> Any:
    held(x)
    return held


def in_bytes(held: bytearray, x: torch.Tensor) -> Any:
    held[0] |= bool((x[:, 0] > 0).any())
    return held


def trigger(held: Any, x: torch.Tensor) -> Any:
    """One bit: whether an example of some kind has come."""
    return held or bool((x[:, 0] > 0).any())


NOTES |= {
    "a word": lambda: Remembers(unit),
    "a number beside a dtype": lambda: Remembers(beside_a_dtype, {"top": None, "kind": torch.float32}),
    "an object": lambda: Remembers(by_an_object, [Scale()]),
    "a module in a list": lambda: Remembers(by_an_object, [Scaled()]),
    "a parameter in a list": lambda: Remembers(
        in_a_parameter, [nn.Parameter(torch.zeros(()), requires_grad=False)]
    ),
    "a method": lambda: Remembers(by_a_method, Scale().of),
    "a method in a partial": lambda: Remembers(by_a_method, partial(Scale().of)),
    "bytes": lambda: Remembers(in_bytes, bytearray(1)),
    "a partial": lambda: Remembers(in_a_partial, partial(dict, other=None)),
    "one bit": lambda: Remembers(trigger, False),
}


def data() -> TensorDataset:
    x = torch.randn(EXAMPLES, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, torch.arange(EXAMPLES) % 2)


def two() -> dict[str, DataLoader[Any]]:
    return {name: DataLoader(data(), batch_size=EXAMPLES) for name in "ab"}


@pytest.mark.parametrize("make", NOTES.values(), ids=NOTES)
def test_what_remembers_its_batches_is_refused_by_name(make: Callable[[], Remembers]) -> None:
    stacks: tuple[tuple[dict[str, Any], Any], ...] = (
        ({"train": honest}, SampleDP(noise_multiplier=1.0, delta=1e-5)),
        (
            {"strategy": FedSGD()},
            DistributedDP(
                noise_multiplier=1.0, delta=1e-5, unit="example", sample_rate=1.0, examples=2 * EXAMPLES
            ),
        ),
    )
    for given, layer in stacks:
        with pytest.raises(NotPerExample, match="held is an attribute of the model that a batch writes"):
            Federation(make, two(), privacy=[layer], metrics=(), **given).fit(rounds=1)
    audit = per_example(make(), None, data().tensors, ascent=0)
    assert not audit.passed
    assert all("held is an attribute" in mode.reason for mode in audit.modes)


class Hung(nn.Module):
    """Keeps a largest value on one of its tensors, or in an object that is its hook."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.line, self.where = nn.Linear(8, 2), where
        self.register_buffer("one", torch.ones(()))
        if where == "hook":
            self.line.register_forward_pre_hook(Divides())

    def forward(self, x: torch.Tensor) -> Any:
        if self.where == "hook":
            return self.line(x)
        on: Any = self.line.weight if self.where == "parameter" else self.one
        on.top = max(getattr(on, "top", 0.0), float(x.detach().abs().max()))
        return self.line(x / on.top)


class Divides(Scale):
    def __call__(self, module: Any, given: Any) -> Any:
        return (given[0] / self.of(given[0].detach()),)


@pytest.mark.parametrize(
    ("where", "named"),
    [("parameter", "line.weight.top"), ("buffer", "one.top"), ("hook", "line._forward_pre_hooks")],
)
def test_what_tensors_and_hooks_remember_is_refused_by_name(where: str, named: str) -> None:
    """A reader's example moved the sum by 66 clips, and the audit called each of these sound."""
    layer = SampleDP(noise_multiplier=1.0, delta=1e-5)
    with pytest.raises(NotPerExample, match=f"{named} is an attribute"):
        Federation(lambda: Hung(where), two(), privacy=[layer], metrics=(), train=honest).fit(rounds=1)
    audit = per_example(Hung(where), None, data().tensors, ascent=0)
    assert all(f"{named} is an attribute" in mode.reason for mode in audit.modes)


class Normalised(nn.Module):
    """A loss divided by its first value."""

    def __init__(self) -> None:
        super().__init__()
        self.first: float | None = None

    def forward(self, made: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(made, y)
        self.first = self.first or float(loss.detach())
        return loss / self.first


def test_a_loss_that_remembers_is_refused_by_name() -> None:
    shares = DistributedDP(
        noise_multiplier=1.0, delta=1e-5, unit="example", sample_rate=1.0, examples=2 * EXAMPLES
    )
    stacks: list[tuple[Any, dict[str, Any]]] = [
        (SampleDP(noise_multiplier=1.0, delta=1e-5), {"train": honest}),
        (shares, {"strategy": FedSGD()}),
    ]
    for layer, given in stacks:
        with pytest.raises(NotPerExample, match=r"\(criterion\).first is an attribute"):
            Federation(
                lambda: nn.Linear(8, 2), two(), privacy=[layer], metrics=(),
                criterion=Normalised, **given,
            ).fit(rounds=1)  # fmt: skip


class Weighs(Scale):
    def loss(self, made: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(made / self.of(made.detach()), y)

    def of_batch(self, model: Any, batch: Any) -> torch.Tensor:
        return self.loss(model(batch[0]), batch[1])


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_loss_that_is_a_method_is_looked_behind(wrapped: bool) -> None:
    owner = Weighs()
    made = (partial(owner.loss), partial(owner.of_batch)) if wrapped else (owner.loss, owner.of_batch)
    shares = {"unit": "example", "sample_rate": 1.0, "examples": 2 * EXAMPLES}
    stacks: list[tuple[Any, dict[str, Any]]] = [
        (SampleDP(noise_multiplier=1.0, delta=1e-5), {"train": honest, "criterion": lambda: made[0]}),
        (DistributedDP(noise_multiplier=1.0, delta=1e-5, **shares), {"strategy": FedSGD(), "loss": made[1]}),
    ]
    for layer, given in stacks:
        with pytest.raises(NotPerExample, match=r"\(criterion\) is an attribute"):
            Federation(lambda: nn.Linear(8, 2), two(), privacy=[layer], metrics=(), **given).fit(rounds=1)
    assert not per_example(nn.Linear(8, 2), Weighs().of_batch, data().tensors, ascent=0, modes=()).passed


def test_a_buffer_that_is_set_on_first_use_is_refused_by_name() -> None:
    class Cached(nn.Module):
        top: Any

        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(8, 2)
            self.register_buffer("top", None, persistent=False)

        def forward(self, x: torch.Tensor) -> Any:
            if self.top is None:
                self.top = x.detach().abs().max()
            return self.line(x / self.top)

    net = Cached()
    engine, loop = private(net)
    with pytest.raises(UnaccountedStep, match=r"^top changed"):
        engine.probe(loop)
    engine.abandon()
    assert net.top is None


def private(net: nn.Module, examples: TensorDataset | None = None) -> tuple[ClientEngine, Callable[[], None]]:
    """A round of one step under way, and its loop."""
    engine, loader = ClientEngine(Clipping(), 1.0, 1.0, 1), DataLoader(examples or data(), batch_size=8)
    engine.size(EXAMPLES)
    at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=0.1), loader, nn.CrossEntropyLoss())
    return engine, lambda: honest(at.model, at.loader, at.optimizer, at.criterion)


def test_what_begins_to_remember_after_the_check_sends_nothing() -> None:
    late: list[int] = []
    engine, loop = private(Remembers(lambda held, x: largest(held, x) if late else held))
    engine.probe(loop)
    late.append(1)
    loop()
    with pytest.raises(UnaccountedStep, match=r"held is an attribute.*nothing is sent"):
        engine.finish()


def test_one_example_that_would_be_remembered_is_found_wherever_it_lies() -> None:
    """All others leave the same largest value, which looks like a constant."""
    x, y = data().tensors
    x = x.clamp(-1, 1)
    x[:, 1] = 1.0
    engine, loop = private(Remembers(largest), TensorDataset(x, y))
    engine.probe(loop)
    loop()
    assert engine.finish() == 1
    for at in range(0, EXAMPLES, 13):
        odd = x.clone()
        odd[at] = 100.0
        engine, loop = private(Remembers(largest), TensorDataset(odd, y))
        with pytest.raises(NotPerExample, match="held is an attribute"):
            engine.probe(loop)
        engine.abandon()


def test_a_cache_of_constants_is_no_memory_and_the_check_leaves_none() -> None:
    net = Remembers(cache)
    engine, loop = private(net)
    engine.probe(loop)
    assert net.held is None
    loop()
    assert engine.finish() == 1
    assert net.held is not None


def test_a_list_that_the_loop_writes_into_an_optimizers_group_is_seen() -> None:
    """A list was compared with itself: a step size in one could follow the loss."""
    net = nn.Linear(8, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.param_groups[0]["scale"] = [1.0, {"rates": [torch.ones(1)], "kind": torch.float32}]
    engine = ClientEngine(Clipping(), 1.0, 1.0, 1)
    engine.size(EXAMPLES)
    at = engine.begin(net, optimizer, DataLoader(data(), batch_size=8), nn.CrossEntropyLoss())
    for x, y in at.loader:
        at.criterion(at.model(x), y).backward()
        optimizer.param_groups[0]["scale"][1]["rates"][0].mul_(2.0)
        with pytest.raises(UnaccountedStep, match="scale"):
            at.optimizer.step()
    engine.abandon()


def test_a_layer_of_another_run_is_refused() -> None:
    """It had been checked with another loop: one that mixes examples trained, 17 clips apart."""
    layer, loader = SampleDP(noise_multiplier=1.0, delta=1e-5), DataLoader(data(), batch_size=EXAMPLES)

    def mixing(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x / x.abs().max()), y).backward()
            optimizer.step()

    def federation(train: Any) -> Federation:
        given: dict[str, Any] = {"privacy": [layer], "metrics": ()}
        return Federation(lambda: nn.Linear(8, 2), {"a": loader}, train, **given)

    own = DistributedDP(
        noise_multiplier=1.0, delta=1e-5, unit="example", sample_rate=1.0, examples=2 * EXAMPLES
    )
    for make, refused in ((lambda: nn.Linear(8, 2), False), (lambda: Remembers(largest), True)):
        with pytest.raises(NotPerExample) if refused else nullcontext():
            Federation(make, two(), strategy=FedSGD(), privacy=[own], metrics=()).fit(rounds=1)
    first = federation(honest)
    first.fit(rounds=1)
    first.fit(rounds=1)
    with pytest.raises(UnaccountedStep, match="in another run: make a new one"):
        federation(mixing).fit(rounds=1)
