"""A Federation's rounds over a network, from the server's side: from the first wait for clients to the last head.

What does not belong here: how a framework starts a server, a round (`fl.round`), a sum (`network_engine`).
"""

from collections.abc import Callable, Sequence
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, Protocol, Self

from fl import checkpoint
from fl.coordinator import Coordinator
from fl.federation_setup import FederationSetup
from fl.network.messages import Shown
from fl.network.network_engine import NetworkEngine
from fl.network.server_party import ServerParty
from fl.network.server_state import OVER
from fl.round import Engine, RoundResult
from fl.round.run_files import last_entry
from fl.run_result import Result
from protocols.identity import Identity
from protocols.record import GENESIS

AMPLIFIED = (
    "the price counts on a secret choice of clients, which no client can check: each node's own ledger, and its "
    "max_epsilon, count every round that it was asked for without it"
)
OnRound = Callable[[RoundResult], Any]


class Federated(Protocol):
    """What the apps use of a `fl.Federation`."""

    setup: FederationSetup
    coordinator: Coordinator
    engine: Engine
    signer: Identity | None

    def with_privacy(self, privacy: Sequence[Any]) -> Self: ...

    def fit(self, rounds: int, *, resume: bool = False, on_round: OnRound | None = None) -> Result: ...


def run_rounds(
    playing: Federated,
    server: ServerParty[Shown],
    rounds: int,
    timeout: float,
    on_round: OnRound | None = None,
    erase: bool = False,
) -> Result:
    """Run the rounds that are left in the federation's output folder, and hand clients the record's last head.

    timeout: seconds per trip. on_round: False ends the run. erase: once the last round is over, clients erase what they
    kept from round to round; of layers that count their rows (correlated noise) they do so in any case.
    """
    said = lambda: (AMPLIFIED,) if playing.coordinator.hidden else ()  # noqa: E731  # known once it is planned
    playing.engine = NetworkEngine(server, timeout, said, playing.coordinator.participants.spared)
    playing.signer, folder = server.identity, playing.setup.output
    server.head = last_head(folder)

    def after(result: RoundResult) -> Any:
        server.head = last_head(folder)
        _say(server.log, result)
        return on_round(result) if on_round else None

    resume = folder is not None and checkpoint.begun(folder)
    if folder is not None and (done := checkpoint.rounds_in(folder)) >= rounds:
        server.log(WARNING, OVER, folder, done)
    server.wait(playing.coordinator.cohort(), timeout)
    result = playing.fit(rounds, resume=resume, on_round=after)
    ended = len(result.history) == rounds and (erase or playing.setup.stack.counted)
    over = playing.coordinator.origin.run if ended else ""
    kept = server.farewell(playing.coordinator.run, min(timeout, 60.0), over, whole=erase)
    if folder is not None:
        server.log(INFO, "%d clients keep the head %s of the run record", len(kept), server.head)
    return result


def last_head(folder: Path | None) -> str:
    """Return the head of the record in `folder`, or that of an empty one."""
    last = None if folder is None else last_entry(folder)
    return GENESIS if last is None else str(last["head"])


def _say(log: Callable[..., None], result: RoundResult) -> None:
    if result.abandoned:
        log(INFO, "round %d is abandoned: %s; the model stays", result.number, result.abandoned)
        return
    facts = {**result.train_metrics, **{f"test {k}": v for k, v in result.metrics.items()}}
    shown = [f"{k} {v:.4f}" for k, v in facts.items()] + [f"{k} {v:.1f} s" for k, v in result.seconds.items()]
    counts = f"{len(result.survivors)} of {len(result.asked)}"
    took_part = "who took part is withheld" if result.withheld else counts
    log(INFO, "round %d: %s, %s", result.number, took_part, ", ".join(shown))
