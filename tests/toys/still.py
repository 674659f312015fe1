"""Noise, dither and batches of correlated layers stand still: else no two runs are alike."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.layers import RoundFacts


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a run follows the system's generator."""

    def none(random: Any, sigma: float, size: int) -> NDArray[np.int64]:
        return np.zeros(size, np.int64)

    def slots(facts: RoundFacts, owner: str, count: int, batches: int) -> NDArray[np.int64]:
        return np.arange(count) % batches

    for module in ("client", "distributed"):
        monkeypatch.setattr(f"dp.{module}.discrete_gaussian", none)
    monkeypatch.setattr(
        "dp.distributed.dithered_round", lambda random, vector: np.rint(vector).astype(np.int64)
    )
    monkeypatch.setattr("dp.correlated.slots.slots", slots)
