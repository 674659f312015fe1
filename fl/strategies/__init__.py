"""Strategies: what a client contributes and what the server does with the mean. None of them sees one
client's update.
"""

from fl.strategies.base import Strategy
from fl.strategies.ditto import Ditto
from fl.strategies.fedadp import FedAdp
from fl.strategies.fedavg import FedAvg
from fl.strategies.fedavgm import FedAvgM
from fl.strategies.fedbuff import FedBuff
from fl.strategies.feddyn import FedDyn
from fl.strategies.fednova import FedNova
from fl.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from fl.strategies.fedprox import FedProx
from fl.strategies.fedsgd import FedSGD
from fl.strategies.group_median import GroupMedian
from fl.strategies.ifca import IFCA
from fl.strategies.rfa import RFA
from fl.strategies.scaffold import Scaffold

__all__ = [
    "IFCA",
    "RFA",
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
    "GroupMedian",
    "Scaffold",
    "Strategy",
]
