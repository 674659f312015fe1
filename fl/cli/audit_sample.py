"""`secagg audit sample-dp`: the proof of per-example gradients on a user's own model, loss and data.

Belongs here: what the options mean and what is printed. The audit is `dp.sample.audit.per_example`.
"""

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fl.cli import output
from protocols.errors import Misuse

if TYPE_CHECKING:
    from dp.sample.audit.per_example import ExampleAudit

NAME = "sample-dp"
STYLES = {"sound": "green", "frozen": "dim", "not checked": "yellow"}


def made(
    model: str | None, data: str | None, loss: str | None, *, gradients: str, clip: float, canaries: int
) -> "ExampleAudit":
    """Audit what the options name. Raises Misuse for a missing or wrong one, MissingExtra without torch."""
    from protocols.extras import needs

    if model is None or data is None:
        raise Misuse(
            f"secagg audit {NAME} takes --model package.module:factory and --data, a name or a factory"
        )
    with needs("torch", f"secagg audit {NAME}"):
        from dp.sample.audit.per_example import per_example
    given, facts = _data(data)
    net = _model(model, facts)
    by = None if loss is None else _loss(loss)
    audit = per_example(net, by, given, gradients=gradients, clip=clip)
    if canaries and audit.passed:
        from dp.sample.audit.canary_run import estimate, lower_bound

        plan = estimate(net, by, given, gradients=gradients, clip=clip, canaries=canaries)
        output.stderr_console().print(str(plan), highlight=False)
        audit = replace(audit, bound=lower_bound(plan))
    return audit


def _data(name: str) -> tuple[Any, dict[str, Any]]:
    import torch

    from fl.data import DataSet
    from fl.registry import DATA

    found: Any = DATA.build(name)
    if not isinstance(found, DataSet):
        return _tensors(found), {}
    tensors = torch.utils.data.TensorDataset(*(torch.as_tensor(a) for a in (found.x_train, found.y_train)))
    return tensors, {"input_shape": found.input_shape, "classes": found.classes}


def _tensors(given: Any) -> Any:
    """NumPy arrays in nested tuples, lists or dictionaries as tensors; loaders and data sets as they are."""
    import numpy as np
    import torch

    return torch.utils._pytree.tree_map(
        lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, given
    )


def _model(name: str, facts: dict[str, Any]) -> Any:
    from torch import nn

    from fl.registry import MODELS

    factory = MODELS.factory(MODELS.parse(name).name)
    missing = [p.name for p in inspect.signature(factory).parameters.values()
               if p.name in ("input_shape", "classes") and p.default is p.empty and p.name not in facts]  # fmt: skip
    if missing:
        raise Misuse(
            f"the model {name!r} takes {', '.join(missing)}: give it a data set of `secagg data list`"
        )
    net = MODELS.build(name, **facts)
    if not isinstance(net, nn.Module):
        raise Misuse(f"the model {name!r} must give a torch module; it gave a {type(net).__name__}")
    return net


def _loss(reference: str) -> Any:
    """The function itself: `loss(model, batch)`; a class of torch's losses is built without arguments."""
    from fl.registry import Registry

    found: Any = Registry("loss", "secagg_toolkit.losses", {}).factory(reference)
    return found() if inspect.isclass(found) else found


def show(audit: "ExampleAudit") -> None:
    """Print the verdict, the modes, and every parameter that is not plainly sound."""
    from rich.markup import escape
    from rich.table import Table

    console = output.stdout_console()
    verdict = "[bold green]passed[/]" if audit.passed else "[bold red]did not pass[/]"
    console.print(f'sample-dp with gradients="{audit.gradients}": {verdict}')
    for mode in audit.modes:
        moved = "" if mode.moved is None else f", one example moved the sum by at most {mode.moved:.2f} clips"
        style = STYLES.get(mode.status, "bold red")
        said = "" if mode.status == "sound" else f"  {escape(mode.reason)}"
        console.print(f"{mode.name}: [{style}]{mode.status}[/]{moved}{said}", soft_wrap=True, highlight=False)
    table = Table("parameter", "verdict", "held by", "error", "why", box=None)
    for p in audit.parameters:
        error = p.errors.get(audit.gradients)
        style = STYLES.get(p.status, "bold red")
        held = ", ".join(m or "(the model itself)" for m in p.modules) + (
            " (tied)" if len(p.modules) > 1 else ""
        )
        shown = "" if error is None else f"{error:.1e}"
        table.add_row(p.name, f"[{style}]{p.status}[/]", escape(held), shown, escape(p.reason))
    console.print(table)
    if audit.bound is not None:
        console.print(str(audit.bound), highlight=False)
