"""What every adapter does alike: each client's data by its name, what a loop may be told, the Federation around it.

What does not belong here: anything that knows a framework.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fl import arguments
from fl.federation import Federation
from protocols.errors import Misuse

Clients = Mapping[str, Any] | Sequence[Any] | Callable[..., Any]
"""Data by name, in order, or `data_for(client_id, config)`."""


def federated(
    model: Callable[[], Any],
    clients: Clients,
    loop: Any,
    test: Any,
    evaluate: Callable[..., dict[str, float]],
    options: Mapping[str, Any],
    **usual: Any,
) -> Federation:
    """Return a Federation around a loop. evaluate: used where there is a `test`. usual: options unless given."""
    given = {"metrics": (), **usual, **options}
    return Federation(model, clients, loop, test=test, evaluate=None if test is None else evaluate, **given)


def each(clients: Clients, make: Callable[[str, Any], Any]) -> Clients:
    """Return clients whose data is `make("client 'a'", data)`, called only where a client lives. Raises Misuse for a
    function of other arguments; what holds no clients is returned, and the Federation says what it expected.
    """
    if isinstance(clients, Mapping):
        return {name: make(f"client {str(name)!r}", data) for name, data in clients.items()}
    if isinstance(clients, Sequence) and not isinstance(clients, str):
        return [make(f"client {str(name)!r}", data) for name, data in enumerate(clients)]
    if not callable(clients):
        return clients
    arguments.takes("clients", clients, "data, or a function data_for(client_id, config)", 2)
    return lambda client, config: make(f"client {client!r}", clients(client, config))


def local_epochs(name: str, said: Any, options: Mapping[str, Any]) -> int:
    """Return a round's local epochs, which the Trainer's argument `name` says. Raises Misuse for parts of one, or for
    `local_epochs` beside it.
    """
    if not isinstance(said, int | float) or said < 1 or said != int(said):
        raise Misuse(f"{name}: a round has whole passes, 1 or more, got {said}")
    if "local_epochs" in options:
        raise Misuse(f"local_epochs: the Trainer's {name} says it")
    return int(said)


def refuse_watching(callbacks: Iterable[Any], watching: tuple[type, ...]) -> None:
    """Raises Misuse for a Trainer's callback of those kinds, which need one training from its beginning to its end."""
    for each in callbacks:
        if isinstance(each, watching):
            raise Misuse(
                f"{type(each).__name__} watches a run from epoch to epoch, and every client's Trainer is new in every "
                "round: leave it out of the Trainer; a federation is stopped early by "
                "callbacks=[fl.callbacks.EarlyStopping(...)] with test=..."
            )


def unlike(held: Any, wanted: Mapping[str, Any], owner: str, owns: str, advice: str) -> None:
    """Raises Misuse where attributes of `held`, a Trainer or its arguments, are not what a layer beside it needs.

    wanted: by name; where it is None, 0 will do, too. owns: what the layer does. advice: what says it instead.
    """
    found = {name: getattr(value := getattr(held, name), "value", value) for name in wanted}
    said = [
        f"{name}={wanted[name]!r} (it is {value!r})"
        for name, value in found.items()
        if value != wanted[name] and not (wanted[name] is None and value == 0)
    ]
    if said:
        raise Misuse(f"{owner} {owns}: say {', '.join(said)}; {owner} has options of its own: {advice}")


def owns_rates(owner: str, instead: str) -> Misuse:
    """Return the refusal of schedules beside a layer that owns the optimizer."""
    return Misuse(f"{owner} owns the learning rates: {instead}, and say {owner}(schedule=lambda step: ...)")
