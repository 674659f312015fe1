"""What a look at a model's memory sees, wherever a batch leaves something, and what it must not take for memory."""

import collections
import enum
import logging
import pathlib
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

from dp import SampleDP
from dp.sample.errors import NotPerExample
from dp.sample.memory import put_back, remembered, written
from fl import Federation
from tests.unit.dp.sample_rig import honest


class Net(nn.Module):
    """Two layers, something that it holds, and what a pass does with it."""

    def __init__(self, held: Any = None) -> None:
        super().__init__()
        self.line, self.held = nn.Linear(8, 2), held
        self.act: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        return self.line(x)


class Kinds:
    class Entries(dict[str, float]):
        pass

    class Items(list[float]):
        pass

    class Queue(collections.deque[float]):
        pass

    class Members(set[float]):
        pass

    class Number(float):
        pass

    class Word(str):
        pass

    class Row(np.ndarray[Any, Any]):
        pass


class Pair(NamedTuple):
    one: int
    other: list[int]


class Special(torch.Tensor):
    pass


class Mode(enum.Enum):
    FAST = 1


class Node:
    def __init__(self) -> None:
        self.beside: list[Node] = []


def scaled(x: Any, by: dict[str, float] = {}) -> Any:  # noqa: B006  # a default that remembers
    return x


class Defaulted(Net):
    def forward(self, x: torch.Tensor, by: dict[str, float] = {}) -> Any:  # noqa: B006  # the same
        return super().forward(x)


def attribute(net: Net) -> None:
    net.held.top = 1.0


def default(net: Net) -> None:
    scaled.__defaults__[0]["top"] = 1.0  # type: ignore[index]  # it has one


def hooked(net: Net) -> None:
    next(iter(net.held[0]._forward_pre_hooks.values())).append(1.0)


def exchanged(net: Net) -> None:
    net.act = nn.Tanh()


def added(net: Net) -> None:
    net.seen = nn.Identity()


def with_hook() -> list[nn.Module]:
    inner, seen = nn.Identity(), Kinds.Items()
    inner._forward_pre_hooks[0] = seen  # type: ignore[assignment]  # a callable is not asked for here
    return [inner]


WRITES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "attribute of a dict": (Kinds.Entries, attribute),
    "attribute of a list": (Kinds.Items, attribute),
    "attribute of a deque": (Kinds.Queue, attribute),
    "attribute of a set": (Kinds.Members, attribute),
    "attribute of an ordered dict": (collections.OrderedDict, attribute),
    "attribute of a float": (lambda: Kinds.Number(1.0), attribute),
    "attribute of a word": (lambda: Kinds.Word("a"), attribute),
    "attribute of an array": (lambda: np.zeros(2).view(Kinds.Row), attribute),
    "attribute of a tensor": (lambda: torch.zeros(2), attribute),
    "attribute of a function": (lambda: scaled, attribute),
    "attribute of a namespace": (types.SimpleNamespace, attribute),
    "attribute of a partial": (lambda: partial(dict), attribute),
    "default of a function": (lambda: scaled, default),
    "what a built-in method is bound to": (lambda: {}.setdefault, lambda net: net.held("top", 1.0)),
    "hook of a module in a list": (with_hook, hooked),
    "a user's list": (collections.UserList, lambda net: net.held.append(1.0)),
    "an array of objects": (lambda: np.array([[1], None], object), lambda net: net.held[0].append(2)),
    "a sparse tensor": (lambda: torch.eye(3).to_sparse(), lambda net: net.held.mul_(2)),
    "a node among nodes": (lambda: grid(5), lambda net: net.held[4][4].beside.pop()),
    "the end of a chain": (lambda: chain(400), attribute),
    "the largest of each column": (
        lambda: torch.ones(2, 3).max(dim=0),
        lambda net: net.held.values.mul_(2),
    ),
    "a packed sequence": (
        lambda: pack_padded_sequence(torch.ones(2, 3, 1), torch.tensor([3, 2]), batch_first=True),
        lambda net: net.held.data.mul_(2),
    ),
    "a distribution": (
        lambda: torch.distributions.Normal(0.0, 1.0),
        lambda net: setattr(net.held, "loc", torch.ones(())),
    ),
    "a flag": (lambda: None, lambda net: net.act.eval()),
    "another module": (lambda: None, exchanged),
    "one more module": (lambda: None, added),
}


def grid(side: int) -> list[list[Node]]:
    """Objects that know their neighbours: paths among 25 of them have no end."""
    nodes = [[Node() for _ in range(side)] for _ in range(side)]
    for i in range(side):
        for j in range(side):
            near = ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1))
            nodes[i][j].beside = [nodes[a][b] for a, b in near if 0 <= a < side and 0 <= b < side]
    return nodes


def chain(length: int) -> Node:
    first = last = Node()
    for _ in range(length):
        last.beside.append(Node())
        last = last.beside[0]
    return first


@pytest.mark.parametrize(("make", "write"), WRITES.values(), ids=WRITES)
def test_what_a_pass_writes_is_seen(make: Callable[[], Any], write: Callable[[Any], Any]) -> None:
    """Each of these moved a protected sum by 5 to 225 clips, under the usual epsilon."""
    vars(scaled).clear()
    net = Net(make())
    before = remembered(net)
    assert written(net, before, before) is None
    write(net)
    assert written(net, before, before) is not None
    default_of: Any = scaled.__defaults__
    default_of[0].clear()


def test_a_default_of_forward_is_seen() -> None:
    net = Defaulted()
    before = remembered(net)
    Defaulted.forward.__defaults__[0]["top"] = 1.0  # type: ignore[index]  # it has one
    assert written(net, before, before) == "forward()"


def itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


class Options(dict[str, int]):
    __getattr__ = dict.__getitem__


HONEST: dict[str, Callable[[Net], Any]] = {
    "by class": lambda net: {nn.Linear: 1, nn.Conv2d: 2},
    "by kind": lambda net: {
        Mode.FAST: 1.0,
        torch.float32: 1e-6,
        pathlib.Path("a"): 1,
        (1, frozenset({2})): 3,
    },
    "by module": lambda net: {net.line: 1.0},
    "modules": lambda net: {net.line, net.act},
    "parameters": lambda net: {net.line.bias},
    "words and kinds": lambda net: {"a", Mode.FAST, nn.Linear, pathlib.Path("a"), float("nan")},
    "not a number": lambda net: [np.float32("nan"), complex("nan"), float("nan"), -0.0],
    "read-only": lambda net: types.MappingProxyType({"a": 1}),
    "options": lambda net: Options(a=1),
    "what an operation of torch gave": lambda net: torch.ones(2, 3).max(dim=0),
    "a distribution": lambda net: torch.distributions.Normal(0.0, torch.ones(2)),
    "a generator": lambda net: torch.Generator(),
    "a function of torch": lambda net: [torch.relu, torch.nn.functional.softmax, torch.ones(2).sum],
    "sparse, meta": lambda net: [torch.eye(2).to_sparse(), torch.empty(2, device="meta")],
    "quantised": lambda net: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
    "one number twice": lambda net: [net.line.out_features, 0.5, [0.5], (twice := [1.0]), twice],
    "nodes": lambda net: grid(5),
    "a chain": lambda net: chain(2000),
    "itself": lambda net: itself(),
    "a deep list": lambda net: eval("[" * 90 + "]" * 90),
    "logger": lambda net: logging.getLogger(__name__),
    "a module of Python": lambda net: sys,
    "a view": lambda net: [{"a": 1}.keys(), slice(0, 3), range(3)],
    "chained": lambda net: collections.ChainMap({"a": 1}, {"b": 2}),
    "defaults": lambda net: collections.defaultdict(list, {"a": [1]}),
    "named": lambda net: Pair(1, [2]),
    "a subclass of tensors": lambda net: torch.zeros(2).as_subclass(Special),
}


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_what_no_pass_writes_is_no_memory(make: Callable[[Net], Any]) -> None:
    net = Net()
    net.held = make(net)
    before = remembered(net)
    for _ in range(2):
        assert written(net, before, remembered(net), passed=True) is None
        put_back(net, before)
    assert written(net, before, before) is None


def test_honest_models_train_and_one_that_remembers_in_an_attribute_of_a_list_does_not() -> None:
    loader = DataLoader(TensorDataset(torch.randn(8, 8), torch.arange(8) % 2), 4)

    def federation(make: Callable[[], nn.Module]) -> Federation:
        layer = SampleDP(noise_multiplier=1.0, delta=1e-5)
        return Federation(make, [loader], honest, privacy=[layer], metrics=())

    class Remembers(Net):
        def forward(self, x: torch.Tensor) -> Any:
            self.held.top = getattr(self.held, "top", float(x.abs().max()))
            return self.line(x / self.held.top)

    assert federation(lambda: Net([grid(3), {nn.Linear: logging.getLogger("x")}])).fit(1).history
    with pytest.raises(NotPerExample, match="held is an attribute of the model that a batch writes"):
        federation(lambda: Remembers(Kinds.Items())).fit(1)
