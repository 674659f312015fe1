"""Fixed Paillier keys and sums for tests, so that no test waits for safe primes; their factors are public."""

import functools
import json
from pathlib import Path

from he import KeyHolder, PaillierSum, SharedByClients, Threshold
from he.arrangements import Arrangement
from he.paillier.keyring import HolderKey, Keyring
from he.paillier.keys import PublicKey, SecretKey
from he.paillier.threshold import deal
from he.roles.messages import EncryptedInput, Listed
from he.roles.voting import vote, voter
from protocols.agreement import Certificate, certify
from protocols.codec import BigInt
from tests.deterministic import DeterministicRandom

VECTORS = Path(__file__).parent / "vectors" / "paillier_keys.json"


@functools.cache
def secret_key(name: str = "safe-2048") -> SecretKey:
    """The committed key of safe primes (`safe-2048`), or the one of primes 3 modulo 4 (`blum-2048`)."""
    raw = json.loads(VECTORS.read_text())["keys"][name]
    p, q, h = (int(raw[field], 16) for field in ("p", "q", "h"))
    return SecretKey(PublicKey(BigInt(p * q), BigInt(h)), BigInt(p), BigInt(q))


@functools.cache
def ring(arrangement: Arrangement) -> Keyring:
    if isinstance(arrangement, Threshold):
        return Keyring.of(*deal(arrangement, secret=secret_key(), random=DeterministicRandom(5))[1])
    return Keyring.of(HolderKey(secret_key("blum-2048"), bytes(range(32))))


def certificate(
    keys: Keyring, context: bytes, inputs: dict[int, EncryptedInput], quorum: int = 2
) -> Certificate:
    """What `quorum` of the decryptors sign who vote for exactly these inputs."""
    listed = Listed.of({i: sent.ticket for i, sent in inputs.items()})
    voters = {s.index - 1: voter(s.vote, "decryptor") for s in keys.shares[:quorum]}
    return certify({i: vote(who, context, listed).signature for i, who in voters.items()}, quorum)


@functools.cache
def fixed(arrangement: Arrangement) -> PaillierSum:
    return PaillierSum(arrangement, key_bits=2048, keys=ring(arrangement))


def keyholder() -> PaillierSum:
    return fixed(KeyHolder())


def shared() -> PaillierSum:
    return fixed(SharedByClients())


def threshold() -> PaillierSum:
    return fixed(Threshold(2, 3))
