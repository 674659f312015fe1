"""The package that every party of the example installs: the federation that jobs may name as "ward:federation".

Breast-cancer biopsies that scikit-learn brings along, a part of them at each of three wards. No ward's update is seen
by anybody; what leaves is clipped and noised, and each site's ledger counts it.
"""

from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import Federation
from secagg import SecAggPlus

WARDS = ("site-1", "site-2", "site-3")


def loader_for(site: str, config: dict[str, Any]) -> DataLoader[Any]:
    """This ward's data: called where the ward lives, and nowhere else."""
    x, y = load_breast_cancer(return_X_y=True)
    own = slice(WARDS.index(site), None, len(WARDS))
    inputs = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)[own]
    return DataLoader(TensorDataset(inputs, torch.tensor(y)[own]), batch_size=16, shuffle=True)


federation = Federation(
    model=lambda: torch.nn.Linear(30, 2),
    clients=loader_for,
    names=WARDS,
    privacy=[ClientDP(noise_multiplier=0.1, delta=1e-5, clip=1.0), SecAggPlus(dropout=0.3)],
    seed=1,
)
