"""Strategies: what a client contributes and what the server does with the mean. None of them sees one
client's update.
"""

from fl.strategies.base import Strategy
from fl.strategies.ditto import Ditto
from fl.strategies.fedadam import FedAdam
from fl.strategies.fedavg import FedAvg
from fl.strategies.fedprox import FedProx
from fl.strategies.fedsgd import FedSGD
from fl.strategies.group_median import GroupMedian
from fl.strategies.ifca import IFCA
from fl.strategies.rfa import RFA

__all__ = ["IFCA", "RFA", "Ditto", "FedAdam", "FedAvg", "FedProx", "FedSGD", "GroupMedian", "Strategy"]
