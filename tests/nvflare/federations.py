"""Federations that the tests' jobs name, as packages installed at a site would hold them."""

import functools
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import ClientEvaluation, Federation, FedSGD
from fl.network.site import Site
from he import CKKSSum, PaillierSum
from he.arrangements import KeyHolder, SharedByClients, Threshold
from protocols.layers import PrivacyLayer
from protocols.policy import Policy
from secagg import SecAggPlus

SITES = ("site-1", "site-2", "site-3", "site-4")
SIX = (*SITES, "site-5", "site-6")


def loader_for(name: str, config: dict[str, Any]) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(SIX.index(name))
    x = torch.randn(24, 5, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8, shuffle=True)


def masks() -> SecAggPlus:
    return SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)


def made(*privacy: Any, **named: Any) -> Federation:
    options: dict[str, Any] = {"names": SITES, "seed": 3, **named}
    return Federation(lambda: torch.nn.Linear(5, 2), loader_for, privacy=list(privacy), **options)


def plain(site: Site | None = None) -> Federation:
    return made()


def masked(site: Site | None = None) -> Federation:
    return made(masks())


def other(site: Site | None = None) -> Federation:
    """The next experiment: other updates than `masked`."""
    return made(masks(), learning_rate=0.02)


@functools.cache
def keys() -> Any:
    """Simulated Paillier keys, made once: a deployment's key holder reads its own from a file."""
    return PaillierSum(KeyHolder(), key_bits=2048)


def paillier(site: Site | None = None) -> Federation:
    return made(keys())


@functools.cache
def shared_ckks() -> Any:
    return CKKSSum()


def ckks(site: Site | None = None) -> Federation:
    return made(shared_ckks())


def client_dp(site: Site | None = None) -> Federation:
    return made(ClientDP(epsilon=8, delta=1e-5, clip=1.0), masks())


def distributed_dp(site: Site | None = None) -> Federation:
    return made(DistributedDP(epsilon=8, delta=1e-5, clip=1.0), masks())


def sample_dp(site: Site | None = None) -> Federation:
    return made(SampleDP(epsilon=8, delta=1e-5, clip=1.0), masks())


def local_dp(site: Site | None = None) -> Federation:
    return made(LocalDP(epsilon=8, delta=1e-5, clip=1.0), masks())


def loose(site: Site | None = None) -> Federation:
    """A federation whose own policy asks for little."""
    return made(masks(), policy=Policy(min_cohort=2, min_threshold_share=0.0, allow_resend=True))


OWN_KEY = "own.he.key"
"""In the folder of every party that has a key of a homomorphic sum: its own, which nobody else has."""
DECRYPTORS = tuple(f"office-{n}" for n in (1, 2, 3))


def signed(site: Site) -> Federation:
    """The malicious model: every site signs with the identity in its own folder."""
    layer = SecAggPlus(threat="malicious", dropout=0.25, collusion=0.0, credentials=site.credentials())
    return made(layer)


def threshold(site: Site) -> Federation:
    """Paillier, of which two of three decryptors open the sum. site: whose folder says what it holds of the key."""
    assert site.folder is not None
    return made(
        PaillierSum(
            Threshold(2, 3),
            key_bits=2048,
            keys=site.folder / OWN_KEY,
            identity=site.identity,
            roster=site.roster,
        )
    )


def shared(site: Site) -> Federation:
    """CKKS under a key that the clients share and the server does not have."""
    own = None if site.name == "server" else site.folder / OWN_KEY  # type: ignore[operator]  # a party has a folder
    return made(CKKSSum(SharedByClients(), key=own))


def evaluating(site: Site | None = None) -> Federation:
    """Measured on rows of the sites' own, by sums of their own."""
    own = ClientEvaluation(loader_for, names=SITES, classes=2, privacy=[masks()])
    return made(masks(), evaluation=own)


def _correlated(layer: PrivacyLayer, **named: Any) -> Federation:
    return made(layer, masks(), names=SIX, delta=1e-5, metrics=(), **named)


def correlated_clients(site: Site | None = None) -> Federation:
    layer = ClientDP(noise_multiplier=1.0, clip=0.5, correlation="banded", min_separation=2)
    return _correlated(layer, sampling="cyclic", fraction=0.5)


def correlated_examples(site: Site | None = None) -> Federation:
    plan: dict[str, Any] = {"unit": "example", "examples": 24 * len(SIX), "batches": 3, "epochs": 2}
    layer = DistributedDP(noise_multiplier=1.0, correlation="banded", **plan)
    return _correlated(layer, strategy=FedSGD(lr=0.5), loss=_loss)


def _loss(net: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
