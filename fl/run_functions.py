"""The user's own functions that a configuration names, `module:function`, as arguments of a Federation.

What does not belong here: how a name is found (`registry`), data and models (`run_parts`).
"""

from typing import Any

from fl.registry import CALLBACKS, function
from fl.run_config import RunConfig
from fl.run_options import RunOptions

OWN = ("train", "optimizer", "scheduler", "criterion", "loss", "evaluate")
OFFERED = ("model", "loader", "criterion", "device")


def own_functions(config: RunConfig) -> dict[str, Any]:
    """Return the arguments of `Federation` that the configuration's functions stand for. Raises Misuse by key."""
    own: dict[str, Any] = {
        key: function(name, key) for key in OWN if (name := getattr(config, key)) is not None
    }
    if config.test is not None:
        own["test"] = function(config.test, "test")()
    measures = {name: function(name, "metrics") for name in config.metrics if ":" in name}
    summed = tuple(name for name in config.metrics if name not in measures)
    own["metrics"] = summed or (RunOptions.metrics if measures else ())
    if measures:
        own["evaluate"] = _measuring(
            measures, own.get("evaluate"), () if "criterion" in own else ("criterion",)
        )
    return own | {"callbacks": _callbacks(config)}


def _callbacks(config: RunConfig) -> list[Any]:
    """Return the callbacks, in order; a user's own function gives one or a list of them."""
    built = [CALLBACKS.build(written) for written in config.callbacks]
    return [each for made in built for each in (made if isinstance(made, list | tuple) else [made])]


def _measuring(measures: dict[str, Any], evaluate: Any, unsaid: tuple[str, ...]) -> Any:
    """Return an `evaluate` that gives what the run's own gives, and each function's number under its name."""
    from fl.train_function import by_name
    from fl.training import evaluate as usual

    whole = by_name("evaluate", evaluate or usual, OFFERED, unsaid)
    each = {
        name.split(":")[1]: by_name(f"metrics: {name}", measure, OFFERED, unsaid)
        for name, measure in measures.items()
    }

    def measured(model: Any, loader: Any, criterion: Any, device: Any) -> dict[str, Any]:
        told = model, loader, criterion, device
        return {**whole(*told), **{name: measure(*told) for name, measure in each.items()}}

    return measured
