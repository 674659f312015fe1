"""On Flower too the key holder gives the sum to the clients that the configuration names, past the server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.flower.arrays import arrays_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.node_party import Begun
from he import CKKSSum, KeyHolder, PaillierSum
from protocols.errors import Misuse
from protocols.runtime import Runtime
from protocols.store import FileStore
from protocols.summation import SecureSum, Total
from tests.flower.direct import DirectGrid, client_app, fedavg, model

Make = Callable[[tuple[str, ...]], SecureSum]
MAKES = pytest.mark.parametrize(
    "make",
    [
        lambda names: PaillierSum(KeyHolder(recipients=names), key_bits=2048),
        lambda names: CKKSSum(KeyHolder(recipients=names)),
    ],
    ids=["paillier", "ckks"],
)


def played(folder: Path, protocol: SecureSum) -> tuple[PrivateStrategy, DirectGrid, list[bytes]]:
    """Run a round of three clients, nodes 2 to 4; node 1 holds the key. Return all that the server sent, too."""
    apps: dict[int, tuple[Any, dict[str, Any]]] = {
        n: (client_app(privacy_mod([protocol], site=folder / f"n{n}")), {}) for n in range(1, 5)
    }
    grid, strategy = DirectGrid(apps), PrivateStrategy(fedavg(3), [protocol], folder=folder / "run")
    strategy.start(grid, arrays_of(model()), num_rounds=1)
    sent = [
        bytes(value) for _, m in grid.log for r in m.content.config_records.values() for value in _bytes(r)
    ]
    return strategy, grid, sent


def _bytes(record: Any) -> list[bytes]:
    values = [v for value in record.values() for v in (value if isinstance(value, list) else [value])]
    return [v for v in values if isinstance(v, bytes)]


def total_of(folder: Path, node: int, protocol: SecureSum) -> Total | None:
    """What the node's own store holds of the last session's total."""
    store = FileStore(folder / f"n{node}" / "state", f"node-{node}")
    (key,) = store.names("flower/session")
    saved = store.get(key)
    assert saved is not None
    return Runtime(protocol, Begun.decode(saved).session, store).total()


@MAKES
def test_a_named_node_ends_the_round_with_the_sum(
    tmp_path: Path, make: Make, totals: list[np.ndarray]
) -> None:
    protocol = make(("server", "node-3"))
    strategy, _, sent = played(tmp_path, protocol)
    (report,) = strategy.history
    assert report.abandoned is None
    assert [trip.stage for trip in report.trips][-1] == "total"
    given = total_of(tmp_path, 3, protocol)
    assert given is not None
    np.testing.assert_array_equal(totals, [given.total])
    assert given.survivors == (0, 1, 2)
    plain = np.ascontiguousarray(given.total, np.int64).tobytes()
    assert sent
    assert not any(plain in value for value in sent)
    for other in (1, 2, 4):
        assert total_of(tmp_path, other, protocol) is None


@MAKES
def test_a_named_node_that_is_not_there_is_refused_before_the_first_round(tmp_path: Path, make: Make) -> None:
    with pytest.raises(Misuse, match="'node-9' to be given the sum"):
        played(tmp_path, make(("server", "node-9")))
