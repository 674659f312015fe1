"""What of a torch module travels: by default what trains.

Belongs here: the rule of every parameter and buffer, and what a client checks about those that stay as the server has
them. Does not belong here: integers that are summed or kept (their rule
is `integers=`), trees of arrays without a module (`protocols.updates`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

import numpy as np
import torch

from fl.round.reference import Reference
from protocols.errors import Misuse
from protocols.updates import STATISTICS, Flat, Schema

TRAINED, ALL = "trained", "all"


def rules_of(
    model: Any, state: Mapping[str, Any], parameters: str | Sequence[str], *, private: bool
) -> dict[str, str]:
    """Return name -> "protect" or "keep" for the parameters and buffers of a module that leave a client (`state`).

    parameters: "trained" (those that require gradients), "all", or patterns of names ("head.*"); the others stay as
    the server has them. private: a layer adds noise; then buffers that are no running statistics stay as the server
    has them too. Raises Misuse where nothing would be sent, or where a pattern matches no parameter.
    """
    trains = {name: p.requires_grad for name, p in model.named_parameters(remove_duplicate=False)}
    patterns = (
        [] if parameters in (TRAINED, ALL) else [parameters] if isinstance(parameters, str) else parameters
    )
    require_matches("parameters", patterns, trains, "parameter of the model")

    def sent(name: str) -> bool:
        if patterns:
            return any(fnmatchcase(name, pattern) for pattern in patterns)
        return parameters == ALL or trains[name]

    rules: dict[str, str] = {}
    for name, tensor in state.items():
        if not _is_real(tensor):
            continue
        if name in trains:
            rules[name] = "protect" if sent(name) else "keep"
        else:
            rules[name] = "keep" if private and not is_statistic(name) else "protect"
    shared = [rule for name, rule in rules.items() if name in trains]
    if shared and "protect" not in shared:
        raise Misuse(
            'no parameter requires gradients, so nothing trains: unfreeze some, or say parameters="all"'
        )
    return rules


def unsent(schema: Schema) -> Schema:
    """Return the schema of a round that shows a model and sends nothing of it."""
    return Schema(tuple(replace(leaf, rule="keep") for leaf in schema.leaves))


def buffers_of(model: Any) -> tuple[str, ...]:
    """Return patterns that match the names of a module's buffers, and nothing else."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return tuple(escape(name) for name in model.state_dict() if name not in parameters)


def rules_of_state(state: Mapping[str, Any], parameters: str | Sequence[str], buffers: str) -> dict[str, str]:
    """Return the same for a state dict, which tells less: parameters from buffers by name only, and what trains only
    where its tensors say so (`state_dict(keep_vars=True)`). Raises Misuse for a pattern that matches nothing.
    """
    patterns = [] if parameters == ALL else [parameters] if isinstance(parameters, str) else parameters
    require_matches("parameters", patterns, state, "tensor of the reference")
    marked = any(getattr(tensor, "requires_grad", False) for tensor in state.values())
    rules: dict[str, str] = {}
    for name, tensor in state.items():
        if is_statistic(name):
            rules |= {name: "keep"} if buffers == "local" else {}
        elif _is_real(tensor) and (
            (patterns and not any(fnmatchcase(name, pattern) for pattern in patterns))
            or (marked and not tensor.requires_grad)
        ):
            rules[name] = "keep"
    return rules


def require_matches(option: str, patterns: Sequence[str], names: Collection[str], what: str) -> None:
    """Raises Misuse for the first pattern of an option that matches none of the names of `what`."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise Misuse(f"{option}: {pattern!r} matches no {what}, {sorted(names)[:8]} ...")


def is_statistic(name: str) -> bool:
    """Whether a tensor of this name holds running statistics, or counts their batches."""
    return name.rpartition(".")[2] in (*STATISTICS, "num_batches_tracked")


def _is_real(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and (tensor.is_floating_point() or tensor.is_complex())


def require_kept(flat: Flat, reference: Reference) -> None:
    """Raises Misuse if training changed a floating-point tensor that is not sent: the change would be lost silently."""
    for leaf in reference.schema.leaves:
        if leaf.rule != "keep" or np.dtype(leaf.dtype).kind not in "fc" or is_statistic(leaf.name):
            continue
        before, after = reference.flat.kept[leaf.path], flat.kept[leaf.path]
        if not np.array_equal(before, after, equal_nan=True):
            raise Misuse(
                f"{leaf.name}: training changed it, and it is not sent, because it did not require gradients when the "
                'model was made, is no parameter, or no pattern names it: say parameters="all" (a buffer: '
                'buffers="local"), or let the model\'s factory unfreeze it'
            )
