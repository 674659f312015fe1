"""Callbacks: what a user hangs into a run, `Federation(callbacks=[...])`. Base and built-ins.

What belongs here: hooks, stopping, choosing a model, logs. What does not: how a round goes, what may be told of it
(`fl.round.hidden`): server hooks are handed what the run's files hold, and no more.
"""

from fl.callbacks.base import Callback, Run
from fl.callbacks.choosing import EarlyStopping, KeepBest
from fl.callbacks.logs import CSVLog, MLflow, TensorBoard, WandB

__all__ = ["CSVLog", "Callback", "EarlyStopping", "KeepBest", "MLflow", "Run", "TensorBoard", "WandB"]
