"""A federation under homomorphic sums ends in the very model that the plain sum gives, clients that leave included."""

import re

import pytest
import torch

from dp import DistributedDP
from fl import Federation
from fl.data import load
from fl.data.partition import partition
from fl.models import logistic
from fl.run_result import Result
from he import CKKSSum, KeyHolder, PaillierSum, SharedByClients, Threshold
from protocols import PlainSum, SecureSum
from protocols.errors import Misuse
from protocols.layers import PrivacyLayer
from tests.paillier_fixed import ring

CLIENTS = 6
SUMS = {
    "paillier, key holder": lambda: PaillierSum(KeyHolder(), key_bits=2048, keys=ring(KeyHolder())),
    "paillier, shared": lambda: PaillierSum(SharedByClients(), key_bits=2048, keys=ring(SharedByClients())),
    "paillier, threshold": lambda: PaillierSum(Threshold(2, 3), key_bits=2048, keys=ring(Threshold(2, 3))),
    "ckks, key holder": CKKSSum,
    "ckks, shared": lambda: CKKSSum(SharedByClients()),
}


def run(*layers: SecureSum | PrivacyLayer, dropout: float, **plan: float) -> Result:
    data = load("digits")
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    loaders = {
        name: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[own], y[own]), batch_size=64)
        for name, own in partition(data, "iid", CLIENTS, seed=1).items()
    }
    federation = Federation(
        model=lambda: logistic(data.x_train.shape[1:], 10),
        clients=loaders,
        privacy=list(layers),
        dropout=dropout,
        **{"seed": 4, **plan},
    )
    return federation.fit(rounds=1)


def trained(layer: SecureSum, dropout: float, **plan: float) -> tuple[list[torch.Tensor], list[object]]:
    result = run(layer, dropout=dropout, **plan)
    return list(result.model.state_dict().values()), list(result.survivors)


@pytest.mark.parametrize("name", SUMS)
def test_the_encrypted_run_is_the_plain_run(name: str) -> None:
    open_, there = trained(PlainSum(), 0.3)
    hidden, here = trained(SUMS[name](), 0.3)
    assert len(there[0]) < CLIENTS
    assert here == there
    assert all(torch.equal(one, other) for one, other in zip(hidden, open_, strict=True))


def test_clients_that_are_named_go_along_and_a_name_that_is_none_is_refused_before_round_1() -> None:
    def layer(*names: str) -> SecureSum:
        return PaillierSum(KeyHolder(recipients=("server", *names)), key_bits=2048, keys=ring(KeyHolder()))

    hidden, here = trained(layer("client-01"), 0.3)
    open_, there = trained(PlainSum(), 0.3)
    assert here == there
    assert all(torch.equal(one, other) for one, other in zip(hidden, open_, strict=True))
    with pytest.raises(Misuse, match="'nobody' is to be given the sum and is no client"):
        trained(layer("nobody"), 0.0)
    with pytest.raises(Misuse, match="not every round asks every client"):
        trained(layer("client-01"), 0.0, fraction=0.5)


@pytest.mark.parametrize("name", SUMS)
def test_a_round_of_too_few_clients_is_abandoned_by_name_and_its_noise_is_charged(name: str) -> None:
    """Noise that two survivors would carry changes nothing: fewer than four of six are no sum that anybody opens."""
    noise = DistributedDP(noise_multiplier=1.0, clip=1.0, min_survivors=2)
    result = run(noise, SUMS[name](), dropout=0.9, delta=1e-5, seed=1)  # three leave before their input does
    (entry,) = result.history
    assert re.search(
        r"at least 4 clients(, \d of 6 came: min_survivors| to join, \d did)", entry.abandoned or ""
    )
    assert entry.survivors == ()
    (price,) = result.guarantees
    assert price.epsilon > 0
