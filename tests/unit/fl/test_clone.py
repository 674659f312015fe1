"""A clone holds the values it was given and shares nothing that can change, whatever the module is made of."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fl.tensors.clone import clone
from protocols.errors import Misuse


class Odd(nn.Module):
    """Attributes of every sort: tied weights, plain tensors, lists, a sub-module under two names, a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("kept", torch.arange(4))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.history: list[int] = [1]
        self.options = {"rate": 0.5, "inner": {"names": ["a"]}}
        self.pair = (1, [2])
        self.loose = torch.ones(2)
        self.seen = 0
        self.first.register_forward_hook(count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.tied(torch.relu(self.again(x)))


def count(module: nn.Module, given: Any, made: Any) -> None:
    module.calls = getattr(module, "calls", 0) + 1  # type: ignore[assignment]


class Counted(nn.Module):
    """A module that says itself how it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "Counted":
        made = Counted()
        made.load_state_dict(self.state_dict())
        made.copies = self.copies + 1
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


class Renames(nn.Module):
    """Its state dict has names that are not its tensors'."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return {"outer." + name: value for name, value in self.inner.state_dict().items()}

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return self.inner.load_state_dict(
            {name.removeprefix("outer."): value for name, value in state.items()}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5)),
        (2, 1, 5, 5),
    ),
    "lstm": (lambda: nn.LSTM(3, 4, 2), (5, 2, 3)),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8), (3, 2, 4)),
    "normed": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), (2, 3)),
    "odd": (Odd, (2, 3)),
    "counted": (lambda: nn.Sequential(Counted(), nn.Linear(2, 1)), (2, 2)),
    "renames": (Renames, (2, 2)),
    "channels-last": (lambda: nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), (1, 2, 4, 4)),  # type: ignore[call-overload]
    "half": (lambda: nn.Linear(2, 2).to(torch.bfloat16), (2, 2)),
}


def other_values(module: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of the module with other values; tied tensors stay equal."""
    moved: dict[int, torch.Tensor] = {}
    state = module.state_dict()
    return {n: moved.setdefault(t.data_ptr(), t.clone() + 1) for n, t in state.items()}


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}


@pytest.mark.parametrize("name", MODULES)
def test_a_clone_is_what_deepcopy_and_load_state_dict_give(name: str) -> None:
    make, shape = MODULES[name]
    module, state = make(), other_values(make())
    state = {n: t + 1 for n, t in state.items()}
    wanted = copy.deepcopy(module)
    wanted.load_state_dict(state)
    made = clone(module, state, "cpu")
    assert type(made) is type(wanted)
    for (n, got), (m, expected) in zip(tensors(made).items(), tensors(wanted).items(), strict=True):
        assert n == m
        assert torch.equal(got, expected)
        assert (got.dtype, got.stride(), type(got)) == (expected.dtype, expected.stride(), type(expected))
        assert got.requires_grad == expected.requires_grad
    x = torch.ones(shape, dtype=torch.bfloat16 if name == "half" else torch.float32)
    torch.manual_seed(1)
    first = made(x)
    torch.manual_seed(1)
    second = wanted(x)
    assert torch.equal(output(first), output(second))


def output(given: Any) -> torch.Tensor:
    return given[0] if isinstance(given, tuple) else given


@pytest.mark.parametrize("name", MODULES)
def test_a_clone_shares_no_tensor_with_its_module(name: str) -> None:
    module = MODULES[name][0]()
    made = clone(module, module.state_dict(), "cpu")
    own = {t.data_ptr() for t in tensors(module).values()}
    assert own.isdisjoint({t.data_ptr() for t in tensors(made).values()})
    assert {id(m) for m in module.modules()}.isdisjoint({id(m) for m in made.modules()})


def test_a_clone_shares_no_attribute_that_can_change() -> None:
    module = Odd()
    made = clone(module, module.state_dict(), "cpu")
    assert isinstance(made, Odd)
    made.history.append(2)
    made.options["inner"]["names"].append("b")  # type: ignore[index]
    made.pair[1].append(3)  # type: ignore[attr-defined]
    made.loose.add_(1)
    made(torch.ones(1, 3))
    assert (module.history, module.options["inner"], module.pair) == ([1], {"names": ["a"]}, (1, [2]))
    assert module.loose.tolist() == [1, 1]
    assert (module.seen, made.seen) == (0, 1)
    assert not hasattr(module.first, "calls")
    assert made.first.calls == 1


def test_tied_tensors_and_modules_stay_tied() -> None:
    made = clone(module := Odd(), module.state_dict(), "cpu")
    assert isinstance(made, Odd)
    assert made.first is made.again
    assert made.first.weight is made.tied.weight
    assert made.first.weight is not module.first.weight


def test_a_hook_added_to_a_clone_stays_there() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    clone(module, module.state_dict(), "cpu")[0].register_forward_hook(count)  # type: ignore[index]
    module(torch.ones(1, 2))
    assert not hasattr(module[0], "calls")


def test_a_module_says_itself_how_it_is_copied() -> None:
    made = clone(nn.Sequential(Counted()), nn.Sequential(Counted()).state_dict(), "cpu")
    assert made[0].copies == 1  # type: ignore[index,union-attr]


def test_values_of_another_shape_are_refused() -> None:
    module = nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match="shape"):
        clone(module, {"weight": torch.zeros(1, 1), "bias": torch.zeros(3)}, "cpu")


def test_a_model_that_cannot_be_copied_is_said() -> None:
    net = nn.Linear(2, 1)
    net.lock = threading.Lock()  # type: ignore[assignment]  # what has no copy
    with pytest.raises(Misuse, match=r"cannot be copied for a client.*lock"):
        clone(net, net.state_dict(), torch.device("cpu"))
