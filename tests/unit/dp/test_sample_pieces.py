"""Known answers of the pieces that make rows of examples: layouts, samplers, rows made twice, sums on a grid."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from opacus.layers.dp_rnn import RNNLinear
from torch import nn

from dp.sample import factors, remade, samplers, sums
from dp.sample.errors import UnaccountedStep, UnsupportedModule
from dp.sample.layout import Ambiguous, Layout, Layouts, Seen, found
from dp.sample.remade import Again, Calls, LookedUp

T = torch.tensor
SIZES = (2, 6)


def seen(*inputs: tuple[int, ...], output: tuple[int, ...], bag: bool = False) -> Seen:
    return Seen("m", inputs, output, bag)


# -- layouts --


@pytest.mark.parametrize(
    ("small", "large", "wanted"),
    [
        (seen((2, 4), output=(2, 3)), seen((6, 4), output=(6, 3)), Layout((0,), 0)),
        (seen((9, 2, 4), output=(9, 2)), seen((9, 6, 4), output=(9, 6)), Layout((1,), 1)),
        (seen((2,), (5, 5), output=(2, 3)), seen((6,), (5, 5), output=(6, 3)), Layout((0, None), 0)),
        (seen((18, 4), output=(18, 3)), seen((54, 4), output=(54, 3)), Layout((0,), 0, folded=True)),
        (seen((18, 4), output=(2, 3)), seen((54, 4), output=(6, 3)), Layout((0,), 0, folded=True)),
        (seen((2, 4), output=(4, 8)), seen((6, 4), output=(4, 24)), Layout((0,), 1, folded=True)),
    ],
)
def test_the_axis_that_grows_is_the_examples(small: Seen, large: Seen, wanted: Layout) -> None:
    assert found(small, large, SIZES) == wanted


@pytest.mark.parametrize(
    ("small", "large", "why"),
    [
        (seen((2,), output=(2,)), seen((6,), (1,), output=(6,)), "another number of inputs"),
        (seen((2, 2), output=(2,)), seen((6, 6), output=(6,)), "leave open which axis"),
        (seen((2, 2), output=(2,)), seen((6,), output=(6,)), "leave open which axis"),
        (seen((2,), output=(2,)), seen((2,), output=(6,)), "whatever the batch"),
        (seen((2,), output=(2,)), seen((6,), output=(2,)), "whatever the batch"),
        (seen((2,), output=(4,)), seen((6,), output=(5,)), "do not grow with the batch"),
    ],
)
def test_a_call_whose_examples_cannot_be_told_says_why(small: Seen, large: Seen, why: str) -> None:
    with pytest.raises(Ambiguous, match=why):
        found(small, large, SIZES)


def test_a_layout_says_what_it_is() -> None:
    assert str(Layout((0, None), 0)) == "examples on axis 0, none"
    assert str(Layout((1,), 1, folded=True)) == "examples on axis 1, several rows each, row fastest"
    assert (
        str(Layout((1,), 1, folded=True, inner=True))
        == "examples on axis 1, several rows each, example fastest"
    )


def test_rows_are_split_by_example() -> None:
    flat = torch.arange(12).reshape(6, 2)
    wanted = torch.arange(12).reshape(3, 2, 2)
    assert Layout(folded=True).split(flat, 0, 3).equal(wanted)
    assert Layout(folded=True).split(flat.T, 1, 3).equal(wanted)
    inner = Layout(folded=True, inner=True).split(flat, 0, 3)
    assert inner.equal(flat.reshape(2, 3, 2).transpose(0, 1))
    assert inner.is_contiguous()
    assert Layout().split(flat, 0, 6).equal(flat.reshape(6, 1, 2))
    for layout, size in ((Layout(), 3), (Layout(folded=True), 4), (Layout(folded=True), 7)):
        with pytest.raises(UnaccountedStep, match=rf"^6 rows for the {size} examples drawn"):
            layout.split(flat, 0, size)


def test_rows_of_each_example_are_counted_where_the_examples_lie() -> None:
    call = seen((6, 4), (5,), output=(2, 3))
    assert Layout((0, None), 0).rows(call, 2) == (Fraction(3), Fraction(1))
    assert Layout((0, None), 0).rows(seen((6,), (2,), output=(2, 3), bag=True), 4) == (Fraction(1, 2),)
    assert Layout((1,), 1).rows(call, 2) == (Fraction(2), Fraction(3, 2))


def test_without_a_check_the_first_axis_is_taken_unless_another_could_hold_the_examples() -> None:
    layouts, line = Layouts(), nn.Linear(4, 3)
    assert not layouts.known
    assert layouts.of(seen((4, 9, 4), (1,), output=(4, 9, 3)), line, 0, 4) == Layout((0, 0))
    assert layouts.of(seen((9, 9), output=(9, 9)), nn.Conv1d(1, 1, 1), 0, 9) == Layout((0,))
    for module, shape in ((line, (9, 9, 4)), (nn.Embedding(5, 2), (9, 9)), (nn.LayerNorm(4), (9, 1, 9, 4))):
        with pytest.raises(UnaccountedStep, match=r"^m reads .*for 9 examples several axes"):
            layouts.of(seen(shape, output=shape), module, 0, 9)


def test_calls_beyond_those_that_were_seen_take_the_layout_that_all_share() -> None:
    call, line = seen((3, 4), output=(3, 3)), nn.Linear(4, 3)
    shared, mixed = (
        Layouts({"m": [Layout((1,), 1)] * 2}),
        Layouts({"m": [Layout((1,), 1), Layout((0,), 0)]}),
    )
    assert shared.known
    assert [shared.of(call, line, at, 3) for at in (0, 1, 2, 7)] == [Layout((1,), 1)] * 4
    assert [mixed.of(call, line, at, 3) for at in (0, 1)] == [Layout((1,), 1), Layout((0,), 0)]
    with pytest.raises(UnaccountedStep, match=r"^m is used in a way .* its call 3 has no"):
        mixed.of(call, line, 2, 3)
    with pytest.raises(UnaccountedStep, match="its call 1 has no"):
        Layouts({"n": [Layout()]}).of(call, line, 0, 3)


def test_examples_have_as_many_rows_as_in_the_check() -> None:
    three = Layouts({"m": [Layout(folded=True, each=(Fraction(3), Fraction(3)))]})
    assert three.of(seen((6, 4), output=(6, 3)), nn.Linear(4, 3), 0, 2).each == (3, 3)
    with pytest.raises(UnaccountedStep, match=r"^m: examples have different numbers of rows on one axis"):
        three.of(seen((8, 4), output=(8, 3)), nn.Linear(4, 3), 0, 2)


def test_rows_that_lie_packed_are_told_from_padded_ones() -> None:
    """A batch and its two parts. Padded: as many rows as the longer part. Packed: a mean in between, or no whole."""
    layouts = Layouts({"m": [Layout(folded=True)], "one": [Layout()]})

    def batches(whole: int, first: int, second: int) -> list[Any]:
        return [([seen((n, 4), output=(n, 3))], size) for n, size in ((whole, 4), (first, 2), (second, 2))]

    alike, packed = layouts.counted([*batches(12, 6, 6), *batches(12, 6, 6)])
    assert (alike.calls, packed) == (
        {"m": [Layout(folded=True, each=(Fraction(3), Fraction(3)))], "one": [Layout()]},
        set(),
    )
    longest, packed = layouts.counted(batches(12, 6, 4))
    assert (longest.calls, packed) == (layouts.calls, set())
    assert layouts.counted(batches(10, 6, 4))[1] == {"m"}
    assert layouts.counted([*batches(12, 6, 6), *batches(6, 3, 3)])[1] == {"m"}
    assert layouts.counted([*batches(12, 6, 6), *batches(24, 12, 12)])[0].calls == layouts.calls
    assert layouts.counted([*batches(12, 6, 6), *batches(24, 12, 12)])[1] == set()
    assert Layouts().counted(batches(12, 6, 6))[0].calls is None
    single = Layouts({"m": [Layout()]})
    assert single.counted(batches(4, 2, 2))[0].calls == single.calls
    both = [([call, replace(call, name="n")], size) for (call,), size in batches(10, 6, 4)]
    assert Layouts(dict.fromkeys("mn", (Layout(folded=True),))).counted(both)[1] == {"m", "n"}  # type: ignore[arg-type]


def test_folded_axes_are_turned_by_name() -> None:
    layouts = Layouts({"a": [Layout(folded=True), Layout()], "b": [Layout(folded=True, inner=True)]})
    assert layouts.turned({"a"}).calls == {
        "a": [Layout(folded=True, inner=True), Layout()],
        "b": [Layout(folded=True)],
    }
    assert Layouts().turned({"a"}).calls == {}


# -- samplers --


class Own(nn.Linear):
    """A layer that Opacus does not know by its type."""


def normed(bias: bool) -> nn.Module:
    return nn.LayerNorm(3, bias=bias)


def extra() -> nn.Module:
    net = nn.Linear(2, 2)
    net.register_parameter("own", nn.Parameter(torch.ones(1)))
    return net


@pytest.mark.parametrize(
    ("module", "known"),
    [
        (nn.Linear(2, 2), True),
        (nn.Linear(2, 2, bias=False), True),
        (nn.Conv1d(1, 1, 1), True),
        (normed(bias=True), True),
        (normed(bias=False), False),
        (Own(2, 2), False),
        (extra(), False),
        (nn.Tanh(), False),
        (nn.LayerNorm(3, elementwise_affine=False), False),
    ],
)
def test_modules_that_opacus_knows_as_they_stand(module: nn.Module, known: bool) -> None:
    assert samplers.known(module) == known


def test_a_module_that_is_known_answers_for_its_own_and_another_for_all_within() -> None:
    line = nn.Linear(2, 2)
    line.inner = nn.Linear(2, 2)
    line.bias.requires_grad_(False)
    assert list(samplers.trainable(line)) == ["weight"]
    assert list(samplers.trainable(nn.Sequential(line))) == ["0.weight", "0.inner.weight", "0.inner.bias"]


@pytest.mark.parametrize(
    ("module", "shape", "factored"),
    [
        (nn.Linear(4, 2), (3, 4), True),
        (RNNLinear(4, 2), (3, 4), True),
        (nn.Linear(4, 2).half(), (3, 4), True),
        (nn.Linear(4, 2).bfloat16(), (3, 4), True),
        (nn.Linear(4, 2), (3, 5, 4), False),
        (nn.Linear(4, 2).double(), (3, 4), False),
        (Own(4, 2), (3, 4), False),
        (nn.Conv1d(1, 1, 1), (3, 4), False),
    ],
)
def test_whose_rows_are_kept_as_factors(module: nn.Module, shape: tuple[int, ...], factored: bool) -> None:
    assert samplers.factored(module, torch.ones(shape)) == factored


@pytest.mark.parametrize(
    ("module", "shape", "wanted"),
    [
        (nn.Linear(4, 2), (3, 4), (3, 4)),
        (nn.Linear(4, 2), (3, 5, 4), (3, 5, 4)),
        (nn.Linear(4, 2), (3, 5, 7, 4), (3, 35, 4)),
        (nn.LayerNorm(4), (3, 5, 7, 4), (3, 5, 7, 4)),
        (nn.LayerNorm((7, 4)), (3, 5, 7, 4), (3, 5, 7, 4)),
        (nn.Conv1d(4, 2, 1), (3, 4, 5), (3, 1, 4, 5)),
    ],
)
def test_the_shapes_that_samplers_read(module: nn.Module, shape: Any, wanted: Any) -> None:
    x = torch.randn(shape)
    given = module(x)
    a, d = samplers.split(module, [x], given, Layout(), 3)
    assert tuple(a.shape) == wanted
    assert (a.numel(), d.numel()) == (x.numel(), given.numel())
    assert a.reshape(3, -1).equal(x.reshape(3, -1))
    rows = samplers.rows(module, a, d)
    for p, made in rows.items():
        assert tuple(made.shape) == (3, *p.shape)
    some = samplers.rows(module, a, d, slice(1, 3))
    assert all(some[p].allclose(made[1:]) for p, made in rows.items())


@pytest.mark.parametrize("each", [1, 2, 3])
def test_several_rows_of_an_example_are_added_up(each: int) -> None:
    conv = nn.Conv1d(1, 2, 3)
    x, d = torch.randn(3, each, 1, 4), torch.randn(3, each, 2, 2)
    found = samplers.rows(conv, x, d)
    alone = [samplers.rows(conv, x[:, at : at + 1], d[:, at : at + 1]) for at in range(each)]
    for p, made in found.items():
        assert made.shape == (3, *p.shape)
        assert made.allclose(sum((rows[p] for rows in alone), torch.zeros(())), atol=1e-6)


def test_folded_rows_with_an_axis_between_are_rows_of_one_axis() -> None:
    x, d = torch.randn(15, 7, 4), torch.randn(15, 7, 2)
    a, b = samplers.split(nn.Linear(4, 2), [x], d, Layout(folded=True), 3)
    assert (a.shape, b.shape) == ((3, 35, 4), (3, 35, 2))


class Scaled(Own):
    """Takes an option by its name."""

    def forward(self, x: torch.Tensor, times: int = 1) -> torch.Tensor:
        return times * super().forward(x)


def test_any_module_has_rows_by_its_forward_pass() -> None:
    net, x, d = Scaled(4, 2), torch.randn(3, 4), torch.randn(3, 2)
    rows = samplers.functional(net, ((x,), {"times": 2}), d, Layout(), 3)(slice(None))
    assert rows[net.weight].allclose(2 * torch.einsum("no,ni->noi", d, x))
    assert rows[net.bias].allclose(2 * d)
    coarse = samplers.functional(net, ((x.bfloat16(),), {}), d, Layout(), 3)(slice(1, 3))
    assert coarse[net.weight].allclose(torch.einsum("no,ni->noi", d, x.bfloat16().float())[1:])


def test_coarse_rows_are_made_in_float32() -> None:
    x, d = torch.ones(3, 4, dtype=torch.bfloat16), torch.ones(3, 2, dtype=torch.float16)
    rows = samplers.rows(nn.Linear(4, 2), x, d)
    assert {made.dtype for made in rows.values()} == {torch.float32}
    assert samplers.rows(nn.Linear(4, 2), x.double(), d.double()).popitem()[1].dtype == torch.float64


def test_pads_get_no_gradient() -> None:
    table, x = nn.Embedding(5, 2, padding_idx=1), T([[1, 2], [3, 1]])
    _, d = samplers.split(table, [x], torch.ones(2, 2, 2), Layout(), 2)
    assert d.tolist() == [[[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]
    read = samplers.words(table, [x], torch.ones(2, 2, 2), Layout(), 2)
    assert read.rows()[0].tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert len(read) == 2


def written(**options: Any) -> Any:
    return nn.EmbeddingBag(4, 1, **options)


@pytest.mark.parametrize(
    ("bag", "inputs", "wanted"),
    [
        (written(mode="sum"), [T([[0, 1, 1], [2, 2, 2]])], [[1, 2, 0, 0], [0, 0, 30, 0]]),
        (written(), [T([[0, 1, 1, 1], [2, 2, 2, 2]])], [[0.25, 0.75, 0, 0], [0, 0, 10, 0]]),
        (written(mode="sum"), [T([0, 1, 1, 2]), T([0, 3])], [[1, 2, 0, 0], [0, 0, 10, 0]]),
        (
            written(mode="sum", include_last_offset=True),
            [T([0, 1, 1, 2]), T([0, 3, 4])],
            [[1, 2, 0, 0], [0, 0, 10, 0]],
        ),
        (written(mode="sum"), [T([0, 1]), T([0, 0])], [[0, 0, 0, 0], [10, 10, 0, 0]]),
        (written(padding_idx=1), [T([[0, 1, 2], [1, 1, 3]])], [[0.5, 0, 0.5, 0], [0, 0, 0, 10]]),
    ],
)
def test_a_bag_gives_each_word_its_share(bag: Any, inputs: list[torch.Tensor], wanted: Any) -> None:
    made = samplers.words(bag, inputs, T([[1.0], [10.0]]), Layout(), 2)
    assert made.rows().flatten(1).tolist() == wanted


def test_words_of_a_single_example_and_shares_in_64_bits() -> None:
    one = samplers.words(nn.Embedding(5, 1), [T([[1, 2, 1]])], T([[[1.0], [2.0], [4.0]]]), Layout(), 1)
    assert one.rows().flatten().tolist() == [0.0, 5.0, 2.0, 0.0, 0.0]
    wide = samplers.words(written(), [T([[0, 1, 2]])], T([[1.0]], dtype=torch.float64), Layout(), 1)
    assert wide.values.flatten().tolist() == [1 / 3] * 3


def test_weights_of_words_are_refused() -> None:
    for inputs in ([T([[0, 1]]), T([0.5, 0.5])], [T([0, 1]), T([0]), T([0.5, 0.5])], [T([0, 1])]):
        with pytest.raises(UnsupportedModule, match="without per_sample_weights only"):
            samplers.words(written(mode="sum"), inputs, T([[1.0]]), Layout(), 1)


# -- rows that are never all there --


def looked() -> LookedUp:
    """Three examples of a table of four lines; the first reads line 2 twice."""
    return LookedUp(
        T([0, 0, 0, 2]), T([2, 1, 2, 3]), T([[1.0, 2.0], [3.0, 0.0], [2.0, 2.0], [5.0, 1.0]]), 3, 4
    )


def test_looked_up_rows_written_out_and_added_up() -> None:
    rows = torch.zeros(3, 4, 2)
    rows[0, 1], rows[0, 2], rows[2, 3] = T([3.0, 0.0]), T([3.0, 4.0]), T([5.0, 1.0])
    assert looked().rows().equal(rows)
    assert looked().rows(slice(1, 3)).equal(rows[1:])
    assert looked().rows(slice(0, 2)).equal(rows[:2])
    assert looked().squared().tolist() == [34.0, 0.0, 26.0]
    assert looked().squared().dtype == torch.float64
    assert looked().plain_sum().equal(rows.sum(dim=0).reshape(-1))
    scale = T([0.5, 1.0, 1.0], dtype=torch.float64)
    wanted = torch.round(rows.double() * scale[:, None, None] / 0.25).sum(dim=0).reshape(-1)
    assert looked().summed(scale, 0.25).equal(wanted.to(torch.int64))
    assert looked().without(T([True, False, False])).squared().tolist() == [0.0, 0.0, 26.0]
    wide = LookedUp(T([0]), T([0]), torch.ones(1, 1, dtype=torch.float64), 1, 1)
    assert wide.values.dtype == torch.float64
    assert LookedUp(T([0]), T([0]), torch.ones(1, 1, dtype=torch.float16), 1, 1).values.dtype == torch.float32


class Rows:
    """Makes rows of two parameters and counts how often; `later` is added from the second time on."""

    def __init__(self, later: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(1)
        self.first, self.second = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))
        self.rows = {p: torch.randn(5, *p.shape, generator=generator) for p in (self.first, self.second)}
        self.later, self.asked = later, list[slice]()

    def __call__(self, some: slice) -> dict[torch.Tensor, torch.Tensor]:
        self.asked.append(some)
        more = 1.0 + self.later * (len(self.asked) > 1)
        return {p: rows[some] * more for p, rows in self.rows.items()}


def added(maker: Rows, *more: Any) -> Calls:
    calls = Calls(5)
    calls.add([maker.first, maker.second], maker, ())
    for make in more:
        calls.add([maker.first], make, ())
    return calls


def test_rows_made_twice_have_the_norms_and_sums_of_rows_that_are_kept() -> None:
    maker = Rows()
    maker.rows[maker.first][2] = 0.0
    one, scale = Again(added(maker), maker.first), torch.linspace(0.1, 1.0, 5).double()
    flat = maker.rows[maker.first].flatten(1)
    assert len(one) == 5
    assert one.squared().allclose(flat.double().pow(2).sum(dim=1))
    assert one.summed(scale, 2.0**-10).dtype == torch.int64
    assert one.summed(scale, 2.0**-10).equal(sums.grid_sum(flat, scale, 2.0**-10))
    assert one.rows().equal(flat)
    assert one.plain_sum().allclose(flat.sum(dim=0))
    assert one.summed(scale * 2, 2.0**-10).equal(sums.grid_sum(flat, scale * 2, 2.0**-10))
    assert factors.written_out(one).equal(flat)


def test_blocks_are_as_large_as_told_and_nothing_is_made_more_often_than_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for block, asked in ((1, 5), (15, 5), (16, 3), (39, 2), (40, 1), (2**22, 1)):
        monkeypatch.setattr(remade, "BLOCK", block)
        maker = Rows()
        calls, scale = added(maker), torch.ones(5, dtype=torch.float64)
        parts = [Again(calls, p) for p in (maker.first, maker.second)]
        for part in parts:
            part.squared()
        assert len(maker.asked) == asked
        for part in parts:
            part.summed(scale, 1.0)
        assert len(maker.asked) == 2 * asked
        assert [(some.start, some.stop) for some in maker.asked[:asked]][-1][1] == 5


def test_rows_that_are_longer_the_second_time_are_held_to_the_first() -> None:
    maker, scale = Rows(later=1.0), torch.ones(5, dtype=torch.float64)
    one = Again(added(maker), maker.first)
    one.squared()
    flat = maker.rows[maker.first].flatten(1)
    assert float((one.summed(scale, 2.0**-20) - sums.grid_sum(flat, scale, 2.0**-20)).double().norm()) < 5
    shorter = Rows(later=-0.5)
    one = Again(added(shorter), shorter.first)
    one.squared()
    wanted = sums.grid_sum(shorter.rows[shorter.first].flatten(1) / 2, scale, 2.0**-20)
    assert float((one.summed(scale, 2.0**-20) - wanted).double().norm()) < 5


def test_calls_that_share_a_parameter_add_their_rows() -> None:
    maker = Rows()

    def more(some: slice) -> dict[torch.Tensor, torch.Tensor]:
        return {maker.first: torch.ones(5, 2, 3)[some]}

    calls = added(maker, more)
    wanted = maker.rows[maker.first].flatten(1) + 1
    assert Again(calls, maker.first).rows().allclose(wanted)
    assert [p is q for p, q in zip(calls.parameters, (maker.first, maker.second), strict=True)] == [
        True,
        True,
    ]
    other, read = Calls(5), torch.zeros(1)
    other.add([maker.second], lambda some: {maker.second: torch.ones(5, 2)[some]}, [read])
    other.take(calls)
    assert Again(other, maker.first).rows().allclose(wanted)
    assert Again(other, maker.second).rows().allclose(maker.rows[maker.second] + 1)
    read += 1
    with pytest.raises(UnaccountedStep, match="written to before"):
        Again(other, maker.first).rows()


def test_an_input_of_a_call_that_was_taken_is_watched_too() -> None:
    maker, read = Rows(), torch.zeros(1)
    first, second = Calls(5), added(maker)
    first.add([maker.first], maker, [read])
    first.add([maker.first], maker, [torch.zeros(1)])
    second.take(first)
    read += 1
    with pytest.raises(UnaccountedStep, match="written to before"):
        Again(second, maker.first).squared()


@pytest.mark.parametrize("before", [True, False])
def test_examples_that_are_taken_out_add_nothing(before: bool) -> None:
    maker, broken = Rows(), T([True, False, False, False, True])
    one, scale = Again(added(maker), maker.first), torch.ones(5, dtype=torch.float64)
    if before:
        one.squared()
    left = factors.without(one, broken)
    flat = maker.rows[maker.first].flatten(1).masked_fill(broken[:, None], 0.0)
    assert left is one
    assert one.squared().allclose(flat.double().pow(2).sum(dim=1))
    assert one.summed(scale, 2.0**-10).equal(sums.grid_sum(flat, scale, 2.0**-10))
    assert one.rows().equal(flat)


# -- sums on a grid --


def test_rows_are_flat_and_wide_enough() -> None:
    assert sums.rows(torch.ones(3, 2, 2)).shape == (3, 4)
    assert sums.rows(torch.ones(0, 2, 3)).shape == (0, 6)
    assert sums.rows(torch.ones(2)).shape == (2, 1)
    assert sums.rows(torch.ones(3, 2).T).is_contiguous()
    assert [
        sums.rows(torch.ones(1, 1, dtype=kind)).dtype
        for kind in (torch.float16, torch.float32, torch.float64)
    ] == [torch.float32, torch.float32, torch.float64]
    assert not sums.rows(torch.ones(1, 1, requires_grad=True)).requires_grad


def test_norms_factors_and_sums() -> None:
    rows = T([[3.0, 4.0], [0.0, 0.0], [0.3, 0.4], [6.0, 8.0]])
    assert sums.squared_norms(rows).tolist() == pytest.approx([25.0, 0.0, 0.25, 100.0])
    shrink = sums.clip_factors(T([25.0, 0.0, 0.25, 1.0], dtype=torch.float64), 1.0)
    assert shrink.tolist() == [0.2, 1.0, 1.0, 1.0]
    tiny = sums.clip_factors(T([2.0**-1000], dtype=torch.float64), 2.0**-510)
    assert tiny.tolist() == [2.0**-10]
    assert sums.grid_sum(rows, T([0.5, 1.0, 1.0, 0.25]), 0.5).tolist() == [3 + 1 + 3, 4 + 1 + 4]
    assert sums.squared_norms(torch.ones(2, 5000)).tolist() == [5000.0, 5000.0]
