"""Top floor: training loops, strategies, data, engines, command line. Names load when they are asked for."""

import importlib
from typing import TYPE_CHECKING, Any

from fl.refused import refusal
from protocols.errors import Misuse

if TYPE_CHECKING:
    from fl.average import SecureAverage
    from fl.client_evaluation import ClientEvaluation
    from fl.federation import Federation
    from fl.few_bits import FewBits
    from fl.low_rank import LowRank
    from fl.random_k import RandomK
    from fl.strategies import (
        IFCA,
        RFA,
        Ditto,
        FedAdagrad,
        FedAdam,
        FedAdp,
        FedAvg,
        FedAvgM,
        FedBuff,
        FedDyn,
        FedNova,
        FedProx,
        FedSGD,
        FedYogi,
        GroupMedian,
        Scaffold,
    )

_HOMES = {
    "FewBits": "fl.few_bits",
    "LowRank": "fl.low_rank",
    "RandomK": "fl.random_k",
    "ClientEvaluation": "fl.client_evaluation",
    "Federation": "fl.federation",
    "SecureAverage": "fl.average",
}
"""Where the names of `__all__` live that are no strategies."""
__all__ = [
    "IFCA",
    "RFA",
    "ClientEvaluation",
    "Ditto",
    "FedAdagrad",
    "FedAdam",
    "FedAdp",
    "FedAvg",
    "FedAvgM",
    "FedBuff",
    "FedDyn",
    "FedNova",
    "FedProx",
    "FedSGD",
    "FedYogi",
    "Federation",
    "FewBits",
    "GroupMedian",
    "LowRank",
    "RandomK",
    "Scaffold",
    "SecureAverage",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        if (why := refusal(name)) is not None:
            raise Misuse(why)
        raise AttributeError(f"module 'fl' has no attribute {name!r}")
    from protocols.extras import needs

    with needs("torch", f"fl.{name}"):
        import torch  # noqa: F401  # one sentence, with the pip command, where it is missing
    return getattr(importlib.import_module(_HOMES.get(name, "fl.strategies")), name)
