"""Federations that the tests' jobs name, as packages installed at a site would hold them."""

from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation
from fl.network.site import Site
from secagg import SecAggPlus

SITES = ("site-1", "site-2", "site-3", "site-4")


def loader_for(name: str, config: dict[str, Any]) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(SITES.index(name))
    x = torch.randn(24, 5, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8, shuffle=True)


def masks() -> SecAggPlus:
    return SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)


def made(*privacy: Any, **named: Any) -> Federation:
    return Federation(
        lambda: torch.nn.Linear(5, 2), loader_for, names=SITES, privacy=list(privacy), seed=3, **named
    )


def plain(site: Site | None = None) -> Federation:
    return made()


def masked(site: Site | None = None) -> Federation:
    return made(masks())
