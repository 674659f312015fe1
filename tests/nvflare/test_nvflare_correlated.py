"""Correlated noise over NVFlare's tasks: rows and histories at sites give the model of the run in memory, and a job
that was killed goes on with them.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="the extra nvflare is not installed")

from nvflare.apis.shareable import Shareable

from dp import Ledger
from fl import checkpoint
from fl.nvflare.messages import unpack_request
from fl.round.party_ledger import LEDGER
from tests.nvflare import federations
from tests.nvflare.direct import Deployment
from tests.nvflare.federations import SIX
from tests.toys.still import fixed

__all__ = ["fixed"]
ROUNDS = 6


@pytest.mark.parametrize("name", ["correlated_clients", "correlated_examples"])
@pytest.mark.usefixtures("fixed")
@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_run_gives_the_model_and_the_price_of_the_run_in_memory_also_after_a_kill(
    tmp_path: Path, name: str
) -> None:
    """The server dies between the second row and its third, before a site was asked for anything of it."""
    place = f"{federations.__name__}:{name}"
    killed = Deployment(tmp_path, place, SIX, simulated=False)
    killed.allow()

    def stops(site: str, message: Shareable) -> Shareable | None:
        header = unpack_request(message, None)[0].header
        if header is not None and header.terms.number == 3:
            killed.abort.trigger(True)
            return None
        return message

    killed.before = stops
    assert killed.play(ROUNDS) == ["SecAggError: the job was aborted"]
    assert Deployment(tmp_path, place, SIX, simulated=False).play(ROUNDS) == []
    run = checkpoint.load_run(tmp_path / "server" / "local" / "secagg" / "runs" / "run")
    expected = getattr(federations, name)().fit(ROUNDS)
    assert run is not None
    assert [row.number for row in run.history] == list(range(1, ROUNDS + 1))
    assert [row.survivors for row in run.history] == [row.survivors for row in expected.history]
    assert run.history[-1].guarantees == expected.history[-1].guarantees
    for key, array in expected.model.state_dict().items():
        assert np.abs(np.asarray(run.model[key]) - array.numpy()).max() < 1e-4
    asked = [row.number for row in run.history if SIX[0] in row.asked]
    ledger = Ledger(tmp_path / SIX[0] / "local" / "secagg" / LEDGER)
    assert sorted({entry.round for entry in ledger.entries()}) == asked
