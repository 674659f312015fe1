"""One module call's per-example gradients, from what it read and the gradient at what it gave.

Opacus' samplers do the layers that they know; `functional` does any module through torch.func. Embeddings
and bags are done here. Who calls this, and which examples are whose, belongs to `hooks` and `layout`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.layers.dp_rnn import RNNLinear
from torch import nn
from torch.func import functional_call, grad, vmap

from dp.sample.errors import UnsupportedModule
from dp.sample.layout import AGNOSTIC, Layout
from dp.sample.remade import LookedUp, Make

Tensor = torch.Tensor
Rows = dict[Tensor, Tensor]
KNOWN: Mapping[type, Any] = GradSampleHooks.GRAD_SAMPLERS


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters whose gradients a hooked module answers for, by their name in it."""
    own = module.named_parameters(recurse=not known(module))
    return {name: p for name, p in own if p.requires_grad}


def known(module: nn.Module) -> bool:
    """Whether Opacus has a sampler for the module as it stands: its type, and weight and bias alone."""
    if type(module) not in KNOWN or (isinstance(module, nn.LayerNorm) and module.bias is None):
        return False
    return {name for name, _ in module.named_parameters(recurse=False)} <= {"weight", "bias"} and isinstance(
        getattr(module, "weight", getattr(module, "bias", None)), nn.Parameter
    )


def rows(module: nn.Module, x: Tensor, d: Tensor, some: slice = slice(None)) -> Rows:
    """Rows (m, *shape) of each parameter of a `known` module, for these of the examples of `split`, by Opacus' sampler.
    In float32 at least."""
    x, d = _wide(x[some]), _wide(d[some])
    if isinstance(module, AGNOSTIC):
        found: Rows = KNOWN[type(module)](module, [x], d)
        return found
    size, each = x.shape[:2]
    flat: Rows = KNOWN[type(module)](module, [x.flatten(0, 1)], d.flatten(0, 1))
    if each == 1:
        return flat
    return {p: made.reshape(size, each, *made.shape[1:]).sum(dim=1) for p, made in flat.items()}


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def split(
    module: nn.Module, inputs: list[Tensor], grad_at: Tensor, layout: Layout, size: int
) -> tuple[Tensor, Tensor]:
    """Input and gradient with the examples first and their rows second; one row an example needs no second axis.
    Positions that an embedding pads get no gradient."""
    axis = layout.inputs[0] or 0
    x, d = layout.split(inputs[0], axis, size), layout.split(grad_at, layout.output, size)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        d = d.masked_fill((x == module.padding_idx).unsqueeze(-1), 0.0)
    if not isinstance(module, AGNOSTIC):
        return x, d
    if isinstance(module, nn.Linear) and x.dim() > 3:
        x, d = x.flatten(1, -2), d.flatten(1, -2)
    return (x.squeeze(1), d.squeeze(1)) if x.shape[1] == 1 else (x, d)


def factored(module: nn.Module, x: Tensor) -> bool:
    """Whether the weight's rows are better kept as the factors of outer products."""
    return (
        type(module) in (nn.Linear, RNNLinear)
        and x.dim() == 2
        and x.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.float16, torch.bfloat16)
    )


def words(module: Any, inputs: list[Tensor], grad_at: Tensor, layout: Layout, size: int) -> LookedUp:
    """What an Embedding or a bag of a batch read of its table, and the gradient there; pads get nothing."""
    if isinstance(module, nn.EmbeddingBag):
        owner, index, d = _bags(module, inputs, grad_at)
    else:
        x, d = split(module, inputs, grad_at, layout, size)
        index, d = x.reshape(-1), d.reshape(x.numel(), -1)
        owner = torch.arange(size, device=d.device).repeat_interleave(len(index) // max(1, size))
    return LookedUp(owner, index, d, size, module.num_embeddings)


def _bags(module: nn.EmbeddingBag, inputs: list[Tensor], d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each entry's bag, word and gradient: the bag's, by its share."""
    index, size = inputs[0], len(d)
    if len(inputs) != (1 if index.dim() == 2 else 2):
        raise UnsupportedModule({"EmbeddingBag": "has per-example gradients without per_sample_weights only"})
    if index.dim() == 2:
        bag = torch.arange(size, device=d.device).repeat_interleave(index.shape[1])
        index = index.reshape(-1)
    else:
        bag = torch.bucketize(torch.arange(len(index), device=d.device), inputs[1][1:], right=True)
    if module.padding_idx is not None:
        keep = index != module.padding_idx
        bag, index = bag[keep], index[keep]
    share = torch.ones(len(bag), dtype=d.dtype, device=d.device)
    if module.mode == "mean":
        share = share / torch.bincount(bag, minlength=size)[bag]
    return bag, index, d[bag] * share[:, None]


def functional(
    module: nn.Module,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    grad_at: Tensor,
    layout: Layout,
    size: int,
) -> Make:
    """What makes rows of any module's parameters: its forward pass once more for each example, differentiated by
    torch.func."""
    leaves, spec = torch.utils._pytree.tree_flatten(arguments)
    where = [at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    axes = dict(zip(where, layout.inputs, strict=True))
    own = trainable(module)
    kind = next(iter(own.values())).dtype  # under autocast inputs and gradients are coarser than parameters

    def alike(leaf: Tensor) -> Tensor:
        return leaf.to(kind) if leaf.is_floating_point() else leaf

    parts = {at: alike(layout.split(leaves[at], axis, size)) for at, axis in axes.items() if axis is not None}
    fixed = {name: t.detach() for name, t in [*module.named_parameters(), *module.named_buffers()]}

    def value(parameters: dict[str, Tensor], given: dict[int, Tensor], d: Tensor) -> Tensor:
        args, options = torch.utils._pytree.tree_unflatten(
            [given[at].movedim(0, axes[at] or 0) if at in given else leaf for at, leaf in enumerate(leaves)],
            spec,
        )
        out: Tensor = functional_call(module, {**fixed, **parameters}, args, options)
        return (out * d.movedim(0, layout.output)).sum()

    detached = {name: p.detach() for name, p in own.items()}
    each, d = vmap(grad(value), in_dims=(None, 0, 0)), layout.split(grad_at, layout.output, size)

    def make(some: slice) -> Rows:
        by_name = each(detached, {at: part[some] for at, part in parts.items()}, d[some])
        return {own[name]: made for name, made in by_name.items()}

    return make
