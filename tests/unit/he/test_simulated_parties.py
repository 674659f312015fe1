"""In one process the statement says "simulated parties", whoever holds the key and however it was made."""

from collections.abc import Callable

import phe
import pytest

from he import CKKSSum, KeyHolder, PaillierSum, SharedByClients, Threshold
from he.ckks import SharedKey
from he.paillier import HolderKey, Keyring, from_phe
from he.paillier.keys import SecretKey
from protocols import PlainSum, SecureSum, simulate
from protocols.statement import PLAYED_HERE, played_here
from secagg import SecAgg
from tests.deterministic import DeterministicRandom
from tests.paillier_fixed import ring, secret_key


def _paillier(arrangement: KeyHolder | SharedByClients | Threshold, keys: object = None) -> SecureSum:
    given = ring(arrangement) if keys is None else keys
    return PaillierSum(arrangement, key_bits=2048, keys=given)  # type: ignore[arg-type]  # any form of keys


def _foreign() -> HolderKey:
    own = secret_key("blum-2048")
    public = phe.PaillierPublicKey(int(own.public.n))
    secret = from_phe(phe.PaillierPrivateKey(public, int(own.p), int(own.q)))
    assert isinstance(secret, SecretKey)
    return HolderKey.of(secret)


MADE: dict[str, Callable[[], SecureSum]] = {
    "paillier, holder's key given": lambda: _paillier(KeyHolder()),
    "paillier, shared key given": lambda: _paillier(SharedByClients()),
    "paillier, shares given": lambda: _paillier(Threshold(2, 3)),
    "paillier, shares given one by one": lambda: _paillier(Threshold(2, 3), ring(Threshold(2, 3)).shares),
    "paillier, foreign key, held": lambda: _paillier(KeyHolder(), _foreign()),
    "paillier, foreign key, shared": lambda: _paillier(SharedByClients(), Keyring.of(_foreign())),
    "paillier, recipients": lambda: _paillier(KeyHolder(recipients=("server", "a"))),
    "paillier, holder's key made": lambda: PaillierSum(KeyHolder(), key_bits=2048),
    "paillier, shared key made": lambda: PaillierSum("shared", key_bits=2048),
    "ckks, held": CKKSSum,
    "ckks, recipients": lambda: CKKSSum(KeyHolder(recipients=("server", "a"))),
    "ckks, shared key made": lambda: CKKSSum("shared"),
    "ckks, shared key given": lambda: CKKSSum(SharedByClients(), key=SharedKey.generate()),
    "masks": SecAgg,
    "none": PlainSum,
}


@pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))
@pytest.mark.parametrize("seeded", [False, True])
def test_one_process_says_so(make: Callable[[], SecureSum], seeded: bool) -> None:
    rng = DeterministicRandom(3) if seeded else None
    told = simulate(make(), {"a": [1], "b": [-2], "c": [5]}, rng=rng).protection.limits
    assert sum(limit.startswith("simulated parties:") for limit in told) == 1


def test_what_is_said_already_is_not_said_twice() -> None:
    told = simulate(PlainSum(), [[1], [2]]).protection
    assert told.limits[-1] == PLAYED_HERE
    assert played_here(told) == told
