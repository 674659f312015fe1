"""What tests of a server on Flower share."""

import logging
from typing import Any

import numpy as np
import pytest

from fl.network.network_engine import NetworkEngine


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    """What Flower's logger is told is seen, whatever level a simulation in this process left it at."""
    caplog.set_level(logging.INFO, "flwr")


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The totals that servers end their sums with, in order."""
    found: list[np.ndarray] = []
    sum_ = NetworkEngine.sum

    def watched(self: NetworkEngine, *given: Any) -> Any:
        summed = sum_(self, *given)
        found.append(summed.total)
        return summed

    monkeypatch.setattr(NetworkEngine, "sum", watched)
    return found
