"""Which modules can be trained privately, said by name, and their repair on request.

A module that mixes the examples of a batch (BatchNorm), keeps running statistics of them, or has no
per-example gradients is refused or replaced by explicit choice; nothing is replaced silently. Opacus'
validators and fixers do the module types they know; subclasses of BatchNorm and layers without parameters,
which they pass over, are caught here.
"""

import copy
from typing import Any, NamedTuple

import torch
from opacus.layers import DPRNN
from opacus.layers.param_rename import RenameParamsMixin
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from dp.sample.errors import UnsupportedModule
from dp.sample.targets import HALF

_BATCH_NORM = (nn.modules.batchnorm._BatchNorm,)
_ROOT = "(the model itself)"


class Repair(NamedTuple):
    """One replaced module: its name in the model, what it was and what it is."""

    name: str
    before: str
    after: str


def problems(model: nn.Module) -> dict[str, str]:
    """Map the name of every module that cannot be trained privately to the reason; empty when all is
    well."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        reason = _problem(module)
        if reason:
            found[name or _ROOT] = reason
    return found


def _problem(module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None:
        return f"{kind} is compiled, and per-example gradients need its single calls: give the module itself"
    if isinstance(module, _BATCH_NORM):
        return f"{kind} mixes the examples of a batch"
    if getattr(module, "track_running_stats", False):
        return f"{kind} keeps running statistics of the examples"
    if getattr(module, "max_norm", None) is not None:
        return f"{kind} changes the rows it looks up (max_norm) without clip and noise, frozen or not"
    if isinstance(module, nn.RNNBase):
        return f"{kind} has no per-example gradients"
    own = [p for p in module.parameters(recurse=False) if p.requires_grad]
    if not own:
        return ""
    if half := {p.dtype for p in own} & HALF:
        return (
            f"{kind} has parameters in {str(half.pop())[6:]}, where an example's gradient follows the batch around it: "
            "keep the model in float32, without torch.autocast"
        )
    reason = _option(module)
    if reason:
        return f"{kind} {reason}"
    validator = ModuleValidator.VALIDATORS.get(type(module))
    complaints = validator(module) if validator else []
    if complaints:
        return f"{kind} has no per-example gradients ({str(complaints[0]).split('.')[0][:120]})"
    if parametrize.is_parametrized(module) and any(isinstance(m, _SpectralNorm) for m in module.modules()):
        return f"{kind} moves its spectral norm's buffers in training: take weight_norm or none"
    if any(True for _ in module.buffers(recurse=False)):
        return f"{kind} has trainable parameters beside buffers, which would not be private"
    return ""


def _option(module: nn.Module) -> str:
    """Why an option of a module that is otherwise fine is not, or nothing: Opacus' gradients pass over these."""
    padding = getattr(module, "padding_mode", "zeros")
    if isinstance(module, nn.modules.conv._ConvNd) and padding != "zeros":
        return f"has per-example gradients for zero padding only, not {padding!r}: pad in a module before it"
    if isinstance(module, nn.EmbeddingBag) and module.mode == "max":
        return 'has per-example gradients for sums and means of a bag, not for "max"'
    if getattr(module, "scale_grad_by_freq", False):
        return "scales gradients by counts over the batch (scale_grad_by_freq)"
    return ""


def validate(model: nn.Module, gradients: str = "hooks") -> None:
    """Raises UnsupportedModule naming every module that cannot be trained privately in this gradient mode."""
    found = problems(model)
    for name, module in model.named_modules() if gradients == "ew" else ():
        if (
            isinstance(module, nn.Embedding)
            and module.padding_idx is not None
            and module.weight.requires_grad
        ):
            found[name or _ROOT] = (
                'Embedding pads (padding_idx), which "ew" trains too: take gradients="hooks"'
            )
    if found:
        raise UnsupportedModule(found)


def repair(model: nn.Module) -> tuple[nn.Module, tuple[Repair, ...]]:
    """Return a copy in which modules that cannot be trained privately are replaced, and the list of
    replacements.

    BatchNorm becomes GroupNorm (at most 32 groups), nn.LSTM, nn.GRU, nn.RNN and nn.MultiheadAttention
    become Opacus' layers of the same parameter names; running statistics are dropped. Raises
    UnsupportedModule where none is known.
    """
    fixed = copy.deepcopy(model)
    for name, module in list(fixed.named_modules()):
        if isinstance(module, _BATCH_NORM):
            fixed = _replace(fixed, name, _group_norm(module))
        elif getattr(module, "track_running_stats", False):
            fixed = _replace(fixed, name, _without_statistics(module))
        elif type(module) is nn.RNN:
            fixed = _replace(fixed, name, _recurrent(module))
        elif type(module) in ModuleValidator.FIXERS and _problem(module):
            fixed = _replace(fixed, name, ModuleValidator.FIXERS[type(module)](module))
    for module in fixed.modules():
        if isinstance(module, RenameParamsMixin):
            _plain_names(module)
    fixed.train(model.training)
    validate(fixed)
    before, after = dict(model.named_modules()), dict(fixed.named_modules())
    return fixed, tuple(
        Repair(name or _ROOT, type(before[name]).__name__, type(module).__name__)
        for name, module in after.items()
        if name in before and _changed(before[name], module)
    )


def _recurrent(module: nn.RNN) -> nn.Module:
    options = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "nonlinearity")
    given = {name: getattr(module, name) for name in options}
    made: nn.Module = DPRNN(module.input_size, module.hidden_size, **given)
    made.load_state_dict(module.state_dict())
    return made


def _plain_names(module: Any) -> None:
    """Keep Opacus' second names of a recurrent layer's parameters out of the state: it then looks like
    torch's own layer's."""
    module._state_dict_hooks.clear()  # Opacus' own hook returns a copy, which is lost inside a larger model
    module._register_state_dict_hook(_hide)
    module._register_load_state_dict_pre_hook(_show, with_module=True)


def _hide(module: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for old in module.old_to_new:
        state.pop(prefix + old, None)


def _show(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for old, new in module.old_to_new.items():
        if prefix + new in state:
            state.setdefault(prefix + old, state[prefix + new])


def _changed(before: nn.Module, after: nn.Module) -> bool:
    same = type(before) is type(after)
    return not same or getattr(before, "track_running_stats", 0) != getattr(after, "track_running_stats", 0)


def _group_norm(module: nn.Module) -> nn.GroupNorm:
    channels = int(module.num_features)  # type: ignore[arg-type]  # every BatchNorm has it
    groups = max(g for g in range(1, min(32, channels) + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, affine=bool(module.affine))


def _without_statistics(module: nn.Module) -> nn.Module:
    made = type(module)(module.num_features, affine=module.affine)
    setattr(made, "track_running_stats", False)  # noqa: B010  # torch types every attribute of a module as a tensor
    return made


def _replace(root: nn.Module, name: str, module: nn.Module) -> nn.Module:
    if not name:
        return module
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
    return root
