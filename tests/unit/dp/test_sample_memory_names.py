"""What of a model and a loss is held, by its name; when a write is none; and what is put back where."""

import functools
import itertools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dp.sample.memory import Bits, It, leaves, put_back, remembered, same, written


class Held(nn.Module):
    """A layer, a list and a thing of a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 2)
        self.notes, self.thing = [1.0], Thing()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("later", None)

    def forward(self, x: torch.Tensor) -> Any:
        return self.line(x)


class Thing:
    def __init__(self) -> None:
        self.top = 0.0

    def __call__(self, given: Any, target: Any) -> Any:
        return given

    def loss(self, given: Any, target: Any) -> Any:
        return given


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Held()
        self.register_buffer("weights", torch.ones(2))


def note(net: Any, _: Any) -> None:
    net.notes.append(2.0)


def deep(net: Any, _: Any) -> None:
    net.thing.top = 1.0


def buffer(net: Any, _: Any) -> None:
    net.later = torch.ones(1)


def new(net: Any, _: Any) -> None:
    net.line.seen = 3


def gone(net: Any, _: Any) -> None:
    del net.notes


def module(net: Any, _: Any) -> None:
    net.line = nn.Linear(2, 2)


def mode(net: Any, _: Any) -> None:
    net.line.eval()


def forward(net: Any, _: Any) -> None:
    net.line.forward = lambda x: x


def hook(net: Any, _: Any) -> None:
    net.line.register_forward_hook(functools.partial(print, [1]))


def on_parameter(net: Any, _: Any) -> None:
    net.line.weight.top = 1.0


def of_loss(_: Any, loss: Any) -> None:
    loss.inner.notes.append(2.0)


def deep_in_loss(_: Any, loss: Any) -> None:
    loss.inner.thing.top = 1.0


def weights(_: Any, loss: Any) -> None:
    loss.weights += 1


def loss_mode(_: Any, loss: Any) -> None:
    loss.inner.eval()


WRITES: dict[str, tuple[Callable[[Any, Any], None], str]] = {
    "a list": (note, "notes"),
    "a thing": (deep, "thing"),
    "a buffer that was none": (buffer, "later"),
    "a new attribute": (new, "line.seen"),
    "one that is gone": (gone, "notes"),
    "a module in its place": (module, "line.module"),
    "a part's mode": (mode, "line.training"),
    "a forward of its own": (forward, "line.forward"),
    "a hook that holds something": (hook, "line._forward_hooks"),
    "on a parameter": (on_parameter, "line.weight.top"),
    "a list of the loss": (of_loss, "(criterion).inner.notes"),
    "a thing of the loss": (deep_in_loss, "(criterion).inner.thing"),
    "weights of the loss": (weights, "(criterion).weights"),
    "a part's mode of the loss": (loss_mode, "(criterion).inner.training"),
}


def test_what_is_written_is_named() -> None:
    for write, name in WRITES.values():
        net, loss = Held(), Loss()
        before = remembered(net, loss)
        assert written(net, before, before, loss) is None
        write(net, loss)
        assert written(net, before, before, loss) == name
        assert written(net, before, before, loss, passed=True) == name
        after = remembered(net, loss)
        foreign = name.endswith(("thing", "module", "_hooks", ".forward"))
        assert written(net, before, after, loss, passed=True) == (name if foreign else None)
        assert written(net, after, after, loss) is None


def test_a_whole_mode_and_the_models_own_state_are_no_memory() -> None:
    net, loss = Held(), Loss()
    net.notes = [net.line, net.line.bias, net.mean]  # type: ignore[list-item]  # parts of the model
    before = remembered(net, loss)
    loss.eval()
    assert written(net, before, before, loss) is None
    net.eval()
    net.mean += 1
    net.line.weight.data += 1
    assert written(net, before, before, loss) is None


def losses(thing: Thing) -> dict[str, Any]:
    return {
        "(criterion).top": thing,
        "(criterion)": thing.loss,
        "(criterion) ": functools.partial(thing.loss, target=1),
        "(criterion)  ": functools.partial(sorted, key=thing),
    }


@pytest.mark.parametrize("at", range(4))
def test_a_loss_that_is_no_module_is_looked_into(at: int) -> None:
    thing, net = Thing(), Held()
    name, loss = list(losses(thing).items())[at]
    before = remembered(net, loss)
    assert written(net, before, before, loss) is None
    thing.top = 1.0
    assert written(net, before, before, loss) == name.strip()


def test_a_pass_may_leave_what_every_pass_leaves_or_nothing() -> None:
    net = Held()
    before = remembered(net)
    net.notes.append(2.0)
    constant = remembered(net)
    assert written(net, before, constant) is None
    assert written(net, before, constant, passed=True) is None
    put_back(net, before)
    assert net.notes == [1.0]
    assert written(net, before, constant) is None
    assert written(net, before, constant, passed=True) == "notes"


def test_what_was_held_is_put_back_where_it_was() -> None:
    net, loss = Held(), Loss()
    before = remembered(net, loss)
    thing, own = net.thing, loss.inner.notes
    net.notes.append(2.0)
    net.line.seen = 3  # type: ignore[assignment]  # an attribute of its own
    net.later = torch.ones(1)
    loss.inner.notes.append(5.0)
    loss.weights += 1  # type: ignore[operator]  # a buffer
    net.thing, net.training = Thing(), False
    put_back(net, before, loss, objects=False)
    assert (net.notes, hasattr(net.line, "seen"), net.later) == ([1.0], False, None)
    assert (loss.inner.notes, loss.inner.notes is own, loss.weights.tolist()) == ([1.0], False, [1.0, 1.0])
    assert (net.thing is thing, net.training) == (False, False)
    put_back(net, before, loss)
    assert net.thing is thing
    first = net.notes
    net.notes.append(3.0)
    put_back(net, before, loss)
    assert (net.notes, net.notes is first) == ([1.0], False)
    net.notes.append(3.0)
    put_back(net, before, loss)
    assert net.notes == [1.0]  # each time a copy of its own
    del net.notes
    put_back(net, before, loss)
    assert net.notes == [1.0]
    same_list = net.notes
    put_back(net, before, loss)
    assert net.notes is same_list


def test_what_cannot_be_put_back_stays() -> None:
    net: Any = Held()
    net.notes, net.extra = [net.line, 1], Held()
    before, kept = remembered(net), net.notes
    del net.extra
    net.line.eval()
    put_back(net, before)
    assert (net.notes is kept, net.line.training) == (True, False)
    net.notes = logging.getLogger(__name__)
    put_back(net, before, objects=False)
    assert net.notes is logging.getLogger(__name__)
    put_back(net, before)
    assert net.notes[0] is net.line


def test_a_copy_that_is_kept_does_not_change() -> None:
    net: Any = Held()
    net.notes = [torch.zeros(2), np.zeros(2), {"a": [1]}, bytearray(b"a")]
    before = remembered(net)
    net.notes[0] += 1
    net.notes[1] += 1
    net.notes[2]["a"].append(2)
    net.notes[3].append(7)
    assert written(net, before, before) == "notes"
    put_back(net, before)
    assert [net.notes[0].tolist(), net.notes[1].tolist(), net.notes[2], bytes(net.notes[3])] == [
        [0.0, 0.0],
        [0.0, 0.0],
        {"a": [1]},
        b"a",
    ]


def test_objects_bits_and_tensors_are_compared_as_they_are() -> None:
    thing = Thing()
    assert It(thing) == It(thing)
    assert It(thing) != It(Thing())
    assert It(thing) != thing
    assert Bits(torch.zeros(1)) == Bits(torch.zeros(1))
    assert Bits(torch.zeros(1)) != Bits(-torch.zeros(1) + 1)
    assert Bits(torch.zeros(1)) != torch.zeros(1)
    nan = torch.tensor([float("nan")])
    for one, other, alike in [
        (nan, nan.clone(), True),
        (torch.zeros(2), torch.zeros(2), True),
        (torch.zeros(2), torch.zeros(1, 2), False),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), False),
        (torch.zeros(0), torch.zeros(0), True),
        (torch.zeros(2, 2).T, torch.zeros(2, 2), True),
        (nan, torch.zeros(1), False),
        (torch.zeros(1), torch.zeros(1, device="meta"), False),
    ]:
        assert same(one, other) == alike


def test_a_walk_takes_each_object_once_and_in_one_order() -> None:
    inner = [1.0]
    assert leaves([inner, inner]) != leaves([[1.0], [1.0]])
    assert leaves({"a": 1, "b": 2}) != leaves({"b": 2, "a": 1})
    assert leaves([1, 2]) != leaves([1, 2, 3])
    assert leaves([True]) != leaves([1])
    assert leaves([1.0]) != leaves([1])
    assert leaves([0.0]) != leaves([-0.0])
    assert leaves((1,)) != leaves([1])
    assert leaves({1, 2}) == leaves({2, 1})
    assert leaves(np.zeros(2)) != leaves(np.zeros((1, 2)))
    assert leaves(np.zeros(2)) != leaves(np.zeros(2, np.float32))
    thing = Thing()
    objects = np.array([thing], dtype=object)
    kept = leaves(objects)
    assert leaves(objects) == kept
    thing.top = 2.0
    assert leaves(objects) != kept
    kept = leaves(thing)
    thing.top = 3.0
    assert leaves(thing) != kept
    assert leaves(thing, frozenset({id(thing)})) == [It(thing)]
    tensor = torch.zeros(1)
    copied, looked = leaves(tensor), leaves(tensor, copies=False)
    tensor += 1
    assert copied != leaves(tensor)
    assert looked == leaves(tensor)


def function(module: str) -> Any:
    def own() -> None:
        pass

    own.__module__ = module
    return own


def of_package(module: str, base: type = Thing) -> Any:
    return type("Own", (base,), {"__module__": module})()


LOOKED_INTO: dict[str, tuple[Callable[[], Any], bool]] = {
    "an optimizer": (lambda: object.__new__(torch.optim.SGD), False),
    "an optimizer's method": (lambda: object.__new__(torch.optim.SGD).state_dict, False),
    "a loader": (lambda: torch.utils.data.DataLoader([1]), False),  # type: ignore[arg-type]  # a list has both
    "a distribution": (lambda: torch.distributions.Normal(torch.zeros(1), torch.ones(1)), True),
    "a trainer": (lambda: of_package("lightning.pytorch"), False),
    "another's": (lambda: of_package("lightnings.pytorch"), True),
    "one's own": (Thing, True),
    "a function of an adapter": (lambda: function("fl.adapters.trainer"), False),
    "a function of a trainer": (lambda: function("transformers.trainer"), False),
    "a function": (lambda: function("mine"), True),
    "a function of a copy of torch's": (lambda: function("torch.optim"), True),
}


def test_what_a_loop_runs_by_is_not_looked_into() -> None:
    for (make, seen), wrapped in itertools.product(LOOKED_INTO.values(), (False, True)):
        net: Any = Held()
        value = make()
        net.thing = [value] if wrapped else value
        before = remembered(net)
        getattr(value, "__self__", value).top = 1.0
        assert written(net, before, before) == ("thing" if seen else None)


def hooked(value: Any) -> Callable[[Any, Any], Any]:
    def own(*_: Any) -> None:
        pass

    own.kept = value  # type: ignore[attr-defined]  # hung on it
    return own


@pytest.mark.parametrize(
    ("hook", "seen"),
    [
        (lambda: hooked([1]), True),
        (lambda: of_package("mine").loss, True),
        (lambda: of_package("mine"), True),
        (lambda: functools.partial(of_package("mine").loss), True),
        (lambda: of_package("opacus.grad_sample").loss, False),
        (lambda: functools.partial(of_package("dp.sample.hooks").loss), False),
        (lambda: of_package("mine", type(of_package("dp.sample.hooks"))), False),
        (lambda: function("mine"), False),
        (lambda: function("dp.sample.hooks"), False),
    ],
)
def test_a_hook_is_memory_where_it_holds_something_and_is_no_engines(
    hook: Callable[[], Any], seen: bool
) -> None:
    net = Held()
    before = remembered(net)
    net.line.register_forward_hook(hook())
    assert written(net, before, before) == ("line._forward_hooks" if seen else None)


class Items(list[Any]):
    """A container that may hold attributes."""


def defaulted() -> Any:
    def own(given: Any = [1], *, named: Any = {"a": 1}) -> None:  # noqa: B006  # what is looked at
        pass

    return own


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "arguments of a partial": (lambda: functools.partial(print, [1]), lambda f: f.args[0].append(2)),
    "keywords of a partial": (
        lambda: functools.partial(print, end=[1]),
        lambda f: f.keywords["end"].append(2),
    ),
    "a built-in method": (lambda: [1].append, lambda method: method(2)),
    "a method": (lambda: Thing().loss, lambda method: setattr(method.__self__, "top", 1.0)),
    "a method's function": (lambda: Thing().loss, lambda method: setattr(Thing.loss, "top", [1.0])),
    "a default": (defaulted, lambda f: f.__defaults__[0].append(2)),
    "a named default": (defaulted, lambda f: f.__kwdefaults__["named"].update(b=2)),
    "a thing in a set": (lambda: {Thing()}, lambda given: setattr(next(iter(given)), "top", 1.0)),
    "an entry of a set": (lambda: {1, 2}, lambda given: (given.remove(1), given.add(3))),
    "bytes": (lambda: bytearray(b"a"), lambda given: given.__setitem__(0, 7)),
    "an array": (lambda: np.zeros(2), lambda given: given.__setitem__(0, 7)),
    "an array of things": (
        lambda: np.array([Thing()], dtype=object),
        lambda given: setattr(given[0], "top", 1.0),
    ),
    "an entry": (lambda: {"a": [1]}, lambda given: given["a"].append(2)),
    "a key": (lambda: {Thing(): 1}, lambda given: setattr(next(iter(given)), "top", 1.0)),
    "an item": (lambda: [[1]], lambda given: given[0].append(2)),
    "an attribute of a list": (Items, lambda given: setattr(given, "top", 1.0)),
    "an attribute's name": (Thing, lambda given: (setattr(given, "other", given.top), delattr(given, "top"))),
    "a number": (lambda: [1.0], lambda given: given.__setitem__(0, 1.5)),
    "a complex number": (lambda: [1j], lambda given: given.__setitem__(0, 2j)),
    "a word": (lambda: ["a"], lambda given: given.__setitem__(0, "b")),
    "a class for another": (lambda: [int], lambda given: given.__setitem__(0, float)),
    "a number of NumPy's": (lambda: [np.float32(1)], lambda given: given.__setitem__(0, np.float32(2))),
    "a tensor": (lambda: torch.zeros(2), lambda given: given.add_(1)),
    "a parameter": (lambda: nn.Parameter(torch.zeros(2)), lambda given: given.data.add_(1)),
    "a sparse tensor": (lambda: torch.eye(2).to_sparse(), lambda given: given.mul_(2)),
    "an attribute of a tensor": (lambda: torch.zeros(2), lambda given: setattr(given, "top", 1.0)),
    "one's own length": (Thing, lambda given: setattr(given, "max_batch_len", 1)),
}


def test_every_change_is_seen_and_nothing_else() -> None:
    for name, (make, change) in CHANGES.items():
        value = make()
        before = leaves(value)
        assert leaves(value) == before == leaves(value, copies=False), name
        change(value)
        assert leaves(value) != before, name
    del Thing.loss.top  # type: ignore[attr-defined]  # set above


STILL: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "an attribute of a class": (lambda: [Thing], lambda given: setattr(Thing, "seen", 1)),
    "gradients of examples": (
        lambda: torch.zeros(2),
        lambda given: setattr(given, "grad_sample", torch.ones(2)),
    ),
    "the other way round": (lambda: [{1, 2}], lambda given: given.__setitem__(0, {2, 1})),
    "one's like": (lambda: [[1], {"a": 2.0}], lambda given: given.__setitem__(0, [1])),
}


def test_what_is_no_change() -> None:
    for name, (make, change) in STILL.items():
        value = make()
        before = leaves(value)
        change(value)
        assert leaves(value) == before, name
    del Thing.seen  # type: ignore[attr-defined]  # set above


def test_padded_rows_are_no_memory_of_opacus_own_layers() -> None:
    for package, counted in (("opacus.layers", None), ("mine", "own.max_batch_len")):
        net = Held()
        net.own = type("Own", (nn.Module,), {"__module__": package})()
        before = remembered(net)
        net.own.max_batch_len = 3
        assert written(net, before, before) == counted
        del net.own.max_batch_len
        net.own.number = 3
        assert written(net, before, before) == "own.number"


def test_objects_that_are_alike_are_told_apart() -> None:
    one, other = [1.0], [1.0]
    assert leaves([one, other, one]) != leaves([one, other, other])
    for make in (Thing, Items, lambda: nn.Parameter(torch.zeros(1)), lambda: np.array([1], dtype=object)):
        assert leaves([make()]) != leaves([make()])
    for plain in (
        lambda: [1],
        lambda: {"a": 1.5},
        lambda: torch.zeros(1),
        lambda: np.zeros(1),
        lambda: (1, {2}),
    ):
        assert leaves([plain()]) == leaves([plain()])


def test_a_copy_holds_the_same_objects() -> None:
    net: Any = Held()
    first, second, third = Thing(), Thing(), Thing()
    array, tensor = np.array([third], dtype=object), torch.zeros(1)
    net.notes = [first, [second, {"a": third}], array, tensor, Items([1])]
    before, items = remembered(net), net.notes[4]
    net.notes.append(1)
    put_back(net, before)
    assert (net.notes[0] is first, net.notes[1][0] is second, net.notes[1][1]["a"] is third) == (
        True,
        True,
        True,
    )
    assert (net.notes[2] is array, net.notes[3] is tensor, net.notes[4] is items) == (True, False, True)
    assert len(net.notes) == 5
