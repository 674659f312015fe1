"""Whole sessions on fixed randomness, for `test_sessions`. `python -m tests.vectors.secagg.sessions` prints the file.

Every label of a key derivation, every domain and every order of fields shows in these bytes.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols import simulate
from protocols.audit.repeatable import ReplayRandom
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.kernel import Message
from protocols.store import MemoryStore
from protocols.summation import SecureSum
from secagg import Credentials, SecAgg, SecAggPlus

NAMES = [f"site-{i}" for i in range(8)]
Session = dict[str, Any]


def identity(name: str) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def credentials() -> Credentials:
    identities = {name: identity(name) for name in NAMES}
    members = [Member(name, "client", own.public) for name, own in identities.items()]
    authority = identity("authority")
    return Credentials(
        SignedRoster.sign(Roster.of("vectors", 1, members), authority), authority.public, identities
    )


CASES: dict[str, Callable[[], SecureSum]] = {
    "secagg": lambda: SecAgg(dropout=0.3),
    "secagg+ semi-honest": lambda: SecAggPlus(
        threat="semi-honest", dropout=0.3, collusion=0.0, neighbours=4, threshold=3
    ),
    "secagg+ malicious": lambda: SecAggPlus(
        threat="malicious", collusion=0.0, neighbours=6, threshold=5, credentials=credentials()
    ),
    "secagg+ malicious, beacon": lambda: SecAggPlus(
        threat="malicious",
        collusion=0.0,
        neighbours=6,
        threshold=5,
        credentials=credentials(),
        beacon=b"a public beacon",
    ),
    "secagg+ reuse": lambda: SecAggPlus(setup="reuse", threat="semi-malicious", dropout=0.3, collusion=0.0),
    "secagg+ reuse, malicious": lambda: SecAggPlus(
        setup="reuse", threat="malicious", dropout=0.2, collusion=0.0, credentials=credentials()
    ),
}
DROPS: dict[str, dict[str, set[str]]] = {"nobody leaves": {}, "site-2 leaves": {"masked-input": {"site-2"}}}


def play(case: str, leaving: str) -> list[Session]:
    """Return, per round: the total, the messages of each stage and what the parties keep, as digests."""
    make, drop = CASES[case], DROPS[leaving]
    stores = {name: MemoryStore() for name in [*NAMES, "server"]}
    random = ReplayRandom(7)
    played = []
    for number in (1, 2) if "reuse" in case else (1,):
        stages: defaultdict[str, Any] = defaultdict(hashlib.sha256)

        def observe(message: Message, stages: defaultdict[str, Any] = stages) -> None:
            stages[message.stage].update(message.to_wire())

        vectors = {name: np.arange(5) * (i + 1) - (i + 1) * number for i, name in enumerate(NAMES)}
        outcome = simulate(
            make(),
            vectors,
            drop=drop,
            rng=random,
            observe=observe,
            stores=stores,
            round=number,
            model=bytes([number]) * 32,
            bound=63,
        )
        played.append(
            {
                "total": outcome.total.tolist(),
                "stages": {stage: digest.hexdigest() for stage, digest in stages.items()},
                "kept": kept(stores),
            }
        )
    return played


def kept(stores: dict[str, MemoryStore]) -> str:
    digest = hashlib.sha256()
    for name, store in stores.items():
        with store.transaction() as transaction:
            for entry in sorted(transaction.names()):
                digest.update(f"{name}/{entry}/".encode() + (transaction.get(entry) or b""))
    return digest.hexdigest()


def every() -> dict[str, dict[str, list[Session]]]:
    return {case: {leaving: play(case, leaving) for leaving in DROPS} for case in CASES}


if __name__ == "__main__":
    print(json.dumps(every(), indent=1))
