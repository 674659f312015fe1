"""A loop over NumPy arrays, `train(weights, data) -> weights`, as a Federation. No torch is needed of the user.

What does not belong here: how arrays travel (`array_data`).
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fl import arguments
from fl.adapters.array_data import Arrays, ClientData, Weights, no_outputs
from fl.adapters.wrapping import Clients, each, federated
from fl.federation import Federation
from protocols.errors import Misuse, require

OWN_STEPS = (
    "it takes its own steps, so that nothing can clip an example's gradient or replace the optimizer. ClientDP, "
    "LocalDP, DistributedDP at client level and every secure sum work; for the others write the model in torch"
)


class ArrayLoop:
    """`train(weights, data[, epoch, round]) -> weights` in the shape of a train function."""

    own_steps = OWN_STEPS

    def __init__(self, train: Callable[..., Any]) -> None:
        require(callable(train), "a function train(weights, data)", type(train).__name__, "train")
        self.func = train
        names = inspect.signature(train).parameters
        self._wants = [name for name in ("epoch", "round") if name in names]
        given = partial(train, **dict.fromkeys(self._wants))
        arguments.takes("train", given, "a function train(weights, data[, epoch, round])", 2)

    def __call__(self, model: Arrays, loader: ClientData, epoch: int, round: int) -> dict[str, float] | None:
        offered = {"epoch": epoch, "round": round}
        weights = model.weights()
        returned = self.func(weights, loader.data, **{name: offered[name] for name in self._wants})
        weights, metrics = returned if _is_pair(returned) else (returned, None)
        if weights is None:
            raise Misuse("train: expected it to return the trained weights, it returned None")
        model.take(weights, "train")
        return metrics


def from_numpy(
    weights: Weights,
    train: Callable[..., Any],
    clients: Clients,
    *,
    test: Any = None,
    evaluate: Callable[..., dict[str, float]] | None = None,
    **options: Any,
) -> Federation:
    """Return a federation around a loop over NumPy arrays; `result.model.weights()` are the trained weights.

    - weights: a dict, list or tuple of arrays or numbers that every run begins with. Real ones travel, integers as
      `integers=` says.
    - train: `train(weights, data[, epoch, round])`, called once per local epoch with a copy; returns the trained
      weights, or (weights, dict of floats).
    - clients: data by name: an array, a tuple or dict of arrays (or lists) whose first dimensions agree, a list of
      examples, or what has len(); or a function `data_for(client, config)`, with names=[...].
    - test: data, beside `evaluate` (default: None).
    - evaluate: `evaluate(weights, data)`, returns a dict of floats (default: None).
    - options: of `Federation`.

    Raises Misuse for a test without evaluate, for layers that must own the optimizer, and what `Federation` raises.

        federation = from_numpy({"w": np.zeros(3)}, train, {"a": (xa, ya), "b": (xb, yb)}, privacy=[SecAgg()])
        weights = federation.fit(rounds=10).model.weights()
    """
    no_outputs(options)
    if (evaluate is None) != (test is None):
        raise Misuse("test, evaluate: give both, data and evaluate(weights, data), or neither")
    if evaluate is not None:
        arguments.takes("evaluate", evaluate, "a function evaluate(weights, data)", 2)

    def measured(model: Arrays, loader: ClientData, criterion: Any, device: Any) -> dict[str, float]:
        assert evaluate is not None
        return evaluate(model.weights(), loader.data)

    loop = ArrayLoop(train)
    held = None if test is None else ClientData("test", test)
    return federated(partial(Arrays, weights), each(clients, ClientData), loop, held, measured, options)


def _is_pair(returned: Any) -> bool:
    return isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)
