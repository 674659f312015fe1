"""Models whose per-example gradients are easy to get wrong, with data for each. Nothing here trains.

`SOUND` are models whose every example has a gradient of its own: their private sums must be those of a plain
loop. `REFUSED` have none, or use a parameter where no module is called: they must be named.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from dp.sample.validation import repair

WORDS, WIDTH, LENGTH, EXAMPLES = 20, 4, 9, 12
Tensor = torch.Tensor


class Model(nn.Module):
    """A forward pass given as a function of the modules."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self._run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


class Scale(nn.Module):
    """A parameter of its own, in a module that no library knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Named(nn.Module):
    """Reads a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(WIDTH))

    def forward(self, given: dict[str, Any]) -> Tensor:
        out: Tensor = given["x"] @ self.weight * given["times"]
        return out


def out(width: int = WIDTH) -> nn.Linear:
    return nn.Linear(width, 3)


def words(**options: Any) -> nn.Embedding:
    return nn.Embedding(WORDS, WIDTH, **options)


def inner() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def line(inputs: int = WIDTH) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 40), nn.Tanh(), out(40))


def time_first() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(torch.tanh(m.inner(m.words(x.T)))).mean(0)  # type: ignore[no-any-return]

    return Model(forward, words=words(), inner=inner(), out=out())


def twice() -> nn.Module:
    return Model(lambda m, x: m.out(torch.tanh(m.inner(torch.tanh(m.inner(x))))), inner=inner(), out=out())


def tied_linears() -> nn.Module:
    first, second = inner(), inner()
    second.weight = first.weight
    return Model(lambda m, x: m.out(torch.tanh(m.b(torch.tanh(m.a(x))))), a=first, b=second, out=out())


def tied_modules() -> nn.Module:
    reading, writing = words(), nn.Linear(WIDTH, WORDS, bias=False)
    writing.weight = reading.weight
    return Model(lambda m, x: m.out(torch.tanh(m.words(x).mean(1)))[:, :3], words=reading, out=writing)


def padded() -> nn.Module:
    return Model(lambda m, x: m.out(m.words(x).mean(1)), words=words(padding_idx=0), out=out())


def bags(offsets: bool, **options: Any) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        if offsets:
            return m.out(m.words(x.reshape(-1), torch.arange(0, x.numel(), x.shape[1])))  # type: ignore[no-any-return]
        return m.out(m.words(x))  # type: ignore[no-any-return]

    return Model(forward, words=nn.EmbeddingBag(WORDS, WIDTH, **options), out=out())


def folded(time_outer: bool) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        batch, time = x.shape
        h = m.words(x.T if time_outer else x).reshape(batch * time, WIDTH)
        h = m.norm(torch.tanh(m.inner(h)))
        h = h.reshape(time, batch, WIDTH).mean(0) if time_outer else h.reshape(batch, time, WIDTH).mean(1)
        return m.out(h)  # type: ignore[no-any-return]

    return Model(forward, words=words(), inner=inner(), norm=nn.LayerNorm(WIDTH), out=out())


def folded_images() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.norm(torch.tanh(m.conv(x.reshape(len(x) * LENGTH, 1, WIDTH)))).mean(2)
        return m.out(h.reshape(len(x), LENGTH, 2).mean(1))  # type: ignore[no-any-return]

    return Model(forward, conv=nn.Conv1d(1, 2, 3), norm=nn.GroupNorm(1, 2), out=out(2))


def two_layouts() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = torch.tanh(m.inner(x.transpose(0, 1))).transpose(0, 1)
        return m.out(torch.tanh(m.inner(h)).mean(1))  # type: ignore[no-any-return]

    return Model(forward, inner=inner(), out=out())


def unrolled() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), WIDTH)
        for t in range(x.shape[1]):
            h = torch.tanh(m.inner(x[:, t] + h))
        return m.out(h)  # type: ignore[no-any-return]

    return Model(forward, inner=inner(), out=out())


def own_time_first() -> nn.Module:
    return Model(lambda m, x: m.out(torch.tanh(m.scale(x.transpose(0, 1)))).mean(0), scale=Scale(), out=out())


def dictionary() -> nn.Module:
    return Model(lambda m, x: m.out(torch.tanh(m.named({"x": x, "times": 2}))), named=Named(), out=out())


def recurrent(kind: Any, first: bool, **options: Any) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h, _ = m.memory(x if first else x.transpose(0, 1))
        return m.out(h.mean(1 if first else 0))  # type: ignore[no-any-return]

    width = 5 * (2 if options.get("bidirectional") else 1)
    return repair(Model(forward, memory=kind(WIDTH, 5, batch_first=first, **options), out=out(width)))[0]


def attention(first: bool) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = x if first else x.transpose(0, 1)
        h, _ = m.attention(x, x, x)
        return m.out(h.mean(1 if first else 0))  # type: ignore[no-any-return]

    return repair(Model(forward, attention=nn.MultiheadAttention(WIDTH, 2, batch_first=first), out=out()))[0]


def convolution(kind: Any, **options: Any) -> nn.Module:
    pool = {nn.Conv1d: nn.AdaptiveAvgPool1d, nn.Conv3d: nn.AdaptiveAvgPool3d}.get(kind, nn.AdaptiveAvgPool2d)
    return nn.Sequential(kind(WIDTH, WIDTH, 3, **options), nn.Tanh(), pool(1), nn.Flatten(), out())


def parametrised(how: Any) -> nn.Module:
    return nn.Sequential(how(inner()), nn.Tanh(), out())


def checkpointed() -> nn.Module:
    return Model(
        lambda m, x: m.out(checkpoint(lambda v: torch.tanh(m.inner(v)), x, use_reentrant=False)),
        inner=inner(), out=out(),
    )  # fmt: skip


def frozen() -> nn.Module:
    return nn.Sequential(inner().requires_grad_(requires_grad=False), nn.Tanh(), out())


def functional_tie() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(m.inner(m.words(x).mean(1))), m.words.weight)[:, :3]

    return Model(forward, words=words(), inner=inner())


def multiplied() -> nn.Module:
    return Model(lambda m, x: torch.matmul(torch.tanh(m.inner(x)), m.out.weight.T), inner=inner(),
                 out=nn.Linear(WIDTH, 3, bias=False))  # fmt: skip


def positions() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(torch.tanh(m.words(x) + m.places(torch.arange(x.shape[1]))).mean(1))  # type: ignore[no-any-return]

    return Model(forward, words=words(), places=nn.Embedding(LENGTH, WIDTH), out=out())


def one_by_one() -> nn.Module:
    return Model(
        lambda m, x: torch.stack([m.out(torch.tanh(m.inner(each)).mean(0)) for each in x]),
        inner=inner(), out=out(),
    )  # fmt: skip


def centred() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.inner(x)
        return m.out(torch.tanh(h - h.mean(0)))  # type: ignore[no-any-return]

    return Model(forward, inner=inner(), out=out())


def unused() -> nn.Module:
    return Model(lambda m, x: m.out(torch.tanh(m.inner(x))), inner=inner(), out=out(), spare=nn.Linear(2, 2))


def vectors() -> TensorDataset:
    return _labelled(torch.randn(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(1)))


def sequences(length: int = LENGTH) -> TensorDataset:
    return _labelled(torch.randn(EXAMPLES, length, WIDTH, generator=torch.Generator().manual_seed(2)))


def tokens(length: int = LENGTH) -> TensorDataset:
    drawn = torch.randint(0, WORDS, (EXAMPLES, length), generator=torch.Generator().manual_seed(3))
    drawn[:, ::4] = 0
    return _labelled(drawn)


def images(axes: int) -> TensorDataset:
    return _labelled(torch.randn(EXAMPLES, WIDTH, *[7] * axes, generator=torch.Generator().manual_seed(4)))


def flat() -> TensorDataset:
    return _labelled(torch.randn(EXAMPLES, LENGTH * WIDTH, generator=torch.Generator().manual_seed(5)))


def _labelled(x: Tensor) -> TensorDataset:
    return TensorDataset(x, torch.arange(len(x)) % 3)


Case = tuple[Callable[[], nn.Module], Callable[[], TensorDataset]]
SOUND: dict[str, Case] = {
    "time first": (time_first, tokens),
    "time first, as many steps as examples": (time_first, lambda: tokens(EXAMPLES)),
    "Linear called twice": (twice, vectors),
    "Linears tied": (tied_linears, vectors),
    "modules tied": (tied_modules, tokens),
    "padding": (padded, tokens),
    "bag, mean": (lambda: bags(offsets=False), tokens),
    "bag, sum, padding": (lambda: bags(offsets=False, mode="sum", padding_idx=0), tokens),
    "bag, offsets, padding": (lambda: bags(offsets=True, padding_idx=0), tokens),
    "time folded into the batch": (lambda: folded(time_outer=False), tokens),
    "batch folded into time": (lambda: folded(time_outer=True), tokens),
    "convolution over folded time": (folded_images, flat),
    "two layouts": (two_layouts, sequences),
    "two layouts, as many steps as examples": (two_layouts, lambda: sequences(EXAMPLES)),
    "module in a loop": (unrolled, sequences),
    "own parameter, time first": (own_time_first, sequences),
    "dictionary": (dictionary, vectors),
    "LSTM": (lambda: recurrent(nn.LSTM, first=True), sequences),
    "LSTM, time first, two layers, both ways": (
        lambda: recurrent(nn.LSTM, first=False, num_layers=2, bidirectional=True),
        sequences,
    ),
    "GRU, time first": (lambda: recurrent(nn.GRU, first=False), lambda: sequences(EXAMPLES)),
    "RNN": (lambda: recurrent(nn.RNN, first=True), sequences),
    "attention": (lambda: attention(first=True), sequences),
    "attention, time first": (lambda: attention(first=False), lambda: sequences(EXAMPLES)),
    "Conv1d": (lambda: convolution(nn.Conv1d, groups=2, dilation=2, padding=1, stride=2), lambda: images(1)),
    "Conv1d, same": (lambda: convolution(nn.Conv1d, padding="same", dilation=2), lambda: images(1)),
    "Conv2d": (lambda: convolution(nn.Conv2d, groups=4, stride=2, padding=1), lambda: images(2)),
    "Conv3d": (lambda: convolution(nn.Conv3d, groups=2, dilation=2), lambda: images(3)),
    "ConvTranspose2d": (lambda: convolution(nn.ConvTranspose2d), lambda: images(2)),
    "norm over time": (
        lambda: Model(lambda m, x: m.out(m.norm(x.transpose(0, 1)).mean(0)), norm=nn.LayerNorm(WIDTH, bias=False),
                      out=out()),
        lambda: sequences(EXAMPLES),
    ),
    "weight norm": (lambda: parametrised(parametrizations.weight_norm), vectors),
    "checkpoint": (checkpointed, vectors),
    "frozen": (frozen, vectors),
    "dropout": (lambda: nn.Sequential(inner(), nn.Dropout(0.0), nn.Tanh(), out()), vectors),
}  # fmt: skip


def ranked(width: int = 8) -> nn.Module:
    """The difference of two items' scores (RankNet): what both have in common cancels in the gradient."""

    def run(model: Any, x: Tensor) -> Tensor:
        score = model.score(x)
        return functional.pad(score[:, 1] - score[:, 0], (1, 0))

    return Model(run, score=nn.Linear(width, 1, bias=False))


def coarse() -> nn.Module:
    """A score under autocast, in eight bits."""

    def run(model: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            score = model.score(x)
        return functional.pad(score.float(), (1, 0))

    return Model(run, score=nn.Linear(8, 1, bias=False))


def items(*shape: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(EXAMPLES, *shape, generator=generator), torch.arange(EXAMPLES) % 2)


FLOATS: dict[str, Case] = {
    "terms that cancel": (ranked, lambda: items(2, 8)),
    "scores in eight bits": (coarse, lambda: items(8)),
}
"""Sound, and hard for floats: norms by sums of products, or sums in the format of the activations, are wrong."""
REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[], TensorDataset], str]] = {
    "weight used by a function": (functional_tie, tokens, r"words\.weight"),
    "weight multiplied": (multiplied, vectors, r"out\.weight"),
    "positions": (positions, tokens, r"places\.weight: places: .*expand"),
    "one example at a time": (one_by_one, sequences, r"inner\.weight: inner: it is called"),
    "centred over the batch": (centred, vectors, r"changes with the others of its batch"),
    "unused": (unused, vectors, r"spare\.weight: the loss does not reach it"),
    "spectral norm": (lambda: parametrised(parametrizations.spectral_norm), vectors, "spectral norm"),
    "compiled": (lambda: torch.compile(nn.Sequential(inner(), out()), backend="eager"), vectors, "compiled"),
    "bag, max": (lambda: bags(offsets=False, mode="max"), tokens, "max"),
}
