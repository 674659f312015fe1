"""One set-up, many rounds of two trips: keys are agreed once, a client drops out, another returns.

    python examples/reused_keys.py

Each party keeps a store of its own. Here they are in memory and all in this process; a deployed party has a
`FileStore` and never sees another's.
"""

import numpy as np

from protocols import simulate
from protocols.store import MemoryStore
from secagg import SecAggPlus

CLIENTS = ("north", "south", "east", "west", "centre")
AWAY = {1: [], 2: ["east"], 3: [], 4: ["west"]}


def main() -> None:
    protocol = SecAggPlus(setup="reuse", dropout=0.2)
    stores = {name: MemoryStore() for name in (*CLIENTS, "server")}
    generator = np.random.default_rng(1)
    for number, away in AWAY.items():
        vectors = {name: generator.integers(-1000, 1000, 8) for name in CLIENTS}
        outcome = simulate(protocol, vectors, {"masked-input": away}, bound=1000, round=number, stores=stores)
        expected = sum(vectors[name] for name in CLIENTS if name not in away)
        assert (outcome.total == expected).all()
        trips = " -> ".join(outcome.seconds)
        print(f"round {number}: {trips}; {len(outcome.survivors)} of {len(CLIENTS)} clients in the sum")
    print(outcome.protection.mechanism)


if __name__ == "__main__":
    main()
