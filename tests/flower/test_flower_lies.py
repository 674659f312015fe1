"""A server that lies about its plan: what a node believes of it, and what its own ledger says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from dp import ClientDP, Ledger
from dp.event_json import decode, from_fact
from fl.flower.arrays import arrays_of
from fl.flower.messages import START, pack, strip, unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round.party_ledger import LEDGER, party_events
from protocols.identity import Identity
from protocols.layers import RoundFacts, RunFacts
from protocols.stack import Stack
from secagg import SecAggPlus
from tests.flower.direct import fedavg, model, rostered
from tests.flower.test_flower_apps import federation, grid_of, serve

Before = Callable[[int, Message], Message]


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def amplified() -> list[Any]:
    return [ClientDP(noise_multiplier=0.5, delta=1e-5, clip=1.0, amplify=True), *masks()]


def telling(server: Identity | None, **run: Any) -> Before:
    """A server that says of the planned run what `run` says, under its own signature."""

    def before(node: int, message: Message) -> Message:
        request, frames = unpack_request(message.content, None)
        if request.header is None:
            return message
        terms = request.header.terms
        header = replace(request.header, terms=replace(terms, run=replace(terms.run, **run)))
        ours = pack(replace(request, header=header), frames, server)
        return Message(RecordDict({**strip(message.content), **ours}), node, "train")

    return before


@pytest.mark.parametrize("sampling", ["poisson", "fixed", "all"])
def test_behind_the_mod_a_run_that_claims_to_sample_is_refused(tmp_path: Path, sampling: str) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod(amplified()), policy={"max_epsilon": 3.0})
    grid.before = telling(arguments["identity"], sampling=sampling, rate=1e-4)
    named: dict[str, Any] = {**arguments, "stage_timeout": 0.1, "poll": 0.01}
    strategy = PrivateStrategy(fedavg(4), amplified(), **named)
    strategy.start(grid, arrays_of(model()), num_rounds=2)
    assert all(report.abandoned for report in strategy.history)
    assert all("sampling" in why for report in strategy.history for why in report.refusals.values())
    assert not (tmp_path / "keys" / "site-1" / LEDGER).exists()


def test_what_a_node_spends_claims_nothing_of_who_was_asked() -> None:
    layer = ClientDP(epsilon=2.0, delta=1e-5, clip=1.0, amplify=True)
    run = RunFacts(rounds=5, population=100, cohort=100, sampling="poisson", rate=0.1)
    stack = Stack([layer])
    stack.plan(run)
    plan = stack.round(RoundFacts(run, 1, ("a", "b"), bytes(32)), np.zeros(1))
    (claimed,), (own,) = plan.events(("a", "b")), party_events(plan, "a")
    assert (claimed.facts["sample_rate"], own.facts["sample_rate"]) == (0.1, 1.0)
    assert own == replace(
        claimed, facts={**claimed.facts, "sample_rate": 1.0}
    )  # the noise that is really added
    assert from_fact(own).unit == "client"


def sampled(**named: Any) -> Any:
    layers = [ClientDP(noise_multiplier=4.0, delta=1e-5, clip=1.0, amplify=True)]
    return federation(layers, sampling="poisson", fraction=0.9, min_survivors=1, **named)


def test_a_federation_that_samples_costs_a_node_as_if_it_were_always_asked(tmp_path: Path) -> None:
    result = serve(grid_of(tmp_path, sampled), sampled(), 3)
    assert {event.facts["sample_rate"] for event in result.statement.events} == {0.9}
    assert any("own ledger" in note for note in result.statement.notes)
    ledgers = [Ledger(path) for path in tmp_path.glob(f"n*/{LEDGER}")]
    charged = [decode(entry.event) for ledger in ledgers for entry in ledger.entries()]
    assert charged
    assert all(event.sample_rate == 1.0 for event in charged)


@pytest.mark.parametrize(
    "lie",
    [{"sampling": "all", "rate": 1.0}, {"rate": 1e-4}, {"population": 9}, {"dropout": 0.5}, {"delta": 0.1}],
    ids=lambda lie: next(iter(lie)),
)
def test_a_node_of_a_federation_refuses_a_run_that_is_not_the_federations(
    tmp_path: Path, lie: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The round is played with noise alone: that nobody was in it is withheld, as their choice is secret."""
    grid = grid_of(tmp_path, sampled, before=telling(None, **lie))
    serve(grid, sampled(), 1)
    asked = {node for node, message in grid.log if unpack_request(message.content, None)[0].kind == START}
    refused = [line for line in caplog.messages if "not the one that this federation plans" in line]
    assert len(refused) == len(asked)
    assert not list(tmp_path.glob(f"n*/{LEDGER}"))
