"""Correlated noise on Flower: rows, histories at nodes, a client that is lost and a row that is abandoned give the
model of the run in memory. Noise, dither and batches are fixed here, or no two runs would be alike.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger
from fl import Federation, FedSGD
from fl.flower.messages import unpack_answer
from fl.network.site import load_site
from fl.round.party_ledger import LEDGER
from protocols.errors import Aborted, PolicyRefusal
from protocols.layers import Aggregate, Contribution, PrivacyLayer, RoundFacts, Signal, SumFacts
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid
from tests.flower.test_flower_apps import serve, train
from tests.toys.still import fixed

__all__ = ["fixed"]

NAMES = tuple(f"site-{i}" for i in range(8))
EXAMPLES, ROUNDS, LOST, ABANDONED = 24, 6, 2, 4


class Troubled(PrivacyLayer):
    """Toy: a row has no result, and in memory one client is lost in another, after its history was kept."""

    name = "troubled"
    here = False

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        if self.here and (facts.client, facts.number) == (NAMES[1], LOST):
            raise PolicyRefusal("lost")
        return contribution

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        if facts.number == ABANDONED:
            raise Aborted("no result")
        return aggregate


def loader_for(name: str, config: dict[str, Any]) -> DataLoader[Any]:
    x = torch.randn(EXAMPLES, 5, generator=torch.Generator().manual_seed(NAMES.index(name)))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8)


def loss(net: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])


def made(layer: PrivacyLayer, **options: Any) -> Federation:
    masks = SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)
    common: dict[str, Any] = {"names": NAMES, "privacy": [layer, Troubled(), masks], "delta": 1e-5, "seed": 3}
    return Federation(lambda: torch.nn.Linear(5, 2), loader_for, **{"metrics": (), **common, **options})


def clients() -> Federation:
    layer = ClientDP(noise_multiplier=1.0, clip=0.5, correlation="banded", min_separation=2)
    return made(layer, train=train, sampling="cyclic", fraction=0.5)


def arrivals() -> Federation:
    layer = ClientDP(noise_multiplier=1.0, clip=0.5, correlation="banded", min_separation=3)
    return made(layer, train=train, sampling="arrivals", fraction=1.0)


def examples() -> Federation:
    plan: dict[str, Any] = {"unit": "example", "examples": 8 * EXAMPLES, "batches": 3, "epochs": 2}
    layer = DistributedDP(noise_multiplier=1.0, correlation="banded", min_survivors=4, **plan)
    return made(layer, strategy=FedSGD(lr=0.5), loss=loss)


def flat(model: torch.nn.Module) -> NDArray[np.float64]:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()])


def loses(nth: int) -> Callable[[int, Message], Message | None]:
    """Node 1's nth masked row is lost on the way: it has left, and is charged."""
    left = [nth]

    def after(node: int, message: Message) -> Message | None:
        if node == 1 and not message.has_error():
            left[0] -= unpack_answer(message.content, None)[0].stage == "masked-input"
            if left[0] == 0:
                left[0] = -1
                return None
        return message

    return after


@pytest.mark.parametrize("make", [clients, examples])
@pytest.mark.usefixtures("fixed")
@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_whole_run_with_a_lost_client_and_an_abandoned_row_gives_the_model_of_the_run_in_memory(
    tmp_path: Path, make: Callable[[], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    apps = {n: (make().client_app(site=tmp_path / f"n{n}"), {"partition-id": n}) for n in range(len(NAMES))}
    result = serve(DirectGrid(apps, after=loses(1 if make is clients else 2)), make(), ROUNDS, timeout=0.5)
    monkeypatch.setattr(Troubled, "here", True)
    expected = make().fit(ROUNDS)
    for played in (result, expected):
        assert [row.number for row in played.history if row.abandoned] == [ABANDONED]
        assert [row.number for row in played.history if row.asked != row.survivors] == [LOST, ABANDONED]
    assert [row.survivors for row in result.history] == [row.survivors for row in expected.history]
    start, one, other = (flat(model) for model in (make().model, result.model, expected.model))
    assert np.abs(one - other).max() < 1e-4
    assert np.abs(one - start).max() > 0.05
    assert result.guarantees == expected.guarantees
    rows = [entry.round for entry in Ledger(tmp_path / "n1" / LEDGER).entries()]
    # also what was lost, or had no result
    assert rows == ([2, 4, 6] if make is clients else [1, 2, 3, 4, 5, 6])


def _histories(folder: Path) -> list[str]:
    """What nodes keep of rows, settled or not: raw clipped data."""
    sites = [load_site(folder / f"n{n}", n, name) for n, name in enumerate(NAMES)]
    return [name for site in sites for name in site.store.names() if name.endswith(("/settled", "/pending"))]


def test_the_end_of_the_run_erases_what_is_left_with_a_node_that_misses_the_last_row(tmp_path: Path) -> None:
    apps = {
        n: (examples().client_app(site=tmp_path / f"n{n}"), {"partition-id": n}) for n in range(len(NAMES))
    }
    result = serve(DirectGrid(apps, after=loses(ROUNDS)), examples(), ROUNDS, timeout=0.5)
    assert NAMES[1] not in result.history[-1].survivors
    assert not _histories(tmp_path)


def test_a_node_that_is_asked_too_late_has_erased_its_history_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dp.distributed.HISTORY_SECONDS", -1.0)
    apps = {
        n: (examples().client_app(site=tmp_path / f"n{n}"), {"partition-id": n}) for n in range(len(NAMES))
    }
    first, second, *_ = serve(DirectGrid(apps), examples(), ROUNDS, timeout=0.5).history
    assert not first.abandoned
    assert second.abandoned
    assert "batches of this run were erased" in str(second.refusals)


@pytest.mark.filterwarnings("ignore:.*drown")
def test_the_server_asks_no_node_whom_its_own_totals_forbid(tmp_path: Path) -> None:
    """It does not ask for a node's refusal, whose store may have been put back. A row without a result is in no total:
    there nodes refuse by themselves.
    """
    apps = {
        n: (arrivals().client_app(site=tmp_path / f"n{n}"), {"partition-id": n}) for n in range(len(NAMES))
    }
    history = serve(DirectGrid(apps), arrivals(), ROUNDS, timeout=5.0).history
    assert [row.number for row in history if row.survivors] == [1]
    assert [row.number for row in history if row.asked] == [1, ABANDONED, 5, 6]
