"""Clients that fit lines, and a record of what they are shown, for tests of buffers."""

from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import FedBuff, Federation
from fl.round import Broadcast

CLIENTS, RATE = 14, 0.1


def points(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + client)
    x = torch.randn(6, 2, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0]]) + 0.1 * client


def descend(model: Any, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()


def federation(privacy: Any = (), strategy: Any = None, clients: int = CLIENTS, **options: Any) -> Federation:
    loaders = [DataLoader(TensorDataset(*points(i)), 6) for i in range(clients)]
    given: dict[str, Any] = {"range": 4.0, "delays": 1.5, "seed": 3, "bits": 24, "metrics": ()}
    return Federation(
        lambda: torch.nn.Linear(2, 1),
        loaders,
        descend,
        strategy or FedBuff(4),
        privacy,
        learning_rate=RATE,
        **{**given, **options},
    )


def recorded(run: Federation) -> list[Broadcast]:
    """The broadcasts of a run's buffers, as they are opened."""
    found, opens = list[Broadcast](), run.coordinator.open_all

    def spy(number: int, asked: tuple[str, ...]) -> tuple[Broadcast, ...]:
        parts = opens(number, asked)
        found.extend(parts)
        return parts

    run.coordinator.open_all = spy  # type: ignore[method-assign]
    return found


def five_leave(run: Federation) -> Federation:
    """The same federation, in which five clients of every buffer leave."""
    run.engine.departures = (
        lambda protocol, session: (  # type: ignore[attr-defined]
            session.roster[:5],
            {"input": session.roster[:5]},
        )
    )
    return run


def vector(run: Federation) -> Any:
    return run.coordinator.reference().flat.vector
