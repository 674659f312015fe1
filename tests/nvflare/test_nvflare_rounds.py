"""A Federation over NVFlare's tasks: the totals of the run in memory, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nvflare", reason="the extra nvflare is not installed")

from fl import checkpoint
from fl.engines.memory import MemoryEngine
from fl.network.engine import NetworkEngine
from tests.nvflare import federations
from tests.nvflare.direct import Deployment
from tests.nvflare.federations import SITES

HERE = "tests.nvflare.federations"


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> dict[type, list[np.ndarray]]:
    """The totals of each engine's sums, in order."""
    found: dict[type, list[np.ndarray]] = {MemoryEngine: [], NetworkEngine: []}
    for kind in found:

        def watched(self: Any, *given: Any, sum_: Any = kind.sum) -> Any:
            summed = sum_(self, *given)
            found[type(self)].append(summed.total)
            return summed

        monkeypatch.setattr(kind, "sum", watched)
    return found


@pytest.mark.parametrize("name", ["plain", "masked"])
def test_totals_and_model_are_those_of_the_run_in_memory_bit_for_bit(
    tmp_path: Path, name: str, totals: dict[type, list[np.ndarray]]
) -> None:
    deployment = Deployment(tmp_path, f"{HERE}:{name}", SITES)
    assert deployment.play(2) == []
    expected = getattr(federations, name)().fit(2)
    assert len(totals[NetworkEngine]) == 2
    for ours, theirs in zip(totals[NetworkEngine], totals[MemoryEngine], strict=True):
        assert np.array_equal(ours, theirs)
    kept = checkpoint.load_run(tmp_path / "server" / deployment.job / "secagg" / "runs" / "run")
    for key, array in expected.model.state_dict().items():
        assert torch.equal(torch.from_numpy(np.asarray(kept.model[key])), array)
